"""A collection beside a dict of what must be in it: the oracle of the live index."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from indexer.config import IndexConfig
from indexer.database import Database
from indexer.filters import parse
from indexer.live import View
from indexer.store.collections import Collection, Collections
from indexer.store.images import Images, NewImage
from tests.rows import DIM, assert_exact, exact_vectors, made, new_image

ONE = np.eye(DIM, dtype=np.float32)
NEVER = IndexConfig(fold_rows=10**9)
SOON = IndexConfig(fold_rows=5)


@dataclass
class Shop:
    """A collection, written through one Database, beside a dict of what must be in it."""

    database: Database
    name: str = "shop"
    truth: dict[str, NewImage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _, self.generation_id = made(self.database, self.name)

    @property
    def collection(self) -> Collection:
        return Collections(self.database).get(self.name)

    def put(self, *images: NewImage) -> None:
        Images(self.database).put(self.collection.collection_id, self.generation_id, images)
        self.truth |= {image.key: image for image in images}

    def put_some(self, rng: np.random.Generator, keys: Iterator[str] | range) -> None:
        self.put(*(random_image(f"{key}", rng) for key in keys))

    def delete(self, *keys: str) -> None:
        Images(self.database).delete(self.collection.collection_id, keys)
        for key in keys:
            self.truth.pop(key, None)

    def assert_answers(self, view: View | None) -> None:
        """Images, texts and attributes of the view are those of the dict, and searches are exact."""
        assert view is not None
        images, texts = view.images.vectors, view.texts.vectors
        keys = {i: r.key for i, r in Images(self.database).records(images.living().tolist()).items()}
        said = Images(self.database).text_records(texts.living().tolist())
        vectors_of = {
            (key, text): row
            for key, image in self.truth.items()
            for text, row in zip(image.texts, image.text_vectors, strict=True)
        }
        assert sorted(keys.values()) == sorted(self.truth) and images.count == len(self.truth)
        assert sorted((r.image.key, r.text) for r in said.values()) == sorted(vectors_of)
        assert texts.count == len(vectors_of)
        rng = np.random.default_rng(0)
        query = exact_vectors(rng, 1)
        for k in (1, 5, 1000):
            (scores,), (ids,) = images.search(query, k)
            assert_exact(
                scores, ids, {i: self.truth[key].image_vector for i, key in keys.items()}, query[0], k
            )
            (scores,), (ids,) = texts.search(query, k)
            assert_exact(
                scores, ids, {i: vectors_of[r.image.key, r.text] for i, r in said.items()}, query[0], k
            )
        self.assert_filters(view, keys, query)

    def assert_filters(self, view: View, keys: dict[int, str], query: NDArray[np.float32]) -> None:
        for n in range(3):
            if "n" not in view.images.attributes.types:
                continue
            rows = {
                i: self.truth[k].image_vector for i, k in keys.items() if self.truth[k].attributes["n"] == n
            }
            (scores,), (ids,) = view.images.search(query, 5, view.images.passing(parse({"n": n})).allowed)
            assert_exact(scores, ids, rows, query[0], 5)
            texts = view.texts.search(query, 1000, view.texts.passing(parse({"n": n})).allowed)[1]
            wanted = sum(len(image.texts) for image in self.truth.values() if image.attributes["n"] == n)
            assert texts.shape == (1, wanted)


def random_image(key: str, rng: np.random.Generator) -> NewImage:
    texts = {f"{key} {i} {rng.integers(1000)}": exact_vectors(rng, 1)[0] for i in range(rng.integers(3))}
    return new_image(key, exact_vectors(rng, 1)[0], texts=texts, attributes={"n": int(rng.integers(3))})
