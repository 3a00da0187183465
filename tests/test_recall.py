"""Recall of what is served, measured on real queries."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from indexer.recall import FEWEST, KEPT, KEPT_FILTERED, RecallWatch
from indexer.vectors.choice import build_segment
from indexer.vectors.index import VectorIndex
from indexer.vectors.options import BuildOptions
from indexer.vectors.planner import BITMAP, CODES, GATHERED, WIDENED, Chosen, Way, ways
from indexer.vectors.segments import Segment
from indexer.vectors.tuning import Tuning
from tests.rows import overlap
from tests.test_choice import DIM, clustered, ids_of

ROWS = clustered(4000, 1.0)
QUERIES = clustered(100, 1.0, seed=1)


@pytest.fixture(scope="module")
def graph() -> VectorIndex:
    return VectorIndex.over(DIM, [build_segment(ids_of(4000), ROWS, BuildOptions(kind="graph"))])


def careless(index: VectorIndex) -> VectorIndex:
    """The same, whose tuning says that the least effort is enough."""
    (part,) = index.parts
    tuning = part.segment.tuning
    assert tuning is not None
    points = tuple(replace(point, effort=1, recall=1.0) for point in tuning.points if point.k == 10)[:1]
    segment = replace(part.segment, tuning=Tuning(0.98, points, tuning.exact_ms, 0.0, {}))
    return VectorIndex.over(DIM, [segment])


def asked(watch: RecallWatch, index: VectorIndex) -> None:
    for query in QUERIES:
        watch.search(index, query[None], 10, None)


def test_recall_of_what_was_asked_is_measured(graph: VectorIndex) -> None:
    watch = RecallWatch()
    asked(watch, graph)

    watch.check(graph, 0.9, "here")

    assert watch.recall is not None and watch.recall >= 0.9
    assert watch.effort == 1.0


def test_where_recall_is_under_the_target_search_widens_and_says_so(
    graph: VectorIndex, caplog: pytest.LogCaptureFixture
) -> None:
    index, watch = careless(graph), RecallWatch()
    asked(watch, index)
    before = index.search(QUERIES, 10)[1]
    exact = index.exactly().search(QUERIES, 10)[1]

    with caplog.at_level(logging.WARNING):
        watch.check(index, 0.999, "collection 7, images")

    assert watch.effort == 0.0 or watch.effort > 1
    assert "collection 7, images: recall of real queries is 0." in caplog.text
    after = np.concatenate([watch.search(index, query[None], 10, None)[1] for query in QUERIES])
    assert overlap(before, exact) < overlap(after, exact) >= 0.999


def test_rows_that_are_all_alike_do_not_make_recall_look_low(graph: VectorIndex) -> None:
    rows = np.concatenate([ROWS[:3000], np.repeat(ROWS[:1], 1000, axis=0)])
    index = VectorIndex.over(DIM, [build_segment(ids_of(4000), rows, BuildOptions(kind="lists"))])
    assert index.is_approximate
    watch = RecallWatch()
    for _ in range(FEWEST):
        watch.search(index, ROWS[:1], 10, None)

    watch.check(index, 0.98, "here")

    assert (watch.recall, watch.effort) == (1.0, 1.0)


def test_other_segments_begin_with_the_usual_effort(graph: VectorIndex) -> None:
    watch = RecallWatch()
    asked(watch, careless(graph))
    watch.check(careless(graph), 0.999, "here")
    assert watch.effort != 1.0

    watch.begin_anew()

    assert (watch.effort, watch.recall) == (1.0, None)


def test_few_queries_say_nothing_and_an_exact_index_is_not_measured(graph: VectorIndex) -> None:
    few, exact = RecallWatch(), RecallWatch()
    for query in QUERIES[: FEWEST - 1]:
        few.search(graph, query[None], 10, None)
    asked(exact, graph.exactly())

    few.check(graph, 0.9, "here")
    exact.check(graph.exactly(), 0.9, "here")

    assert few.recall is None and exact.recall is None


def test_the_latest_queries_are_kept_those_with_a_filter_apart(graph: VectorIndex) -> None:
    watch = RecallWatch()
    for _ in range(3):
        asked(watch, graph)
    for _ in range(KEPT_FILTERED + 1):
        watch.search(graph, QUERIES[:1], 10, graph.allow(ids_of(50)))
    watch.search(graph, QUERIES[:1], 10, graph.allow(ids_of(0)))

    assert (len(watch._queries), len(watch._filtered)) == (KEPT, KEPT_FILTERED)


def test_recall_under_filters_is_measured_too_and_widens_the_search(
    graph: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_codes(segment: Segment, k: int, chosen: Chosen | None) -> list[Way]:
        found = ways(segment, k, chosen)
        if chosen is None or segment.codes is None:
            return found
        return [replace(way, fetch=12) for way in found if way.name == CODES]

    monkeypatch.setattr("indexer.vectors.segment_search.ways", only_codes)
    (part,) = graph.parts
    assert part.segment.codes is not None
    watch, allowed = RecallWatch(), graph.allow(ids_of(3000))
    for query in QUERIES:
        watch.search(graph, query[None], 10, allowed)
    watch._queries.clear()

    watch.check(graph, 0.97, "here")

    assert watch.effort == 0.0 or watch.effort > 1
    assert watch.recall is not None and watch.recall >= 0.97


def test_under_one_filter_rows_that_are_all_compared_are_not_searched_as_the_index_is(
    graph: VectorIndex,
) -> None:
    (part,) = graph.parts
    chosen = Chosen(np.arange(4000) < 3000)

    before = {way.name for way in ways(part.segment, 10, chosen)}
    exactly = {way.name for way in ways(part.segment.exactly(), 10, chosen)}

    assert before > exactly == {GATHERED, BITMAP, WIDENED}
