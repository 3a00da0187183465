"""Searching one segment: the ways of the planner, taken one after the other until k rows are found."""

# n queries, m rows, d embed_dim

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from indexer.vectors.planner import (
    BITMAP,
    CODES,
    DEVICE,
    EVEN,
    EXACT,
    GATHERED,
    LISTS,
    WIDENED,
    WIDENED_LISTS,
    Chosen,
    Way,
    reach_of,
    ways,
)
from indexer.vectors.segments import DeviceFailed, Positions, Segment, Vectors

logger = logging.getLogger(__name__)

TRIES = 3
"""How often a widened search widens before a bitmap is asked."""


def search_segment(
    segment: Segment, vectors: Vectors, k: int, chosen: Chosen | None, effort: float
) -> tuple[Vectors, Positions]:
    """The k best of the chosen rows, of which there are as many, for each query."""
    if chosen is not None:
        chosen.asked()
    for way in ways(segment, k, chosen):
        found = _go(segment, vectors, k, chosen, effort, way)
        if found is not None:
            return found
    raise AssertionError("exact ways always find k rows")


def _go(
    segment: Segment, vectors: Vectors, k: int, chosen: Chosen | None, effort: float, way: Way
) -> tuple[Vectors, Positions] | None:
    """One way; None when it found too few."""
    if way.name == EXACT:
        return segment.search_exact(vectors, k)
    if way.name == DEVICE:
        return _on_device(segment, vectors, k, chosen)
    if way.name in OF_THE_CHOSEN:
        assert chosen is not None
        return _among(segment, vectors, k, chosen, effort, way)
    if way.name == WIDENED:
        return _widened(segment.search_exact, vectors, k, chosen, way, segment)

    def near(queries: Vectors, fetch: int) -> tuple[Vectors, Positions]:
        assert segment.tuning is not None
        usual = segment.tuning.effort(fetch)
        if (
            way.name == WIDENED_LISTS
        ):  # what passes may all be among the last hits: they must be found as surely
            allowed = segment.count if chosen is None else chosen.count
            usual = segment.tuning.effort(reach_of(segment, fetch, allowed))
        elif chosen is not None and way.name != EVEN:
            # beyond the measured ones a graph has them when it keeps some more on its way
            usual = max(segment.tuning.effort(min(fetch, segment.tuning.ks[-1])), round(1.7 * fetch))
        return segment.search_approximate(
            queries, fetch, _tried(usual * effort, segment), wider=max(1.0, effort)
        )

    return _widened(near, vectors, k, chosen, way, segment)


OF_THE_CHOSEN = (GATHERED, CODES, BITMAP, LISTS)
"""Ways that look at no other rows."""


def _among(
    segment: Segment, vectors: Vectors, k: int, chosen: Chosen, effort: float, way: Way
) -> tuple[Vectors, Positions] | None:
    if way.name == GATHERED:
        gathered = chosen.gathered(segment)
        scores, at = gathered.search_exact(vectors, k)
        return scores, gathered.ids[at]
    if way.name == CODES:
        return _by_codes(segment, vectors, k, chosen, round(way.fetch * effort))
    if way.name == LISTS:
        return _in_lists(segment, vectors, k, chosen, way.fetch)
    return segment.search_exact(vectors, k, chosen.selector)


def _on_device(
    segment: Segment, vectors: Vectors, k: int, chosen: Chosen | None
) -> tuple[Vectors, Positions] | None:
    """The k best of the chosen rows; None when the device failed."""
    assert segment.held is not None
    try:
        return segment.held.search(vectors, k, None if chosen is None else chosen.mask)
    except DeviceFailed as error:
        logger.warning("searched without the device: %s", error)
        return None


def _by_codes(
    segment: Segment, vectors: Vectors, k: int, chosen: Chosen, fetch: int
) -> tuple[Vectors, Positions] | None:
    """The k best of the chosen rows, out of `fetch` by their codes."""
    scores, at = chosen.packed(segment).search(vectors, k, fetch)
    return (scores, at) if (at >= 0).all() else None


def _in_lists(
    segment: Segment, vectors: Vectors, k: int, chosen: Chosen, lists: int
) -> tuple[Vectors, Positions] | None:
    """The k best of the chosen rows in the lists nearest to each query; None when for some query they hold too few."""
    most = int(segment.approximate.nlist)
    for _ in range(TRIES):
        scores, at = segment.search_approximate(vectors, k, min(lists, most), chosen.selector)
        if (at >= 0).all():
            return scores, at
        if lists >= most:
            return None
        lists *= 4
    return None


def _tried(effort: float, segment: Segment) -> int:
    most = segment.approximate.nlist if segment.kind == "lists" else segment.count
    return max(1, min(round(effort), int(most)))


def _widened(
    near: Callable[[Vectors, int], tuple[Vectors, Positions]],
    vectors: Vectors,
    k: int,
    chosen: Chosen | None,
    way: Way,
    segment: Segment,
) -> tuple[Vectors, Positions] | None:
    """The k best of the chosen rows out of more hits than k; None when for some query too few of them pass.

    What passes among the nearest `fetch` rows are the nearest that pass: no row is nearer than those that were left.
    """
    fetch = way.fetch
    for _ in range(1 if way.name in (WIDENED_LISTS, EVEN) else TRIES):  # another way is the better second try
        scores, at = near(vectors, min(fetch, segment.count))
        passes = at >= 0 if chosen is None else chosen.mask[at] & (at >= 0)
        if passes.all() and at.shape[1] == k:
            return scores, at
        if (passes.sum(axis=1) >= k).all():
            first = np.argsort(~passes, axis=1, kind="stable")[:, :k]
            queries = np.arange(len(first))[:, None]
            return scores[queries, first], at[queries, first]
        if fetch >= segment.count:
            return None
        fetch = int(fetch * min(8.0, max(1.5, 1.5 * k / max(1, passes.sum(axis=1).min()))))
    return None
