"""VectorIndex: an immutable main segment (FAISS) and an exact tail, searched as one. Every FAISS call is
here.
"""

# n queries, m rows, d embed_dim

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.ids import Ids, is_in, places

Vectors = NDArray[np.float32]


def _no_ids() -> Ids:
    return np.empty(0, dtype=np.int64)


class IndexFileBroken(ValueError):
    """An index file that is not the one that was published; the rows in SQL are all there still."""


GATHER_SHARE = 0.1
WIDEN_SHARE = 0.4
"""Shares of allowed rows at which another way of filtering becomes the quickest (bench_search): few are fetched and
compared; of many, more hits than asked for are found and those that pass kept; in between FAISS asks a bitmap."""
GATHER, BITMAP, WIDEN = "exact over the allowed rows", "exact with a bitmap", "exact, widened"
TRIES = 3
"""How often a widened search widens before a bitmap is asked."""


@dataclass(frozen=True)
class Plan:
    kind: str
    rows: int
    allowed: int


@dataclass(frozen=True)
class Segment:
    """Rows in a FAISS index. Never changed once made."""

    index: faiss.IndexIDMap2
    ids: Ids
    """Ascending"""

    @property
    def count(self) -> int:
        return len(self.ids)

    def rows(self) -> Vectors:
        """[m, d] in the order of the ids; FAISS's own memory, not to be written to."""
        flat: Any = faiss.downcast_index(self.index.index)
        return faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(-1, flat.d)


@dataclass(frozen=True)
class VectorIndex:
    """One immutable view: a segment, a tail of later rows, and the ids that have died since."""

    dim: int
    segment: Segment | None = None
    tail_ids: Ids = field(default_factory=_no_ids)
    tail_vectors: Vectors | None = None
    """[m, d]"""
    dead: Ids = field(default_factory=_no_ids)
    """Ascending; may name ids that are in neither part."""

    @property
    def count(self) -> int:
        """Living rows."""
        return len(self.living())

    @property
    def tail_rows(self) -> int:
        return len(self.tail_ids)

    def living(self) -> Ids:
        ids = self.tail_ids if self.segment is None else np.concatenate([self.segment.ids, self.tail_ids])
        return ids[~is_in(ids, self.dead)] if len(self.dead) else ids

    def with_changes(self, ids: Ids, vectors: Vectors, dead: Ids) -> VectorIndex:
        """A view that has these rows too, and not the dead ones. Rows [m, d] float32, normalised.

        Raises ValueError for another dimension or an id that is or was there already (FAISS would take both).
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(
                f"vectors are {vectors.shape}, this index holds {self.dim}-d rows; another model's?"
            )
        if len(ids) != len(vectors):
            raise ValueError(f"{len(ids)} ids for {len(vectors)} vectors")
        known = self.tail_ids if self.segment is None else np.concatenate([self.segment.ids, self.tail_ids])
        again = ids[np.isin(ids, known) | is_in(ids, self.dead)]
        if len(again):
            raise ValueError(f"embedding {again[0]} is or was in the index: an id is never used again")
        if len(np.unique(ids)) < len(ids):
            raise ValueError(f"an embedding is given twice: {ids.tolist()}")
        dead = np.sort(dead)
        keep = ~is_in(self.tail_ids, dead)
        kept = np.empty((0, self.dim), np.float32) if self.tail_vectors is None else self.tail_vectors[keep]
        return replace(
            self,
            tail_ids=np.concatenate([self.tail_ids[keep], ids]),
            tail_vectors=np.ascontiguousarray(np.concatenate([kept, vectors]), dtype=np.float32),
            dead=np.union1d(self.dead, dead),
        )

    def only(self, ids: Ids) -> VectorIndex:
        """A view in which all rows but these (ascending) are dead."""
        living = self.living()
        others = living[~is_in(living, ids)]
        return self.with_changes(_no_ids(), np.empty((0, self.dim), np.float32), others)

    def plan(self, allowed: Ids | None) -> Plan:
        """How `search` goes about these ids."""
        rows = self.count
        if allowed is None:
            return Plan("exact", rows, rows)
        living = len(allowed) if not len(self.dead) else int((~is_in(allowed, self.dead)).sum())
        return Plan(_way(living, rows), rows, living)

    def search(self, vectors: Vectors, k: int, *, allowed: Ids | None = None) -> tuple[Vectors, Ids]:
        """Best living rows of each query: (scores [n, k'], ids [n, k']), best first, k' = min(k, rows there
        are).

        `vectors` float32 [n, d], L2-normalised; scores are cosines. `allowed`: only these ids. Equal scores come in
        the order of their ids; where the cut at k falls among equals, any of them may be in. Raises ValueError for
        another dimension or k < 1.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(
                f"queries are {vectors.shape}, this index holds {self.dim}-d rows; another model's?"
            )
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if allowed is not None and len(self.dead):
            allowed = allowed[~is_in(allowed, self.dead)]
        parts = [self._search_segment(vectors, k, allowed), self._search_tail(vectors, k, allowed)]
        scores = np.concatenate([s for s, _ in parts], axis=1)
        ids = np.concatenate([i for _, i in parts], axis=1)
        order = np.lexsort((ids, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)

    def _search_segment(self, vectors: Vectors, k: int, allowed: Ids | None) -> tuple[Vectors, Ids]:
        if self.segment is None:
            return _none(len(vectors))
        there, dead = self.segment.ids, self.dead
        selector: faiss.IDSelector | None = None
        if allowed is not None:
            at = places(there, allowed)
            way = _way(len(at), len(there))
            k = min(k, len(at))
            if way == GATHER:
                return _exact(vectors, there[at], self.segment.rows()[at], k)
            if way == WIDEN and (found := self._widened(vectors, k, there[at])) is not None:
                return found
            selector = _bitmap(there[at])
        else:
            gone = there[is_in(there, dead)]
            k = min(k, len(there) - len(gone))
            if len(gone):
                selector = faiss.IDSelectorNot(_bitmap(gone))
        if k == 0:  # FAISS pads a short answer with id -1 and score -3.4e38, and refuses k = 0 without a word
            return _none(len(vectors))
        # One parameters object a call: IndexIDMap swaps the selector in place, so sharing one crashes under
        # threads.
        parameters = faiss.SearchParameters(sel=selector) if selector is not None else None  # type: ignore[call-arg]
        scores, ids = self.segment.index.search(vectors, k, params=parameters)
        return scores, ids

    def _widened(self, vectors: Vectors, k: int, chosen: Ids) -> tuple[Vectors, Ids] | None:
        """The k best of the chosen ids out of more hits than k; None when too few of them pass."""
        assert self.segment is not None
        rows = self.segment.count
        fetch = int(1.5 * k * rows / len(chosen)) + 8
        for _ in range(TRIES):
            scores, ids = self.segment.index.search(vectors, min(fetch, rows))
            passes = is_in(ids.ravel(), chosen).reshape(ids.shape)
            if (passes.sum(axis=1) >= k).all():
                first = np.argsort(~passes, axis=1, kind="stable")[:, :k]
                return np.take_along_axis(scores, first, 1), np.take_along_axis(ids, first, 1)
            fetch *= 4
        return None

    def _search_tail(self, vectors: Vectors, k: int, allowed: Ids | None) -> tuple[Vectors, Ids]:
        ids, rows = self.tail_ids, self.tail_vectors
        if rows is None:
            return _none(len(vectors))
        if allowed is not None:
            at = places(ids, allowed)
            ids, rows = ids[at], rows[at]
        return _exact(vectors, ids, rows, k)

    def rows(self) -> tuple[Ids, Vectors]:
        """Living ids, ascending, and their vectors [m, d]: what a new segment is made of."""
        parts = [] if self.segment is None else [self.segment.rows()]
        if self.tail_vectors is not None:
            parts.append(self.tail_vectors)
        ids = self.tail_ids if self.segment is None else np.concatenate([self.segment.ids, self.tail_ids])
        vectors = np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)
        alive = ~is_in(ids, self.dead)
        ids, vectors = ids[alive], vectors[alive]
        order = np.argsort(ids)
        return ids[order], np.ascontiguousarray(vectors[order])


def _way(allowed: int, rows: int) -> str:
    """How to find the best of `allowed` rows out of `rows`."""
    if allowed <= GATHER_SHARE * rows:
        return GATHER
    return WIDEN if allowed > WIDEN_SHARE * rows else BITMAP


def build_segment(ids: Ids, vectors: Vectors, factory: str) -> Segment:
    """A FAISS index of rows [m, d] under their ids (ascending)."""
    index = faiss.IndexIDMap2(faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT))
    if len(ids):
        index.train(vectors)
        index.add_with_ids(vectors, ids)
    return Segment(index, ids)


def write_segment(segment: Segment, path: Path) -> str:
    """Write the file whole or not at all; returns its sha256. Raises OSError (a full disk)."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        data = faiss.serialize_index(segment.index).tobytes()
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return hashlib.sha256(data).hexdigest()


def read_segment(path: Path, sha256: str) -> Segment:
    """Read a file that `write_segment` wrote. Raises IndexFileBroken when its bytes are not those (or not
    there).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IndexFileBroken(f"{path.name} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:  # checked before FAISS sees it: a stranger's file is never parsed
        raise IndexFileBroken(f"{path.name} has sha256 {found[:12]}…, published was {sha256[:12]}…")
    index: Any = faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
    return Segment(index, faiss.vector_to_array(index.id_map))


def set_threads(threads: int) -> None:
    """Threads of one FAISS search, for the whole process."""
    faiss.omp_set_num_threads(threads)


def _exact(vectors: Vectors, ids: Ids, rows: Vectors, k: int) -> tuple[Vectors, Ids]:
    """The k best of these rows for each query, in any order."""
    k = min(k, len(ids))
    if not k:
        return _none(len(vectors))
    scores = vectors @ rows.T  # [n, m]
    if k < len(ids):
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        return np.take_along_axis(scores, best, 1), ids[best]
    return scores, np.broadcast_to(ids, scores.shape)


def _bitmap(ids: Ids) -> faiss.IDSelectorBitmap:
    """A selector of these ids (ascending)."""
    bits = np.zeros(int(ids[-1]) + 1 if len(ids) else 1, dtype=np.uint8)
    bits[ids] = 1
    return faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))  # type: ignore[call-arg, arg-type]


def _none(n: int) -> tuple[Vectors, Ids]:
    return np.empty((n, 0), np.float32), np.empty((n, 0), np.int64)
