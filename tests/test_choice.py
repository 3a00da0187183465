"""Which kind of index a segment gets, and what is measured of it."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.vectors.choice import QUERIES, build_segment
from indexer.vectors.index import VectorIndex
from indexer.vectors.options import BuildOptions
from indexer.vectors.tuning import Point, Tuning
from tests.rows import overlap

Rows = NDArray[np.float32]
DIM, K = 32, 10


def clustered(n: int, deviation: float, seed: int = 0, clusters: int = 60) -> Rows:
    """[n, 32]: around the same centres for every seed, which lie apart at .2 and are lost in each other at 3."""
    centres = np.random.default_rng(99).normal(size=(clusters, DIM))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, clusters, n)] + deviation * rng.normal(size=(n, DIM))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    stored: Rows = unit.astype(np.float16).astype(np.float32)
    return stored


def ids_of(n: int) -> NDArray[np.int64]:
    return np.arange(1, n + 1)


@pytest.mark.parametrize(("rows", "exact_rows"), [(0, 0), (1, 0), (2000, 0), (5000, 5000)])
def test_few_rows_are_searched_exactly(rows: int, exact_rows: int) -> None:
    options = BuildOptions(exact_rows=exact_rows)

    segment = build_segment(ids_of(rows), clustered(rows, 1.0), options)

    assert (segment.kind, segment.count, segment.tuning) == ("exact", rows, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deviation", "may_win"), [(0.2, {"codes", "lists"}), (0.8, {"codes", "lists"}), (3.0, {"graph"})]
)
def test_auto_builds_what_may_win_and_takes_the_quickest(deviation: float, may_win: set[str]) -> None:
    rows = clustered(70_000, deviation)

    # which is quicker is measured, and what else runs on the machine may let exact search win: then once again
    built = (build_segment(ids_of(len(rows)), rows, BuildOptions()) for _ in range(5))
    segment = next(one for one in built if one.tuning is not None)

    assert segment.tuning is not None
    tried = segment.tuning.tried
    assert set(tried) >= may_win and segment.kind == min(tried, key=tried.__getitem__)
    queries = clustered(500, deviation, seed=1)  # none of them is in the index
    index = VectorIndex.over(DIM, [segment])
    assert overlap(index.search(queries, K)[1], index.exactly().search(queries, K)[1]) >= 0.975


@pytest.mark.parametrize("kind", ["codes", "graph", "lists"])
def test_the_curve_is_measured_on_rows_that_were_held_out_and_are_in_the_index_in_the_end(kind: str) -> None:
    rows = clustered(4000, 0.8)

    segment = build_segment(ids_of(4000), rows, BuildOptions(kind=kind))

    tuning = segment.tuning
    assert segment.kind == kind and tuning is not None
    assert tuning.ks == [10, 100]
    for k in tuning.ks:
        curve = [point for point in tuning.points if point.k == k]
        assert [point.effort for point in curve] == sorted({point.effort for point in curve})
        assert curve[-1].recall >= tuning.target == pytest.approx(0.983)
        assert all(point.ms > 0 for point in curve)
    assert (np.diff(segment.ids) < 0).sum() == 1  # one place where the held out rows begin
    held = segment.halves[-QUERIES:].astype(np.float32)
    own = VectorIndex.over(DIM, [segment]).search(held, 1)[1][:, 0]
    assert np.mean(own == segment.ids[-QUERIES:]) >= 0.97


def test_a_recall_that_no_index_reaches_means_exact_search() -> None:
    rows = np.random.default_rng(0).normal(size=(4000, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[2000:] = rows[:1]  # a graph does not get through so many rows that are the same

    segment = build_segment(ids_of(4000), rows, BuildOptions(kind="graph", recall=0.99999))

    assert (segment.kind, segment.ids.tolist()) == ("exact", ids_of(4000).tolist())


@pytest.mark.parametrize(
    ("kind", "memory_mb", "built"),
    [
        ("graph", 1.3, "graph"),
        ("graph", 0.2, "exact"),
        ("lists", 0.06, "lists"),
        ("lists", 0.04, "exact"),
        ("codes", 0.02, "codes"),
        ("codes", 0.01, "exact"),
        ("auto", 0.02, "codes"),
    ],
)
def test_a_kind_that_does_not_fit_into_the_memory_allowed_is_not_built(
    kind: str, memory_mb: float, built: str
) -> None:
    """Of 4,000 rows of 32: a graph takes 1 MB, lists .048 MB, codes .016 MB."""
    options = BuildOptions(kind=kind, exact_rows=0, memory_mb=memory_mb)

    assert build_segment(ids_of(4000), clustered(4000, 0.2), options).kind == built


# -- tuning ------------------------------------------------------------------------------------------------

POINTS = (
    Point(10, 16, 0.90, 0.1),
    Point(10, 32, 0.98, 0.2),
    Point(10, 64, 0.99, 0.4),
    Point(100, 128, 0.97, 0.8),
    Point(100, 212, 0.985, 1.1),
)
TUNING = Tuning(0.98, POINTS, exact_ms=5.0, build_s=3.0, tried={"graph": 0.2})


@pytest.mark.parametrize(("k", "effort"), [(1, 32), (10, 32), (55, 122), (100, 212), (1000, 2120)])
def test_effort_is_that_of_the_first_point_at_the_target_and_between_points_in_proportion(
    k: int, effort: int
) -> None:
    assert TUNING.effort(k) == effort


def test_where_no_point_reaches_the_target_the_last_one_counts() -> None:
    assert Tuning(0.999, POINTS, 5.0, 3.0, {}).at(10) == POINTS[2]


def test_a_tuning_is_the_same_after_json() -> None:
    assert Tuning.of(json.loads(json.dumps(TUNING.as_json()))) == TUNING
    assert Tuning.of({}) is None
