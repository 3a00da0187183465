"""A collection moves to another model: fill a generation beside the one that serves, compare, switch, go back."""

from __future__ import annotations

import csv
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.database import Database
from indexer.errors import Conflict, IndexerError, NotFound
from indexer.live import LiveIndex, View
from indexer.store.builds import TARGETS
from indexer.store.collections import Collection, Generation
from indexer.store.embeddings import Target
from indexer.store.generations import Generations, Lacking
from indexer.store.images import Images
from indexer.store.processes import Processes
from search.contents import Contents
from search.messages import BadRequest
from textmm.encoder import Encoder
from textmm.transforms import ImageTooLarge, ImageUnreadable, decode_image

BATCH = 64
TRIES = 5
"""How often a switch begins anew because something without a vector arrived."""
SAMPLE = 200
"""Stored pictures that ask when two generations are compared."""

Rows = NDArray[np.float32]


@dataclass
class Progress:
    """Of a back-fill."""

    filled: int = 0
    """Vectors of images and texts that were made."""
    images_left: int = 0
    texts_left: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    """Key -> why the picture cannot be read any more."""


@dataclass(frozen=True)
class Comparison:
    overlap: float
    """Share of the best k that both generations agree on, on average."""
    queries: int
    labelled: int
    """Queries with known right answers; 0: none were given."""
    recall: tuple[float, float] | None
    """Share of the right answers among the best k, of the generation that serves and of the other one."""


class Moves:
    """`load`: the encoder of a generation; raises when its model is not to be had."""

    def __init__(
        self, database: Database, contents: Contents, live: LiveIndex, load: Callable[[Generation], Encoder]
    ) -> None:
        self._generations, self._images = Generations(database), Images(database)
        self._processes = Processes(database)
        self._contents, self._live, self._load = contents, live, load

    def fill(self, collection: Collection, generation: Generation) -> Generator[Progress, None, None]:
        """Make the vectors that a generation lacks, those that arrive meanwhile too, until none is lacking; then its
        segments. Killed anywhere, it goes on where it was. Yields after each batch.

        A picture whose file is gone or has changed is told and left lacking.
        """
        encoder = self._load(generation)
        ids = (collection.collection_id, generation.generation_id)
        progress = Progress(0, *self._generations.lacks(*ids))
        while True:
            before, progress.unreadable = progress.filled, {}
            for target in TARGETS:
                yield from self._pass(collection, generation, target, encoder, progress)
            progress.images_left, progress.texts_left = self._generations.lacks(*ids)
            if progress.filled == before:
                break
        self._live.take_up(collection, generation)
        self._live.fold_due()

    def _pass(
        self,
        collection: Collection,
        generation: Generation,
        target: Target,
        encoder: Encoder,
        progress: Progress,
    ) -> Iterator[Progress]:
        """Once over all images, or texts, that lack their vector."""
        ids = (collection.collection_id, generation.generation_id)
        after = 0
        while lacking := self._generations.lacking(*ids, target, after=after, limit=BATCH):
            if target == "images":
                vectors = self._pictures(collection, encoder, lacking, progress)
                after = lacking[-1].image_id
            else:
                vectors = list(zip(lacking, encoder.encode_texts([one.text for one in lacking]), strict=True))
                after = lacking[-1].text_id or 0
            filled = self._generations.fill(*ids, vectors) if vectors else 0
            progress.filled += filled
            if target == "images":
                progress.images_left = max(0, progress.images_left - filled)
            else:
                progress.texts_left = max(0, progress.texts_left - filled)
            yield progress

    def _pictures(
        self, collection: Collection, encoder: Encoder, asked: Sequence[Lacking], progress: Progress
    ) -> list[tuple[Lacking, Rows]]:
        records = self._images.find(collection.collection_id, [one.key for one in asked])
        found, fitted = [], []
        for one in asked:
            record = records.get(one.key)
            if record is None:  # deleted since
                continue
            try:
                fitted.append(encoder.fit(decode_image(self._contents.read(record))))
                found.append(one)
            except (OSError, ImageUnreadable, ImageTooLarge) as error:
                progress.unreadable[one.key] = str(error)
        return list(zip(found, encoder.encode_images(fitted), strict=True)) if found else []

    def switch(self, collection: Collection, generation: Generation) -> None:
        """Let a generation serve from now on. The other one is kept, and kept up to date, until it is dropped.

        Raises Conflict, and changes nothing, while some vector is lacking that cannot be made, or while a running
        server does not have its model yet.
        """
        self._complete(collection, generation)
        late = [name for name, models in self._processes.live().items() if generation.model_id not in models]
        if late:
            raise Conflict(
                f"server {late[0]} has not loaded {generation.model_id} ({len(late)} in all have not): "
                "wait until it has, or stop it"
            )
        for again in reversed(range(TRIES)):
            try:
                return self._generations.switch(collection.collection_id, generation.generation_id)
            except Conflict:  # something was put meanwhile by a process without the model
                if not again:
                    raise
                self._complete(collection, generation)

    def _complete(self, collection: Collection, generation: Generation) -> None:
        """Fill in what a generation lacks. Raises Conflict when a picture cannot be read."""
        unreadable: dict[str, str] = {}
        if any(self._generations.lacks(collection.collection_id, generation.generation_id)):
            for progress in self.fill(collection, generation):
                unreadable = progress.unreadable
        if unreadable:
            key, why = next(iter(unreadable.items()))
            raise Conflict(
                f"{len(unreadable)} pictures have no vector of {generation.model_id} and cannot be read, "
                f"first {key!r}: {why}; put them again, or delete them"
            )

    def rollback(self, collection: Collection) -> Generation:
        """Switch back to the generation that served before. Raises NotFound (there is none), Conflict as `switch`."""
        previous = self._generations.previous(collection.collection_id)
        if previous is None:
            raise NotFound("earlier generation of collection", collection.name)
        self.switch(collection, previous)
        return previous

    def compare(
        self, collection: Collection, other: Generation, *, k: int, labelled: Sequence[tuple[str, str]] = ()
    ) -> Comparison:
        """How much two generations agree, with stored pictures asking; `labelled`: (words, key of a right answer).

        Raises Conflict while the other one has no vectors.
        """
        if collection.generation is None:
            raise NotFound("generation of collection", collection.name)
        views = [self._live.take_up(collection, which) for which in (collection.generation, other)]
        one, two = views
        if one is None or two is None or not min(one.images.vectors.count, two.images.vectors.count):
            raise Conflict(
                f"generation {other.model_id} of collection {collection.name!r} has no vectors yet"
            )
        keys = self._sample(one)
        overlap = [
            len(a & b) / max(1, len(a), len(b))
            for a, b in zip(*(self._near(view, keys, k) for view in (one, two)), strict=True)
        ]
        recall = None
        if labelled:
            recall = (self._recall(one, labelled, k), self._recall(two, labelled, k))
        return Comparison(float(np.mean(overlap)), len(keys), len(labelled), recall)

    def _sample(self, view: View) -> list[str]:
        ids = view.images.vectors.living()
        chosen = np.random.default_rng(0).choice(ids, min(SAMPLE, len(ids)), replace=False)
        return [record.key for record in self._images.records(chosen.tolist()).values()]

    def _near(self, view: View, keys: Sequence[str], k: int) -> list[set[str]]:
        """Of each picture the keys of the k nearest others."""
        records = self._images.find(view.collection_id, keys)
        found: list[set[str]] = []
        for key in keys:
            vector = (
                self._images.vector(records[key].image_id, view.generation.generation_id)
                if key in records
                else None
            )
            found.append(set() if vector is None else set(self._best(view, vector, k + 1)) - {key})
        return found

    def _best(self, view: View, vector: Rows, k: int) -> list[str]:
        _, ids = view.images.search(vector[None], k)
        records = self._images.records(ids[0].tolist())
        return [records[i].key for i in ids[0].tolist() if i in records]

    def _recall(self, view: View, labelled: Sequence[tuple[str, str]], k: int) -> float:
        encoder = self._load(view.generation)
        vectors = encoder.encode_texts([words for words, _ in labelled])
        right = [
            key in self._best(view, vector, k) for vector, (_, key) in zip(vectors, labelled, strict=True)
        ]
        return float(np.mean(right))


def labelled_queries(path: Path) -> list[tuple[str, str]]:
    """Rows `text,key` of a CSV file: words, and a picture that was chosen or labelled for them. Raises BadRequest."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"text", "key"} <= rows[0].keys():
        raise BadRequest(f"{path} must have columns text and key, and a row at least", "queries")
    return [(row["text"], row["key"]) for row in rows]


class ModelMissing(IndexerError):
    """The model of a generation is not to be had here."""
