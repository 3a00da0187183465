"""VectorIndex: immutable segments and an exact tail of later rows, searched as one."""

# n queries, m rows, d embed_dim

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from indexer.columns import Mask
from indexer.ids import Ids, is_in, places
from indexer.vectors.planner import EXACT, GATHERED, Chosen, ways
from indexer.vectors.segment_search import search_segment
from indexer.vectors.segments import Halves, Positions, Segment, Vectors, faiss_threads


@dataclass(frozen=True)
class Plan:
    kind: str
    """Of each segment's way of searching, the largest segment first; those that are alike once."""
    rows: int
    allowed: int
    """Both of living rows."""


@dataclass(frozen=True)
class Part:
    """A segment and which of its rows have died since."""

    segment: Segment
    dead: Positions
    """Ascending"""

    @property
    def count(self) -> int:
        return self.segment.count - len(self.dead)

    @cached_property
    def living(self) -> Chosen | None:
        """None: all are."""
        if not len(self.dead):
            return None
        mask = np.ones(self.segment.count, dtype=bool)
        mask[self.dead] = False
        return Chosen(mask)

    def without(self, ids: Ids) -> Part:
        """With these ids (ascending) dead too."""
        at = self.segment.positions(ids)
        more = at[~is_in(at, self.dead)]
        return replace(self, dead=np.union1d(self.dead, more)) if len(more) else self

    def chosen(self, mask: Mask) -> Chosen:
        """Of these rows those that live."""
        if len(self.dead):
            mask = mask.copy()
            mask[self.dead] = False
        return Chosen(mask)


@dataclass(frozen=True)
class Tail:
    """Rows in memory that no segment has yet."""

    ids: Ids
    """Ascending"""
    vectors: Vectors
    """[m, d]"""

    def without(self, ids: Ids) -> Tail:
        keep = ~is_in(self.ids, ids)
        return self if keep.all() else Tail(self.ids[keep], self.vectors[keep])


@dataclass(frozen=True)
class Allowed:
    """The rows that a filter lets through, as the parts of one view see them."""

    parts: tuple[Chosen, ...]
    tails: tuple[Positions, ...]
    """Where in each tail."""

    @cached_property
    def count(self) -> int:
        return sum(chosen.count for chosen in self.parts) + sum(len(tail) for tail in self.tails)


@dataclass(frozen=True)
class VectorIndex:
    """One immutable view."""

    dim: int
    parts: tuple[Part, ...] = ()
    tails: tuple[Tail, ...] = ()
    newest: int = 0
    """The largest id there ever was."""
    threads: int = 1
    """Of one search."""

    @classmethod
    def over(cls, dim: int, segments: Iterable[Segment], *, threads: int = 1) -> VectorIndex:
        """A view of segments alone, all rows living; ids ascend from one to the next."""
        parts = tuple(Part(segment, np.empty(0, np.int64)) for segment in segments)
        newest = max((int(part.segment.ids.max()) for part in parts if part.segment.count), default=0)
        return cls(dim, parts, (), newest, threads)

    @property
    def count(self) -> int:
        """Living rows."""
        return sum(part.count for part in self.parts) + self.tail_rows

    @property
    def tail_rows(self) -> int:
        return sum(len(tail.ids) for tail in self.tails)

    def living(self) -> Ids:
        """Ascending"""
        return np.sort(self._ids())

    def _ids(self) -> Ids:
        """Of living rows, as they lie in the parts and the tail."""
        ids = [p.segment.ids if p.living is None else p.segment.ids[p.living.mask] for p in self.parts]
        return np.concatenate([np.empty(0, np.int64), *ids, *(tail.ids for tail in self.tails)])

    def with_changes(self, ids: Ids, vectors: Vectors, dead: Ids) -> VectorIndex:
        """A view that has these rows too, ids ascending, and not the dead ones. Rows [m, d] float32, normalised.

        Raises ValueError for another dimension or an id that is not above all before it (FAISS would take it).
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(
                f"vectors are {vectors.shape}, this index holds {self.dim}-d rows; another model's?"
            )
        if len(ids) != len(vectors):
            raise ValueError(f"{len(ids)} ids for {len(vectors)} vectors")
        if len(ids) and int(ids[0]) <= self.newest:
            raise ValueError(f"embedding {ids[0]} is or was in the index: an id is never used again")
        if (np.diff(ids) <= 0).any():
            raise ValueError(f"ids must ascend, each once: {ids.tolist()}")
        dead = np.sort(dead)
        parts, tails = self.parts, self.tails
        if len(dead):
            parts = tuple(part.without(dead) for part in parts)
            tails = tuple(tail for tail in (tail.without(dead) for tail in tails) if len(tail.ids))
        if len(ids):
            tails = _grown(tails, Tail(ids, np.ascontiguousarray(vectors, dtype=np.float32)))
        newest = int(ids[-1]) if len(ids) else self.newest
        return replace(self, parts=parts, tails=tails, newest=newest)

    def only(self, ids: Ids) -> VectorIndex:
        """A view in which all rows but these (ascending) are dead."""
        living = self.living()
        return self.with_changes(
            np.empty(0, np.int64), np.empty((0, self.dim), np.float32), living[~is_in(living, ids)]
        )

    def with_segments(self, segments: Sequence[Segment]) -> VectorIndex:
        """The same rows with these segments in place of its own: what they hold leaves the tail, what has died is dead
        in them too."""
        own = {id(part.segment): part for part in self.parts}
        living = self.living()
        parts = tuple(own.get(id(s)) or Part(s, np.flatnonzero(~is_in(s.ids, living))) for s in segments)
        newest = max((int(s.ids.max()) for s in segments if s.count), default=0)
        tails = [(tail, tail.ids > newest) for tail in self.tails]
        kept = tuple(Tail(tail.ids[later], tail.vectors[later]) for tail, later in tails if later.any())
        return replace(self, parts=parts, tails=kept, newest=max(newest, self.newest))

    def rows(self, first: int = 0) -> tuple[Ids, Halves]:
        """Living ids, ascending, and their vectors float16 [m, d], of the parts from `first` on and the tail: what a
        new segment is made of."""
        parts = self.parts[first:]
        halves = [p.segment.halves if p.living is None else p.segment.halves[p.living.mask] for p in parts]
        tails = [tail.vectors.astype(np.float16) for tail in self.tails]
        rows = np.concatenate([np.empty((0, self.dim), np.float16), *halves, *tails])
        ids = replace(self, parts=parts)._ids()
        order = np.argsort(ids, kind="stable")
        return (ids, rows) if (np.diff(ids) > 0).all() else (ids[order], rows[order])

    # -- filters -----------------------------------------------------------------------------------------

    def allow(self, ids: Ids) -> Allowed:
        """Of a filter that lets these ids through, in any order."""
        those = np.unique(ids)
        return self.allow_masks([(those, np.ones(len(those), dtype=bool))])

    def allow_masks(self, masks: Sequence[tuple[Ids, Mask]]) -> Allowed:
        """Of a filter that lets through, of each array of ids (ascending), those of its mask."""
        parts = tuple(part.chosen(_mask_over(part.segment, masks)) for part in self.parts)
        tails = tuple(
            np.concatenate([np.empty(0, np.int64), *(places(tail.ids, ids[mask]) for ids, mask in masks)])
            for tail in self.tails
        )
        return Allowed(parts, tails)

    def plan(self, allowed: Allowed | None = None, k: int = 10) -> Plan:
        """How `search` goes about it."""
        order = sorted(range(len(self.parts)), key=lambda i: -self.parts[i].count)
        kinds = [ways(self.parts[i].segment, k, self._chosen(i, allowed))[0].name for i in order]
        kind = "; ".join(dict.fromkeys(kinds)) or (EXACT if allowed is None else GATHERED)
        return Plan(kind, self.count, self.count if allowed is None else allowed.count)

    # -- search ------------------------------------------------------------------------------------------

    def search(
        self, vectors: Vectors, k: int, *, allowed: Allowed | None = None, effort: float = 1.0
    ) -> tuple[Vectors, Ids]:
        """Best living rows of each query: (scores [n, k'], ids [n, k']), best first, k' = min(k, rows there are).

        `vectors` float32 [n, d], L2-normalised; scores are cosines. `allowed`: only these rows, from `allow` of this
        view. `effort`: of approximate segments, times what was measured when they were built. Equal scores come in the
        order of their ids; where the cut at k falls among equals, any of them may be in. Raises ValueError for another
        dimension or k < 1.
        """
        self._check(vectors, k)
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        with faiss_threads(self.threads):
            found = list(self._search(vectors, k, allowed, effort))
        if not found:
            return np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64)
        scores = np.concatenate([s for s, _ in found], axis=1)
        ids = np.concatenate([i for _, i in found], axis=1)
        order = np.lexsort((ids, -scores), axis=1)[:, :k]
        queries = np.arange(len(order))[:, None]
        return scores[queries, order], ids[queries, order]

    def approximate_segments(self) -> set[int]:
        """Which there are, by identity: what is known of the recall of some says nothing of others."""
        return {id(part.segment) for part in self.parts if part.segment.kind != "exact"}

    @property
    def is_approximate(self) -> bool:
        """Whether some segment is."""
        return bool(self.approximate_segments())

    def exactly(self) -> VectorIndex:
        """The same rows, every one compared: what the recall of `search` is measured against."""
        return replace(
            self, parts=tuple(replace(part, segment=part.segment.exactly()) for part in self.parts)
        )

    def _check(self, vectors: Vectors, k: int) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(
                f"queries are {vectors.shape}, this index holds {self.dim}-d rows; another model's?"
            )
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")

    def _search(
        self, vectors: Vectors, k: int, allowed: Allowed | None, effort: float
    ) -> Iterator[tuple[Vectors, Ids]]:
        for i, part in enumerate(self.parts):
            chosen = self._chosen(i, allowed)
            best = min(k, part.segment.count if chosen is None else chosen.count)
            if best:  # FAISS refuses k = 0 without a word, and pads a short answer with -1 and -3.4e38
                scores, at = search_segment(part.segment, vectors, best, chosen, effort)
                yield scores, part.segment.ids[at]
        for i, tail in enumerate(self.tails):
            if allowed is None:
                yield _compared(vectors, tail.ids, tail.vectors, k)
            elif len(allowed.tails[i]):
                yield _compared(vectors, tail.ids[allowed.tails[i]], tail.vectors[allowed.tails[i]], k)

    def _chosen(self, part: int, allowed: Allowed | None) -> Chosen | None:
        return self.parts[part].living if allowed is None else allowed.parts[part]


def _grown(tails: tuple[Tail, ...], new: Tail) -> tuple[Tail, ...]:
    """Those of like size are joined: few there are, and a row is copied a few times only."""
    grown = [*tails, new]
    while len(grown) > 1 and len(grown[-2].ids) <= 2 * len(grown[-1].ids):
        one, other = grown[-2:]
        grown[-2:] = [
            Tail(np.concatenate([one.ids, other.ids]), np.concatenate([one.vectors, other.vectors]))
        ]
    return tuple(grown)


def _mask_over(segment: Segment, masks: Sequence[tuple[Ids, Mask]]) -> Mask:
    """[m]: which rows of the segment are in one of the masks."""
    out = np.zeros(segment.count, dtype=bool)
    for ids, mask in masks:
        if len(ids) == len(out) and np.array_equal(ids, segment.ids):
            out |= mask
        else:
            out[segment.positions(ids[mask])] = True
    return out


def _compared(vectors: Vectors, ids: Ids, rows: Vectors, k: int) -> tuple[Vectors, Ids]:
    """The k best of these rows for each query, in any order."""
    scores = vectors @ rows.T  # [n, m]
    if k < len(ids):
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        return np.take_along_axis(scores, best, 1), ids[best]
    return scores, np.broadcast_to(ids, scores.shape)
