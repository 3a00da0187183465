"""Rows made by hand: images with vectors whose inner products are exact, so that answers compare with `==`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from indexer.attributes import AttributeIndex
from indexer.database import Database
from indexer.store.collections import Collection, Collections
from indexer.store.images import Images, NewImage
from indexer.tables import embedding, image, text

DIM = 8
LIMITS = {"near_copy": 31.0, "similar": 0.9}


def exact_vectors(rng: np.random.Generator, rows: int, dim: int = DIM) -> NDArray[np.float32]:
    """[rows, dim] of eighths, -1..1: float16 holds them, and sums of their products do not round in float32."""
    return rng.integers(-8, 9, (rows, dim)).astype(np.float32) / np.float32(8)


def new_image(
    key: str,
    vector: NDArray[np.float32],
    *,
    texts: Mapping[str, NDArray[np.float32]] | None = None,
    attributes: Mapping[str, Any] | None = None,
    sha256: str = "a" * 64,
    locator: str | None = "",
    source: str | None = None,
    perceptual_hash: tuple[bytes, int] | None = None,
) -> NewImage:
    said = texts or {}
    return NewImage(
        key=key,
        source=source,
        sha256=sha256,
        width=64,
        height=48,
        locator=f"/pictures/{key}" if locator == "" else locator,
        thumbnail_sha256=None,
        title=next(iter(said), None),
        texts=tuple(said),
        attributes=attributes or {},
        image_vector=vector,
        text_vectors=np.stack(list(said.values())) if said else np.empty((0, len(vector)), np.float32),
        perceptual_hash=perceptual_hash,
    )


def made(database: Database, name: str = "shop", *, dim: int = DIM) -> tuple[Collection, int]:
    """A collection with a generation of its own; (it, generation_id)."""
    collections = Collections(database)
    made = collections.create(name, is_bank=False, limits=LIMITS)
    generation = collections.ensure_generation(
        made.collection_id, model_id="model-1", embed_dim=dim, preprocessing="squash-32"
    )
    return collections.get(name), generation.generation_id


def ids_of(index: AttributeIndex, masks: Iterable[NDArray[np.bool_]]) -> list[int]:
    """Of the rows of a mask a part."""
    return [i for part, mask in zip(index.parts, masks, strict=True) for i in part.ids[mask].tolist()]


def from_source(images: Images, collection: Collection, source: str) -> set[str]:
    """Keys of what came from a source."""
    return set(itertools.chain.from_iterable(images.keys_of_source(collection.collection_id, source)))


def overlap(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Share of the true ids [n, k] that are among those found."""
    right = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True))
    return right / truth.size


def assert_exact(
    scores: NDArray[np.float32],
    ids: NDArray[np.int64],
    rows: Mapping[int, NDArray[np.float32]],
    query: NDArray[np.float32],
    k: int,
) -> None:
    """The answer to one query is the k best of `rows` (id -> vector), best first, equals by id.

    Where the cut at k falls among equals, any of them may be in.
    """
    score_of = {i: float(query @ row) for i, row in rows.items()}
    assert scores.tolist() == sorted(score_of.values(), reverse=True)[:k]
    assert [score_of[i] for i in ids.tolist()] == scores.tolist()
    answer = list(zip((-scores).tolist(), ids.tolist(), strict=True))
    assert answer == sorted(set(answer))


def assert_sound(database: Database) -> None:
    """Each image has one living vector and each text one, and no vector lives without its own."""
    lives = embedding.c.dead_seq.is_(None)
    with database.read() as connection:
        for table, column in ((image, embedding.c.image_id), (text, embedding.c.text_id)):
            joined = table.outerjoin(embedding, (column == table.c.id) & lives)
            number = func.count(embedding.c.id)
            wrong = select(table.c.id, number).select_from(joined).group_by(table.c.id).having(number != 1)
            assert connection.execute(wrong).all() == []
            orphans = select(embedding.c.id).where(
                lives, column.is_not(None), column.not_in(select(table.c.id))
            )
            assert connection.execute(orphans).all() == []
