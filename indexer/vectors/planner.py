"""How to find the best of the rows of a segment that a filter lets through: the way that is expected to be quickest."""

# m rows, d embed_dim

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import faiss
import numpy as np

from indexer.columns import Mask, count
from indexer.vectors.codes import PackedRows, bytes_a_row
from indexer.vectors.segments import NEIGHBOURHOOD, Positions, Segment, exact_segment

SCAN, JUMP, COPY, TEST, PACK = 0.08e-6, 0.30e-6, 0.45e-6, 1.2e-6, 0.3e-6
"""Milliseconds, the first three a dimension: to compare a row after its neighbour, to compare one far from the last, to
copy it out first; to ask a bitmap about a row; and, a dimension, to put codes together. Measured once on AVX-512; their
proportions decide."""
AGAIN = 4.0
"""What a widened search of an approximate index is expected to cost in the end: where hits go against the filter, it
begins again with more. (A graph of 20,808 real rows, half of which pass: at random twice what the first try takes, by
cluster ten times at p95, where codes take the same as ever.)"""
SPARE = 1.15
"""Times the hits of which enough pass around each row that was looked at: for a query, where more may be needed."""
KEPT_BYTES = 8_000_000
"""Up to this size the rows of a filter are kept together beside it, for the next query."""
OFTEN = 3
"""For a filter that was asked so often its codes are put together, whatever that takes."""
KEPT_CODES = 2
"""Of filters those codes are kept beside a segment that were asked for last: so many times its rows. They are found by
the rows that pass, so that a write elsewhere, which makes all filters anew, does not cost them."""
_keeping = threading.Lock()


class Chosen:
    """Rows of one segment that may answer. Never changed; what searches need of it is made at first use."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        """[m]"""
        self.count = count(mask)
        self._asked = 0
        self._enough: dict[int, int | None] = {}
        self._ways: dict[tuple[int, bool, bool], list[Way]] = {}

    @cached_property
    def positions(self) -> Positions:
        """Ascending"""
        return np.flatnonzero(self.mask)

    @cached_property
    def selector(self) -> faiss.IDSelectorBitmap:
        """For FAISS, which asks it row by row. Immutable, so that threads may share it."""
        return faiss.IDSelectorBitmap(np.packbits(self.mask, bitorder="little"))  # type: ignore[call-arg, arg-type]

    def gathered(self, segment: Segment) -> Segment:
        """These rows alone, under their positions; kept when they are few, or often asked for."""
        kept: Segment | None = self.__dict__.get("_gathered")
        if kept is None:
            kept = exact_segment(self.positions, segment.halves[self.positions])
            if self.keeps(segment):
                self.__dict__["_gathered"] = kept
        return kept

    def keeps(self, segment: Segment) -> bool:
        """Whether its rows are so few that they are kept."""
        return self.count * 2 * segment.dim <= KEPT_BYTES

    def enough(self, segment: Segment, k: int) -> int | None:
        """Hits of which k pass wherever a query lies, if these rows lie evenly among the others; else None."""
        if k not in self._enough:
            passing = self.mask[segment.neighbours] & (segment.neighbours >= 0)  # [rows, neighbours]
            reached = passing.cumsum(axis=1) >= k
            ranks = reached.argmax(axis=1) + 1
            self._enough[k] = int(SPARE * ranks.max()) + 1 if reached[:, -1].all() else None
        return self._enough[k]

    def ways(self, segment: Segment, k: int) -> list[Way]:
        """To the best k of them, as `ways` has them, without devices; thought about once, and anew for a segment whose
        rows are all compared (`Segment.exactly`).
        """
        case = k, segment.tuning is None, segment.codes is not None and self.is_packed(segment)
        if case not in self._ways:
            self._ways[case] = _filtered(segment, k, self)
        return self._ways[case]

    @cached_property
    def _digest(self) -> bytes:
        return hashlib.sha256(np.packbits(self.mask).tobytes()).digest()

    def packed(self, segment: Segment) -> PackedRows:
        """The codes of these rows, in the order of their positions; those asked for last are kept."""
        assert segment.codes is not None
        with _keeping:
            kept = _kept(segment)
            found = kept.get(self._digest)
            if found is not None:
                kept.move_to_end(self._digest)
                return found
        made = PackedRows(segment.codes, self.positions, segment.exact)
        with _keeping:
            kept[self._digest] = made
            while len(kept) > 1 and sum(one.count for one in kept.values()) > KEPT_CODES * segment.count:
                kept.popitem(last=False)
        return made

    def is_packed(self, segment: Segment) -> bool:
        """Whether its codes are kept, or worth putting together."""
        return self._asked > OFTEN or self._digest in _kept(segment)

    def asked(self) -> None:
        """One more query is about these rows."""
        self._asked += 1


def _kept(segment: Segment) -> OrderedDict[bytes, PackedRows]:
    """By which rows they are of, those asked for last at the end."""
    kept: OrderedDict[bytes, PackedRows] = segment.__dict__.setdefault("_packed_filters", OrderedDict())
    return kept


@dataclass(frozen=True)
class Way:
    """Of searching one segment."""

    name: str
    ms: float
    """Expected, for one query."""
    fetch: int = 0
    """Of a widened search: hits to find among which k are expected to pass; of filtered lists: how many lists."""


EXACT, DEVICE, GATHERED, CODES, BITMAP, WIDENED, LISTS, WIDENED_LISTS, EVEN = (
    "exact",
    "exact on a device",
    "exact over the allowed rows",
    "codes of the allowed rows",
    "exact with a bitmap",
    "exact, widened",
    "lists with a bitmap",
    "lists, widened",
    "widened a little",
)
CODES_AGAIN, CODES_MORE = 2, 60
"""Hits by codes that are compared again under a filter: so many times those without one, and so many more than them at
least. All that pass may lie far away, where codes tell rows apart less well; not where a quarter of those expected pass
around every row that was looked at."""
CACHED_BYTES, ALONE = 4_000_000, 1.5
"""More codes than a core's cache holds are read from memory by each query; measured, they are shared by a batch. Half
a million codes took one query 1.1 ms, and .75 in a batch."""
LEAST_EVEN = 8
"""One row in so many must pass for rows around others to be looked at: of fewer not k are among NEIGHBOURHOOD."""
NEARLY_ALL = 0.9
"""Share of a segment's rows from which on a filter is hardly one."""
LEAST_LISTS, LEAST_LISTS_OF_MANY = 8, 16
"""One in so many is looked through under a filter, at least; the second where a quarter of the rows pass."""


def ways(segment: Segment, k: int, chosen: Chosen | None) -> list[Way]:
    """All ways to the best k of the chosen rows (None: of all), the quickest first. The last resort is always in."""
    if chosen is None:
        found = [Way(EXACT, _scan_ms(segment))]
        if segment.tuning is not None:
            found.append(Way(segment.kind, segment.tuning.ms(k), k))
    else:
        found = chosen.ways(segment, k).copy()
    if segment.held is not None and segment.held.works:
        found.append(Way(DEVICE, segment.held.ms if chosen is None else segment.held.filtered_ms))
    return sorted(found, key=lambda way: way.ms)


def _filtered(segment: Segment, k: int, chosen: Chosen) -> list[Way]:
    rows, dim, allowed = segment.count, segment.dim, chosen.count
    keeps = chosen.keeps(segment)
    fetch = widened(k, rows, allowed)
    pace = _scan_ms(segment) / max(1e-9, rows * dim * SCAN)  # of this machine
    found = [
        Way(GATHERED, pace * allowed * dim * (SCAN if keeps else COPY)),
        Way(BITMAP, pace * (rows * TEST + allowed * dim * JUMP)),
        Way(WIDENED, pace * 1.1 * rows * dim * SCAN, fetch),
    ]
    if segment.tuning is not None and segment.codes is not None and allowed < NEARLY_ALL * rows:
        found += _coded(segment, k, chosen, pace)
    if segment.tuning is not None and segment.kind in ("codes", "graph") and fetch < rows // 2:
        found.append(Way(f"{segment.kind}, widened", AGAIN * segment.tuning.ms(fetch), fetch))
    if segment.tuning is not None and segment.kind in ("graph", "lists") and LEAST_EVEN * allowed >= rows:
        enough = chosen.enough(segment, k)
        if enough is not None:
            found.append(Way(EVEN, segment.tuning.ms(enough), enough))
    if segment.tuning is not None and segment.kind == "lists":
        reach = reach_of(segment, fetch, allowed)
        probed = filtered_lists(segment, reach, allowed)
        scanned = pace * rows * probed / segment.approximate.nlist
        each = TEST + dim * SCAN * allowed / rows
        if segment.codes is None:  # codes of four bits are scanned in blocks, whether rows pass or not
            found.append(Way(LISTS, segment.tuning.ms(k) + AGAIN * scanned * each, probed))
        found.append(Way(WIDENED_LISTS, segment.tuning.ms(reach), fetch))
    return found


def _coded(segment: Segment, k: int, chosen: Chosen, pace: float) -> list[Way]:
    """By the codes of the rows that pass: that takes its part of the time, wherever they lie."""
    assert segment.tuning is not None
    fetch = max(k, segment.tuning.coded_effort(k))
    expected = NEIGHBOURHOOD * chosen.count // segment.count
    if chosen.enough(segment, max(1, expected // 4)) is None:
        fetch = max(CODES_AGAIN * fetch, fetch + CODES_MORE)
    if fetch > chosen.count // 2:
        return []
    scanned = segment.tuning.coded_ms(k) * chosen.count / segment.count
    if chosen.count * bytes_a_row(segment.dim) > CACHED_BYTES:
        scanned *= ALONE
    put_together = 0.0 if chosen.is_packed(segment) else pace * chosen.count * segment.dim * PACK
    compared = pace * fetch * segment.dim * JUMP
    return [Way(CODES, scanned + put_together + compared, fetch)]


def reach_of(segment: Segment, fetch: int, allowed: int) -> int:
    """Among how many hits' worth of lists the last of `fetch` are found as surely as the first: what passes a filter
    may all be among the last. Where nearly all rows pass (a few have died), it is not."""
    return fetch if allowed >= NEARLY_ALL * segment.count else 8 * fetch


def filtered_lists(segment: Segment, reach: int, allowed: int) -> int:
    """How many lists to look through for rows that pass: where hits go against the filter, they lie in further ones."""
    assert segment.tuning is not None
    most = int(segment.approximate.nlist)
    least = LEAST_LISTS_OF_MANY if 4 * allowed >= segment.count else LEAST_LISTS
    return min(most, max(most // least, segment.tuning.effort(reach)))


def _scan_ms(segment: Segment) -> float:
    """Of exact search over the whole segment: as it was measured, where it was."""
    return segment.count * segment.dim * SCAN if segment.tuning is None else segment.tuning.exact_ms


def widened(k: int, rows: int, allowed: int) -> int:
    """Hits among which k of the allowed rows are expected, with some to spare."""
    return min(rows, int(1.5 * k * rows / max(1, allowed)) + 8)
