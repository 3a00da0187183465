"""One suite for every kind of index: what must hold whichever way a segment is searched."""

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.vectors.choice import build_segment
from indexer.vectors.gpu import Device, DeviceRows, Devices
from indexer.vectors.index import VectorIndex
from indexer.vectors.options import BuildOptions
from indexer.vectors.planner import CODES, DEVICE, EVEN, Chosen, Way, ways
from indexer.vectors.segments import (
    Segment,
    add_rows,
    exact_segment,
    graph_over,
    lists_over,
    read_segment,
    write_segment,
)
from tests.rows import overlap

Rows = NDArray[np.float32]
KINDS = ("exact", "codes", "graph", "lists")
PLAIN = "lists of 8 bits a number"
ON_DEVICES = (
    pytest.param("torch on cpu,cpu", id="two devices"),
    pytest.param("torch on cuda:0", marks=pytest.mark.gpu),
    pytest.param("faiss on cuda:0", marks=pytest.mark.gpu),
)
"""Exact search of rows that are held on devices, by what and where."""
N, DIM, K = 4000, 32, 10
NOTHING = np.empty(0, np.int64)
NO_ROWS = np.empty((0, DIM), np.float32)


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Forty clusters that overlap; row i is of cluster i % 40."""
    return drawn(np.random.default_rng(1), N)


@pytest.fixture(scope="module")
def queries() -> Rows:
    return drawn(np.random.default_rng(2), 60)


def drawn(rng: np.random.Generator, n: int) -> Rows:
    centres = np.random.default_rng(0).normal(size=(40, DIM))
    rows = centres[np.arange(n) % 40] + 0.8 * rng.normal(size=(n, DIM))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    stored: Rows = unit.astype(np.float16).astype(np.float32)
    return stored


@pytest.fixture(scope="module")
def segments(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Segment]:
    """Of each kind one, as it is read from its files. Ids have gaps."""
    folder = tmp_path_factory.mktemp("segments")
    out = {}
    for kind in KINDS:
        built = build_segment(ids_of(N), rows, BuildOptions(kind=kind))
        out[kind] = read_segment(folder, kind, write_segment(built, folder, kind), built.tuning)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("indexer.vectors.choice.can_code", lambda dim: False)
        built = build_segment(ids_of(N), rows, BuildOptions(kind="lists"))
    out[PLAIN] = read_segment(folder, "plain", write_segment(built, folder, "plain"), built.tuning)
    assert out[PLAIN].codes is None and out["lists"].codes is not None
    return out


def ids_of(n: int) -> NDArray[np.int64]:
    return np.arange(n) * 2 + 11


@pytest.fixture(params=[*KINDS, PLAIN, *ON_DEVICES])
def index(request: pytest.FixtureRequest, segments: dict[str, Segment]) -> Iterator[VectorIndex]:
    if request.param in segments:
        assert segments[request.param].kind == request.param.split()[0]
        yield VectorIndex.over(DIM, [segments[request.param]])
        return
    finder, _, names = request.param.partition(" on ")
    devices = Devices([Device(name, finder) for name in names.split(",")])
    segment = devices.hold(segments["exact"])
    assert isinstance(segment.held, DeviceRows)
    segment.held.ms = segment.held.filtered_ms = (
        0.0  # the planner's first choice, here where a processor is as quick
    )
    index = VectorIndex.over(DIM, [segment])
    assert index.plan().kind == DEVICE
    yield index
    assert segment.held.works
    devices.close()


def assert_sound(index: VectorIndex, rows: Rows, queries: Rows, k: int, may: NDArray[np.bool_]) -> float:
    """k rows of those that may be, best first, each with its own cosine; the recall."""
    allowed = None if may.all() else index.allow(ids_of(N)[may])
    scores, ids = index.search(queries, k, allowed=allowed)
    truth = np.argsort(-np.where(may, queries @ rows.T, -2.0), axis=1, kind="stable")[:, :k]
    truth = truth[:, : min(k, int(may.sum()))]
    at = (ids - 11) // 2
    assert ids.shape == truth.shape
    assert all(len(set(one)) == len(one) for one in ids.tolist())
    assert may[at].all()
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ rows.T, at, 1), atol=1e-5)
    assert (np.diff(scores, axis=1) <= 1e-7).all()
    return overlap(at, truth)


@pytest.mark.parametrize("k", [1, 10, 100, 1000])
def test_the_best_rows_are_found_with_their_cosines(
    index: VectorIndex, rows: Rows, queries: Rows, k: int
) -> None:
    few = 0.02 if k == 1 else 0.0  # sixty rows in all
    assert assert_sound(index, rows, queries, k, np.ones(N, bool)) >= 0.97 - few


def test_all_rows_are_found_when_all_are_asked_for(index: VectorIndex, rows: Rows, queries: Rows) -> None:
    assert assert_sound(index, rows, queries[:3], N, np.ones(N, bool)) == 1.0
    assert index.search(queries[:3], 3 * N)[1].shape == (3, N)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.01, 0.0025])
def test_a_random_filter_loses_nothing(index: VectorIndex, rows: Rows, queries: Rows, share: float) -> None:
    may = np.random.default_rng(3).random(N) < share
    assert assert_sound(index, rows, queries, K, may) >= 0.97


@pytest.mark.parametrize("clusters", [20, 4, 1])
def test_a_filter_that_goes_with_some_queries_and_against_the_others_loses_nothing(
    index: VectorIndex, rows: Rows, queries: Rows, clusters: int
) -> None:
    may = np.arange(N) % 40 < clusters
    assert assert_sound(index, rows, queries, K, may) >= 0.97


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_dead_rows_are_never_found_and_k_are_found_all_the_same(
    index: VectorIndex, rows: Rows, queries: Rows, share: float
) -> None:
    lives = np.random.default_rng(4).random(N) >= share
    index = index.with_changes(NOTHING, NO_ROWS, ids_of(N)[~lives])

    _, ids = index.search(queries, K)

    at = (ids - 11) // 2
    truth = np.argsort(-np.where(lives, queries @ rows.T, -2.0), axis=1)[:, : min(K, int(lives.sum()))]
    assert lives[at].all() and ids.shape == truth.shape
    assert overlap(at, truth) >= 0.97
    assert assert_sound_filter(index, rows, queries, lives & (np.arange(N) % 3 == 0)) >= 0.97


def assert_sound_filter(index: VectorIndex, rows: Rows, queries: Rows, may: NDArray[np.bool_]) -> float:
    """A filter that lets dead rows through too."""
    _, ids = index.search(queries, K, allowed=index.allow(ids_of(N)[np.arange(N) % 3 == 0]))
    at = (ids - 11) // 2
    truth = np.argsort(-np.where(may, queries @ rows.T, -2.0), axis=1)[:, : min(K, int(may.sum()))]
    assert may[at].all() and ids.shape == truth.shape
    return overlap(at, truth)


def test_rows_of_the_tail_are_found_at_once(index: VectorIndex, queries: Rows) -> None:
    more = index.with_changes(np.arange(9_000, 9_060), queries, NOTHING)

    _, ids = more.search(queries, 1)

    assert ids[:, 0].tolist() == list(range(9_000, 9_060))
    assert index.search(queries, 1)[1].max() < 9_000  # the old view does not know them


def test_segments_of_two_kinds_answer_as_one(segments: dict[str, Segment], rows: Rows, queries: Rows) -> None:
    half = N // 2
    first = build_segment(ids_of(N)[:half], rows[:half], BuildOptions(kind="graph", recall=0.9))
    rest = build_segment(ids_of(N)[half:], rows[half:], BuildOptions(kind="exact"))

    assert assert_sound(VectorIndex.over(DIM, [first, rest]), rows, queries, K, np.ones(N, bool)) >= 0.9


def test_a_batch_and_single_queries_give_the_same_answer(index: VectorIndex, queries: Rows) -> None:
    allowed = index.allow(ids_of(N)[::2])
    for given in (None, allowed):
        whole = index.search(queries, K, allowed=given)[1]
        single = np.concatenate([index.search(query[None], K, allowed=given)[1] for query in queries])
        truth = index.exactly().search(queries, K, allowed=given)[1]
        assert overlap(whole, truth) >= 0.97 and overlap(single, truth) >= 0.97
        assert given is not None or overlap(whole, single) >= 0.99  # an often asked filter goes another way


def test_searches_of_many_threads_equal_the_serial_answers(index: VectorIndex, queries: Rows) -> None:
    filters = [None, index.allow(ids_of(N)[::2]), index.allow(ids_of(N)[::50])]
    started = threading.Barrier(6)

    def answers(wait: Callable[[], object]) -> list[object]:
        wait()
        asked = [(query[None], filters[i % 3]) for i, query in enumerate(queries)]
        return [index.search(query, K, allowed=allowed)[1].tolist() for query, allowed in asked]

    serial = answers(lambda: None)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda _: answers(started.wait), range(6))) == [serial] * 6


def test_the_rows_of_a_segment_are_those_it_was_built_of(index: VectorIndex, rows: Rows) -> None:
    ids, halves = index.rows()

    assert np.array_equal(ids, ids_of(N)) and np.array_equal(halves.astype(np.float32), rows)


def test_what_is_folded_into_a_new_segment_is_found_as_before(
    index: VectorIndex, rows: Rows, queries: Rows, tmp_path: Path
) -> None:
    kind = index.parts[0].segment.kind
    grown = index.with_changes(np.arange(9_000, 9_060), queries, ids_of(N)[::7])

    folded = grown.with_segments([build_segment(*grown.rows(), BuildOptions(kind=kind))])

    assert (folded.count, folded.tail_rows) == (grown.count, 0)
    assert np.array_equal(folded.living(), grown.living())
    assert overlap(folded.search(queries, K)[1], grown.exactly().search(queries, K)[1]) >= 0.97


def test_what_came_and_went_while_a_segment_was_built_is_kept(index: VectorIndex, queries: Rows) -> None:
    at_start = index.with_changes(np.arange(9_000, 9_030), queries[:30], NOTHING)
    segment = build_segment(*at_start.rows(), BuildOptions(kind="exact"))
    now = at_start.with_changes(np.arange(9_100, 9_130), queries[30:], np.array([9_000, 11, 13]))

    folded = now.with_segments([segment])

    assert np.array_equal(folded.living(), now.living())
    assert (folded.count, folded.tail_rows, len(folded.parts[0].dead)) == (now.count, 30, 3)


@pytest.mark.parametrize("kind", ["graph", "lists", PLAIN])
def test_an_approximate_index_that_finds_too_few_is_not_the_last_word(
    segments: dict[str, Segment], rows: Rows, queries: Rows, kind: str
) -> None:
    """An index that knows a hundred rows only: k rows are found all the same, and exactly."""
    approximate = (graph_over if kind == "graph" else lists_over)(segments[kind])
    add_rows(approximate, segments["exact"].halves[:100])
    poor = replace(segments[kind], approximate=approximate)
    known = exact_segment(ids_of(100), rows[:100])
    poor.__dict__["_refined"] = faiss.IndexRefine(approximate, known.exact), known

    _, ids = VectorIndex.over(DIM, [poor]).search(queries, 200)

    assert ids.shape == (60, 200)
    assert np.array_equal(ids, VectorIndex.over(DIM, [poor]).exactly().search(queries, 200)[1])


def test_codes_are_kept_of_the_filters_that_were_asked_last_and_outlive_a_write_elsewhere(
    segments: dict[str, Segment], queries: Rows
) -> None:
    segment = replace(segments["codes"])  # with nothing kept
    index = VectorIndex.over(DIM, [segment])
    after = index.with_changes(np.arange(9_000, 9_060), queries, NOTHING)

    def chosen(start: int, index: VectorIndex = index) -> Chosen:
        """Three quarters of the rows: there is room for two such."""
        return index.allow(ids_of(N)[np.arange(N) % 4 != start]).parts[0]

    first, second = chosen(0).packed(segment), chosen(1).packed(segment)
    assert chosen(0).packed(segment) is first
    third = chosen(2).packed(segment)

    assert [chosen(start).is_packed(segment) for start in range(4)] == [True, False, True, False]
    assert chosen(2, after).packed(segment) is third and chosen(0, after).packed(segment) is first
    assert chosen(1).packed(segment) is not second


@pytest.mark.parametrize("kind", ["codes", "graph", "lists"])
@pytest.mark.parametrize("share", [0.8, 0.5])
def test_a_filter_answered_by_codes_loses_nothing(
    segments: dict[str, Segment],
    rows: Rows,
    queries: Rows,
    kind: str,
    share: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def only_codes(segment: Segment, k: int, chosen: Chosen | None) -> list[Way]:
        return [way for way in ways(segment, k, chosen) if way.name == CODES]

    monkeypatch.setattr("indexer.vectors.segment_search.ways", only_codes)
    index = VectorIndex.over(DIM, [replace(segments[kind])])
    may = np.random.default_rng(6).random(N) < share

    assert assert_sound(index, rows, queries, K, may) >= 0.97

    def search(_: int) -> list[list[int]]:
        found: list[list[int]] = index.search(queries, K, allowed=index.allow(ids_of(N)[may]))[1].tolist()
        return found

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(search, range(8)))
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("kind", ["graph", "lists", PLAIN])
def test_a_few_hits_more_do_for_a_filter_that_lets_rows_through_here_and_there_but_not_by_where_they_lie(
    segments: dict[str, Segment], rows: Rows, queries: Rows, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment, by_cluster = segments[kind], np.arange(N) % 40 < 20
    here_and_there = np.random.default_rng(6).random(N) < 0.5
    index = VectorIndex.over(DIM, [segment])

    def enough(may: NDArray[np.bool_]) -> int | None:
        return index.allow(ids_of(N)[may]).parts[0].enough(segment, K)

    def a_little_first(segment: Segment, k: int, chosen: Chosen | None) -> list[Way]:
        return sorted(ways(segment, k, chosen), key=lambda way: way.name != EVEN)

    assert enough(by_cluster) is None
    assert 2 * K < (enough(here_and_there) or 0) < 8 * K
    monkeypatch.setattr("indexer.vectors.segment_search.ways", a_little_first)
    assert assert_sound(index, rows, queries, K, here_and_there) >= 0.97


def test_of_packed_codes_faiss_keeps_no_hold_and_we_do(segments: dict[str, Segment], queries: Rows) -> None:
    """What an IndexRefine stands on may be freed while it is used; ours lives as long as its segment."""
    segment = replace(segments["codes"])
    before = segment.search_approximate(queries, K, 100)[1]
    gc.collect()
    junk = [np.ones(N * 4, np.uint8) for _ in range(50)]

    assert np.array_equal(segment.search_approximate(queries, K, 100)[1], before) and len(junk) == 50


@pytest.mark.parametrize(("dim", "kind"), [(30, "graph"), (24, "graph"), (64, "codes")])
def test_vectors_that_do_not_fall_into_parts_have_no_codes(dim: int, kind: str) -> None:
    rows = np.random.default_rng(5).normal(size=(3000, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    built = build_segment(ids_of(3000), rows, BuildOptions(kind=kind))

    assert (built.kind, built.codes is not None) == (kind, kind == "codes")
