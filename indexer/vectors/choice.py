"""Which kind of index a segment gets: each that may fit is built and measured on the segment's own rows.

Rows that ask are held out of the index while it is measured: a row that is in it finds its own neighbours more easily
than a query does (a graph over 50,000 overlapping rows at effort 20: recall .983 of rows within, .931 of others).
"""

# m rows, d embed_dim

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from indexer.ids import Ids
from indexer.vectors.codes import CODABLE, bytes_a_row, can_code, codes_over
from indexer.vectors.options import BuildOptions
from indexer.vectors.segments import (
    NEIGHBOURS,
    Halves,
    Segment,
    Vectors,
    add_rows,
    exact_segment,
    faiss_threads,
    graph_over,
    lists_over,
)
from indexer.vectors.tuning import Point, Tuning

logger = logging.getLogger(__name__)

QUERIES = 256
"""Rows of the segment that ask; they are added after it was measured."""
MARGIN = 0.003
"""Added to the target while measuring: the recall of so few queries is uncertain by about as much."""
FEW_ROWS_SCANNED = 3000
"""Lists that reach the target by comparing so few rows are as fast as a graph, and no graph is built."""
MOST_EFFORT = 2048
SAMPLE, SMALL_PART = 20_000, 0.08
"""Rows on which lists and graphs are tried first, and the part of them that lists may look through."""
GRAPH_GROWTH = 0.6
"""A search of a graph over n times the rows takes n to this power times as long: .1 where clusters lie apart, .7 where
they overlap (`bench_growth --index graph`)."""
KS = (10, 100)
ALIKE = 1e-6
"""Cosines that differ by so little are equal: they were summed in another order."""
GRAPH_BYTES = 2 * NEIGHBOURS * 4 + 16
"""A row's neighbours in a graph."""


class Builder(Protocol):
    """Devices that build (`gpu.Devices`)."""

    def lists_over(self, segment: Segment) -> Any:
        """As `_filled` with the segment's rows; None: not here."""


def build_segment(
    ids: Ids, rows: Halves | Vectors, options: BuildOptions, builder: Builder | None = None
) -> Segment:
    """A segment of rows [m, d], L2-normalised, under their ids (ascending), of the kind that suits it.

    An approximate index that misses the recall asked for is not used: exact search it is then.
    """
    small = len(ids) < 10 * QUERIES or (options.kind == "auto" and len(ids) <= options.exact_rows)
    if options.kind == "exact" or small:
        return exact_segment(ids, rows)
    held = np.zeros(len(ids), dtype=bool)
    held[np.random.default_rng(0).choice(len(ids), QUERIES, replace=False)] = True
    order = np.argsort(held, kind="stable")
    ids, halves = ids[order], np.ascontiguousarray(rows[order], dtype="<f2")
    best = _best(exact_segment(ids[:-QUERIES], halves[:-QUERIES]), halves[-QUERIES:], options, builder)
    if best is None:
        return exact_segment(ids[np.argsort(ids)], halves[np.argsort(ids)])
    with faiss_threads(options.threads):
        for index in (best.approximate, best.codes):
            if index is not None:
                add_rows(index, halves[-QUERIES:])
    return replace(best, ids=ids, exact=exact_segment(ids, halves).exact)


def _best(segment: Segment, held: Halves, options: BuildOptions, builder: Builder | None) -> Segment | None:
    """The quickest of the kinds that may be, over a segment without the rows held out; None: exact search."""
    started = time.perf_counter()
    with faiss_threads(options.threads):
        asked = _Asked.of(segment, held)
        segment = _coded(segment, asked, options)
    found = list(_built(segment, held, asked, options, builder))
    if not found:
        logger.warning("no approximate index over %d rows reaches recall %.3f", segment.count, options.recall)
        return None
    best = min(found, key=lambda built: _at(built).ms)
    if options.kind == "auto" and _at(best).ms >= asked.exact_ms:
        return None
    assert best.tuning is not None
    tried: dict[str, float] = {built.kind: _at(built).ms for built in found}
    seconds = round(time.perf_counter() - started, 3)
    return replace(best, tuning=replace(best.tuning, tried=tried, build_s=seconds))


def _built(
    segment: Segment, held: Halves, asked: _Asked, options: BuildOptions, builder: Builder | None
) -> Iterator[Segment]:
    """The segment as each kind that may be and reaches the recall; of those that cannot win none is built."""
    if segment.codes is not None and _may("codes", segment, options):
        yield segment
    auto = options.kind == "auto"
    quickest = math.inf if segment.codes is None else _at(segment).ms
    for kind in ("lists", "graph"):
        if not _may(kind, segment, options) or (
            auto and not _may_win(kind, segment, held, options, quickest)
        ):
            continue
        with faiss_threads(options.threads):
            approximate = _filled(kind, segment, builder)
        with faiss_threads(1):  # as a server searches
            built = _measured(replace(segment, approximate=approximate), asked, options)
        recall = _at(built).recall
        if recall < options.recall:
            logger.info("%s over %d rows reach recall %.3f only", kind, segment.count, recall)
            continue
        yield built
        quickest = min(quickest, _at(built).ms)
        if kind == "lists" and auto and segment.codes is None and _scanned(built) <= FEW_ROWS_SCANNED:
            return


def _may_win(kind: str, segment: Segment, held: Halves, options: BuildOptions, quickest: float) -> bool:
    """Whether this kind may be quicker than `quickest` milliseconds, by what it does with a sample: a graph over all
    rows takes five times as long to build as lists of codes, and lists of vectors half as long as a graph."""
    if segment.count < 3 * SAMPLE:
        return True
    if kind == "graph":
        return segment.codes is None or _graph_may_win(segment, held, options, quickest)
    return segment.codes is not None or _lists_may_win(segment, held, options)


def _coded(segment: Segment, asked: _Asked, options: BuildOptions) -> Segment:
    """With codes and their curve, where they reach the recall: for searches, and for filters whatever is searched."""
    if not can_code(segment.dim):
        logger.info("vectors of %d numbers have no codes: they take %s", segment.dim, CODABLE)
        return segment
    codes = codes_over(segment.halves)
    add_rows(codes, segment.halves)
    with faiss_threads(1):
        built = _measured(replace(segment, codes=codes), asked, options)
    if _at(built).recall < options.recall:
        logger.info("codes of %d rows reach recall %.3f only", segment.count, _at(built).recall)
        return segment
    return built


def _filled(kind: str, segment: Segment, builder: Builder | None) -> Any:
    """An approximate index of all rows of the segment."""
    index = builder.lists_over(segment) if kind == "lists" and builder is not None else None
    if index is None:
        index = lists_over(segment) if kind == "lists" else graph_over(segment)
        add_rows(index, segment.halves)
    return index


def _lists_may_win(segment: Segment, held: Halves, options: BuildOptions) -> bool:
    """Whether lists over a sample reach the recall by looking through a small part of it."""
    with faiss_threads(options.threads):
        sample, asked = _sampled(segment, held)
        lists = _filled("lists", sample, None)
        some = max(1, int(lists.nlist * SMALL_PART))
        return _point(replace(sample, approximate=lists), asked, KS[0], some).recall >= options.recall


def _graph_may_win(segment: Segment, held: Halves, options: BuildOptions, quickest: float) -> bool:
    """Whether a graph over a sample is so quick that one over all rows may be."""
    with faiss_threads(options.threads):
        sample, asked = _sampled(segment, held)
        sample = replace(sample, approximate=_filled("graph", sample, None))
    with faiss_threads(1):
        ms = _at(_measured(sample, asked, options)).ms
    expected = ms * (segment.count / SAMPLE) ** GRAPH_GROWTH
    logger.info(
        "a graph over %d rows is expected to take %.3f ms, others %.3f", segment.count, expected, quickest
    )
    return bool(expected < quickest)


def _sampled(segment: Segment, held: Halves) -> tuple[Segment, _Asked]:
    rows = np.sort(np.random.default_rng(1).choice(segment.count, SAMPLE, replace=False))
    sample = exact_segment(rows, segment.halves[rows])
    return sample, _Asked.of(sample, held)


def _at(segment: Segment) -> Point:
    """What its search for the best ten was measured to be."""
    assert segment.tuning is not None
    return segment.tuning.at(KS[0])


def _may(kind: str, segment: Segment, options: BuildOptions) -> bool:
    """Whether this kind was asked for, and fits."""
    if options.kind not in ("auto", kind):
        return False
    dim = segment.dim
    in_lists = dim if segment.codes is None else bytes_a_row(dim)
    sizes = {"codes": bytes_a_row(dim), "lists": in_lists + 8, "graph": 2 * dim + GRAPH_BYTES}
    fits = not options.memory_mb or segment.count * sizes[kind] <= options.memory_mb * 1e6
    if not fits:
        logger.info("%s over %d rows do not fit into %g MB", kind, segment.count, options.memory_mb)
    return fits


def _scanned(segment: Segment) -> float:
    """Rows that lists compare for the best ten, on average."""
    return float(_at(segment).effort * segment.count / segment.approximate.nlist)


@dataclass(frozen=True)
class _Asked:
    """The rows that were held out, and their true neighbours among the others."""

    queries: Vectors
    truth: Vectors
    """[n, 100] cosines, best first"""
    exact_ms: float

    @classmethod
    def of(cls, segment: Segment, held: Halves) -> _Asked:
        queries = held.astype(np.float32)
        truth, _ = segment.search_exact(queries, max(KS))
        times = []
        for query in queries[:5]:
            started = time.perf_counter()
            segment.search_exact(query[None], KS[0])
            times.append((time.perf_counter() - started) * 1e3)
        return cls(queries, truth, min(times))


def _measured(segment: Segment, asked: _Asked, options: BuildOptions) -> Segment:
    """With its curve: effort doubled until the target is reached, then the last step halved twice."""
    most = segment.approximate.nlist if segment.kind == "lists" else MOST_EFFORT
    if segment.kind == "lists" and options.kind == "auto":
        most = max(
            1, most // (8 if segment.codes is None else 2)
        )  # further on a graph, or all codes, are quicker
    wanted = min(1.0, options.recall + MARGIN)
    points: list[Point] = []
    for k in KS:

        def measure(effort: int, k: int = k) -> Point:
            return _point(segment, asked, k, effort)

        points += _curve(measure, wanted, start=1 if segment.kind == "lists" else k, most=most)
    curve = tuple(points)
    coded = curve if segment.kind == "codes" else () if segment.tuning is None else segment.tuning.coded
    return replace(segment, tuning=Tuning(wanted, curve, asked.exact_ms, 0.0, {}, coded))


def _curve(measure: Callable[[int], Point], wanted: float, *, start: int, most: int) -> list[Point]:
    points = [measure(start)]
    while points[-1].recall < wanted and points[-1].effort < most:
        points.append(measure(min(most, 2 * points[-1].effort)))
    if len(points) > 1 and points[-1].recall >= wanted:
        low, high = points[-2].effort, points[-1].effort
        for _ in range(2):
            middle = (low + high) // 2
            if middle in (low, high):
                break
            points.append(measure(middle))
            low, high = (low, middle) if points[-1].recall >= wanted else (middle, high)
    return sorted(points, key=lambda point: point.effort)


def _point(segment: Segment, asked: _Asked, k: int, effort: int) -> Point:
    times = []
    for _ in range(2):  # the quicker one: whatever else runs here only slows a search down
        started = time.perf_counter()
        found, _ = segment.search_approximate(asked.queries, k, effort)
        times.append(time.perf_counter() - started)
    ms = min(times) * 1e3 / len(asked.queries)
    return Point(k, effort, round(recall(found, asked.truth[:, :k]), 4), round(ms, 5))


def recall(found: Vectors, truth: Vectors) -> float:
    """Share of the k best that were found, by cosines found [n, k'] and true [n, k], best first: a row is right when it
    is as near as the k-th. Of rows that are equal any will do."""
    right = found >= truth[:, -1:] - ALIKE
    return float(np.minimum(right.sum(axis=1), truth.shape[1]).sum() / truth.size)
