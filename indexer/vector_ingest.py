"""Vectors that their owner made, to rows: checked, brought to length 1, some thousand a transaction."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.database import Database
from indexer.errors import BadItem, Conflict
from indexer.naming import check_key
from indexer.problems import key_problem, type_problem, words_problem
from indexer.report import Failure, IngestReport
from indexer.seen import SeenKeys
from indexer.store.collections import EXTERNAL, Collection, Generation, check_generation
from indexer.store.images import ImageRecord, Images, NewImage, VectorRecord, stored_bytes

NUMBERS_A_BATCH = 1 << 20
MOST_ROWS = 8192

Vectors = NDArray[np.floating[Any]]
Rows = NDArray[np.float32]


class GivenVector(Protocol):
    """What comes in: a vector, its key and its words."""

    @property
    def key(self) -> str: ...
    @property
    def vector(self) -> Vectors:
        """[embed_dim] of any float type and any length; nothing is read of it where there is a problem."""

    @property
    def title(self) -> str | None: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...
    @property
    def problem(self) -> str | None:
        """Why it cannot be read, when that is known already."""


class VectorIngest:
    """Puts vectors into collections that are made for them. Made once a process."""

    def __init__(self, database: Database) -> None:
        self._images = Images(database)

    def run(
        self,
        items: Iterable[GivenVector],
        collection: Collection,
        *,
        source: str,
        seen: SeenKeys | None = None,
    ) -> Iterator[IngestReport]:
        """Put all items, a transaction a batch; yields a report a batch, until the source ends.

        What is there already with the same vector, words and source is left alone, so an import that broke off goes
        on where it was when it is run again. A vector that cannot be kept is reported, and the rest goes in. In the
        end `seen` holds every key of the source. Raises Conflict when the collection is not made for vectors.
        """
        embed_dim = external_generation(collection).embed_dim
        seen = seen or SeenKeys()
        waiting = iter(items)
        for number in itertools.count(1):
            report = IngestReport()
            started = time.perf_counter()
            batch = tuple(itertools.islice(waiting, rows_a_batch(embed_dim)))
            if not batch:
                return
            report.spent("read", time.perf_counter() - started)
            started = time.perf_counter()
            new = self._new(batch, collection, source, seen, report)
            report.spent("check", time.perf_counter() - started)
            started = time.perf_counter()
            self._write(new, collection, report)
            if new and number.bit_count() == 1:  # 1, 2, 4 …: each time there is twice as much
                self._images.analyze()
            report.spent("write", time.perf_counter() - started)
            yield report

    def put(self, item: GivenVector, collection: Collection) -> tuple[ImageRecord, bool]:
        """Put one vector; (its record, whether it is new). All is on disk on return.

        Raises ValueError (the key), BadItem (the vector, words, attributes), Conflict.
        """
        check_key(item.key)
        embed_dim = external_generation(collection).embed_dim
        problem = _problem(item, collection) or vector_problem(item.vector, embed_dim)
        if problem:
            raise BadItem(problem)
        report = IngestReport()
        self._write([_row(item, unit_rows(item.vector[None])[0], None)], collection, report)
        return self._images.get(collection.collection_id, item.key), report.added == 1

    def _new(
        self,
        batch: Sequence[GivenVector],
        collection: Collection,
        source: str,
        seen: SeenKeys,
        report: IngestReport,
    ) -> list[NewImage]:
        """Rows of what is neither wrong nor there already."""
        generation = external_generation(collection)
        good: list[GivenVector] = []
        for item, again in zip(batch, seen.add([item.key for item in batch]), strict=True):
            twice = "the key occurs twice in this source" if again else None
            problem = item.problem or twice or key_problem(item.key) or _problem(item, collection)
            problem = problem or length_problem(item.vector, generation.embed_dim)
            if problem:
                report.failed.append(Failure(item.key, problem))
            else:
                good.append(item)
        if not good:
            return []
        rows = unit_rows(np.stack([item.vector for item in good]))
        usable: list[bool] = np.isfinite(rows[:, 0]).tolist()
        keys = [item.key for item in good]
        known = self._images.find_vectors(collection.collection_id, generation.generation_id, keys)
        new = []
        for item, row, fine in zip(good, rows, usable, strict=True):
            if not fine:
                report.failed.append(
                    Failure(item.key, str(vector_problem(item.vector, generation.embed_dim)))
                )
            elif (there := known.get(item.key)) is not None and there == _record(item, row, source):
                report.unchanged += 1
            else:
                new.append(_row(item, row, source))
        return new

    def _write(self, rows: Sequence[NewImage], collection: Collection, report: IngestReport) -> None:
        generation_id = external_generation(collection).generation_id
        put = self._images.put(collection.collection_id, generation_id, rows)
        report.added, report.updated = len(put.added), len(put.updated)


def external_generation(collection: Collection) -> Generation:
    """Raises Conflict when the collection is not made for vectors from elsewhere."""
    if collection.generation is None:
        raise Conflict(
            f"collection {collection.name!r} is not made for vectors from elsewhere yet: "
            'say so first, with {"model": "external", "dim": …}'
        )
    check_generation(collection, model_id=EXTERNAL, embed_dim=collection.generation.embed_dim)
    return collection.generation


def rows_a_batch(embed_dim: int) -> int:
    """That are read, and put in one transaction; fewer where vectors are long, so that memory stays small."""
    return min(MOST_ROWS, max(1, NUMBERS_A_BATCH // embed_dim))


def vector_problem(vector: Vectors, embed_dim: int) -> str | None:
    """Why a vector cannot be kept: another length, a number that is none, or no direction."""
    said = length_problem(vector, embed_dim)
    if said is not None:
        return said
    odd = np.flatnonzero(~np.isfinite(vector))
    if len(odd):
        return f"number {odd[0] + 1} of its vector is {vector[odd[0]]}: every number must be finite"
    if not vector.any():
        return "its vector is all zeros, which has no direction to compare: leave it out"
    return None


def length_problem(vector: Vectors, embed_dim: int) -> str | None:
    if vector.shape == (embed_dim,):
        return None
    return (
        f"its vector has {vector.size} numbers, those of this collection have {embed_dim}: "
        "take the model that made the others"
    )


def unit_rows(vectors: Vectors) -> Rows:
    """[n, embed_dim] of length 1. A row that is not finite or all zeros, and so has no direction, becomes NaN."""
    rows = vectors.astype(np.float64)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    largest[~np.isfinite(largest) | (largest == 0)] = np.nan
    rows /= largest  # so that no square overflows
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def _problem(item: GivenVector, collection: Collection) -> str | None:
    return words_problem(item.title, item.attributes) or type_problem(item.attributes, collection)


def _record(item: GivenVector, row: Rows, source: str) -> VectorRecord:
    return VectorRecord(source, item.title, item.attributes, stored_bytes(row))


def _row(item: GivenVector, row: Rows, source: str | None) -> NewImage:
    return NewImage(
        key=item.key,
        source=source,
        sha256=None,
        width=None,
        height=None,
        locator=None,
        thumbnail_sha256=None,
        title=item.title,
        texts=(),
        attributes=item.attributes,
        image_vector=row,
        text_vectors=np.empty((0, len(row)), np.float32),
    )
