import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.vectors.index import VectorIndex
from indexer.vectors.segments import exact_segment
from tests.rows import DIM, assert_exact, exact_vectors

Rows = dict[int, NDArray[np.float32]]
NOTHING = np.empty(0, np.int64)
N = 300
SHAPES = {"segment": N, "tail": 0, "both": N // 2, "a tail of one row": N - 1, "a segment of one row": 1}
"""Rows in the segment; the rest is the tail."""


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Some vectors occur twice and thrice, so that there are equal scores."""
    rng = np.random.default_rng(4)
    ids = np.sort(rng.choice(5 * N, N, replace=False))
    vectors = exact_vectors(rng, N)
    vectors[rng.integers(0, N, 90)] = vectors[rng.integers(0, N, 90)]
    return dict(zip(ids.tolist(), vectors, strict=True))


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    return exact_vectors(np.random.default_rng(5), 25)  # FAISS takes another way from 20 queries on


def index_of(rows: Rows, in_segment: int) -> VectorIndex:
    """The first rows in a segment, the others in a tail that grew twice."""
    ids, vectors = ids_of(rows), np.stack(list(rows.values()))
    segments = [exact_segment(ids[:in_segment], vectors[:in_segment])] if in_segment else []
    index = VectorIndex.over(vectors.shape[1], segments)
    for part in np.array_split(np.arange(in_segment, len(ids)), 2):
        index = index.with_changes(ids[part], vectors[part], NOTHING)
    return index


def ids_of(rows: Rows) -> NDArray[np.int64]:
    return np.array(list(rows), np.int64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [1, 7, 120, N, N + 1, 10 * N])
def test_search_equals_exact_search(rows: Rows, queries: NDArray[np.float32], shape: str, k: int) -> None:
    scores, ids = index_of(rows, SHAPES[shape]).search(queries, k)

    assert scores.shape == ids.shape == (len(queries), min(k, N))
    assert scores.dtype == np.float32 and ids.dtype == np.int64
    for query, one_scores, one_ids in zip(queries, scores, ids, strict=True):
        assert_exact(one_scores, one_ids, rows, query, k)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [1, 7, 120, 10 * N])
def test_search_with_dead_rows_equals_exact_search_over_the_living(
    rows: Rows, queries: NDArray[np.float32], shape: str, k: int
) -> None:
    dead = np.random.default_rng(6).choice(ids_of(rows), N // 3, replace=False)  # not in order
    index = index_of(rows, SHAPES[shape])

    index = index.with_changes(NOTHING, np.empty((0, DIM), np.float32), dead)

    living = {i: row for i, row in rows.items() if i not in dead}
    assert (index.count, index.living().tolist()) == (len(living), list(living))
    for query in queries:
        (scores,), (ids,) = index.search(query[None], k)
        assert_exact(scores, ids, living, query, k)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.8, 0.5, 0.3, 0.1, 0.01])
@pytest.mark.parametrize("with_dead", [False, True])
@pytest.mark.parametrize("k", [1, 10, N])
def test_filtered_search_equals_exact_search_over_the_allowed_rows(
    rows: Rows, queries: NDArray[np.float32], shape: str, share: float, with_dead: bool, k: int
) -> None:
    rng = np.random.default_rng(7)
    allowed = rng.choice(ids_of(rows), int(N * share), replace=False)  # not in order
    dead = np.sort(rng.choice(ids_of(rows), N // 4 if with_dead else 0, replace=False))
    index = index_of(rows, SHAPES[shape]).with_changes(NOTHING, np.empty((0, DIM), np.float32), dead)

    scores, ids = index.search(queries, k, allowed=index.allow(allowed))

    may = {i: row for i, row in rows.items() if i in allowed and i not in dead}
    for query, one_scores, one_ids in zip(queries, scores, ids, strict=True):
        assert_exact(one_scores, one_ids, may, query, k)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.01])
@pytest.mark.parametrize("far", [False, True])
def test_a_filter_that_goes_with_the_query_or_against_it_gives_the_same_exact_answer(
    share: float, far: bool
) -> None:
    rng = np.random.default_rng(11)
    many = {i: row for i, row in enumerate(exact_vectors(rng, 5000), start=3)}
    query = exact_vectors(rng, 1)
    order = sorted(many, key=lambda i: float(query[0] @ many[i]), reverse=not far)
    allowed = np.sort(np.array(order[: int(len(many) * share)]))
    index = index_of(many, len(many))

    (scores,), (ids,) = index.search(query, 10, allowed=index.allow(allowed))

    assert_exact(scores, ids, {i: many[i] for i in allowed.tolist()}, query[0], 10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_dead", [False, True])
def test_one_allowed_row_is_the_whole_answer(rows: Rows, shape: str, with_dead: bool) -> None:
    first, last = ids_of(rows)[[0, -1]].tolist()
    index = index_of(rows, SHAPES[shape])
    dead = np.array([first] if with_dead else [], np.int64)
    index = index.with_changes(NOTHING, np.empty((0, DIM), np.float32), dead)

    found = [
        index.search(np.ones((1, DIM), np.float32), 5, allowed=index.allow(np.array([i])))[1].tolist()
        for i in (first, last)
    ]

    assert found == [[[]] if with_dead else [[first]], [[last]]]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("allowed", [[], [1_000_000], [0]])
def test_nothing_allowed_or_only_what_is_not_there_is_an_empty_answer(
    rows: Rows, queries: NDArray[np.float32], shape: str, allowed: list[int]
) -> None:
    assert 0 not in rows
    index = index_of(rows, SHAPES[shape])

    scores, ids = index.search(queries, 5, allowed=index.allow(np.array(allowed, np.int64)))

    assert scores.shape == ids.shape == (len(queries), 0)


def test_an_allowed_id_that_is_named_twice_is_found_once(rows: Rows) -> None:
    first = next(iter(rows))

    index = index_of(rows, SHAPES["both"])

    _, ids = index.search(np.ones((1, DIM), np.float32), 5, allowed=index.allow(np.array([first, first])))

    assert ids.tolist() == [[first]]


@pytest.mark.parametrize("allowed", [None, np.array([1, 2])])
def test_an_empty_index_gives_an_empty_answer(allowed: NDArray[np.int64] | None) -> None:
    empty = VectorIndex(DIM)
    with_empty_segment = VectorIndex.over(DIM, [exact_segment(NOTHING, np.empty((0, DIM), np.float32))])

    for index in (empty, with_empty_segment):
        filtered = None if allowed is None else index.allow(allowed)
        scores, ids = index.search(np.ones((2, DIM), np.float32), 3, allowed=filtered)
        assert scores.shape == ids.shape == (2, 0)
        assert index.count == 0


def test_equal_pictures_come_in_the_order_of_their_ids_wherever_they_lie() -> None:
    rows = {i: np.ones(DIM, np.float32) for i in (3, 5, 6, 9, 11, 12)}

    found = [index_of(rows, n).search(np.ones((1, DIM), np.float32), 6)[1].tolist() for n in range(7)]

    assert found == [[list(rows)]] * 7


def test_search_of_real_vectors_agrees_with_exact_search(vectors: NDArray[np.float32]) -> None:
    vectors = vectors.astype(np.float16).astype(np.float32)  # as they are stored
    rows = dict(enumerate(vectors[:1900], start=1))
    queries, k = vectors[1900:], 10

    scores, ids = index_of(rows, 1500).search(queries, k)

    exact = queries @ vectors[:1900].T
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :k], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(exact, ids - 1, 1), scores, atol=1e-6)


@pytest.mark.parametrize(
    ("vectors", "k", "message"),
    [
        (np.zeros((1, DIM), np.float32), 0, "k must be at least 1, got 0"),
        (np.zeros((1, DIM), np.float32), -3, "k must be at least 1, got -3"),
        (np.zeros((1, DIM + 1), np.float32), 1, r"queries are \(1, 9\), this index holds 8-d rows"),
        (np.zeros(DIM, np.float32), 1, r"queries are \(8,\), this index holds 8-d rows"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(vectors: NDArray[np.float32], k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VectorIndex(DIM).search(vectors, k)


@pytest.mark.parametrize(
    ("ids", "shape", "message"),
    [
        ([3], (1, DIM + 1), r"vectors are \(1, 9\), this index holds 8-d rows"),
        ([3, 4], (1, DIM), "2 ids for 1 vectors"),
        ([1], (1, DIM), "embedding 1 is or was in the index"),
        ([2], (1, DIM), "embedding 2 is or was in the index"),
        ([5], (1, DIM), "embedding 5 is or was in the index"),
        ([6, 7], (2, DIM), "embedding 6 is or was in the index"),
        ([7, 8, 8], (3, DIM), r"ids must ascend, each once: \[7, 8, 8\]"),
        ([8, 7], (2, DIM), r"ids must ascend, each once: \[8, 7\]"),
    ],
)
def test_rows_that_make_no_sense_are_refused(ids: list[int], shape: tuple[int, int], message: str) -> None:
    """Rows 1 and 2 are in the segment, 5 and 6 in the tail; 2 and 6 are dead."""
    row = np.ones((1, DIM), np.float32)
    two = np.concatenate([row, row])
    index = VectorIndex.over(DIM, [exact_segment(np.array([1, 2]), two)])
    index = index.with_changes(np.array([5, 6]), two, NOTHING)
    index = index.with_changes(NOTHING, row[:0], np.array([6, 2]))

    with pytest.raises(ValueError, match=message):
        index.with_changes(np.array(ids), np.zeros(shape, np.float32), NOTHING)


def test_queries_in_another_layout_get_the_same_answer(rows: Rows, queries: NDArray[np.float32]) -> None:
    index = index_of(rows, SHAPES["both"])
    wide = np.zeros((len(queries), 2 * DIM), np.float32)
    wide[:, ::2] = queries

    for same in (wide[:, ::2], np.asfortranarray(queries), queries.astype(np.float64)):
        found = index.search(same, 9)  # type: ignore[arg-type]
        assert [part.tolist() for part in found] == [part.tolist() for part in index.search(queries, 9)]


# -- views ---------------------------------------------------------------------------------------------


def test_an_old_view_answers_the_same_after_a_new_one_was_made(
    rows: Rows, queries: NDArray[np.float32]
) -> None:
    index = index_of(rows, SHAPES["both"])
    before = [part.tolist() for part in index.search(queries, N)]
    living = index.living().tolist()

    index.with_changes(np.array([9_000]), np.ones((1, DIM), np.float32), ids_of(rows)[::2])
    index.only(ids_of(rows)[::3])

    assert [part.tolist() for part in index.search(queries, N)] == before
    assert index.living().tolist() == living
    assert (index.count, index.tail_rows) == (N, N // 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_only_leaves_the_rows_it_names(rows: Rows, queries: NDArray[np.float32], shape: str) -> None:
    keep = ids_of(rows)[::3]

    index = index_of(rows, SHAPES[shape]).only(np.append(keep, 1_000_000))

    assert index.living().tolist() == keep.tolist()
    for query in queries:
        (scores,), (ids,) = index.search(query[None], N)
        assert_exact(scores, ids, {i: rows[i] for i in keep.tolist()}, query, N)


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_the_living_ones_with_their_vectors_by_id(rows: Rows, shape: str) -> None:
    dead = ids_of(rows)[::4]
    index = index_of(rows, SHAPES[shape])
    index = index.with_changes(np.array([9_000]), np.full((1, DIM), 0.5, np.float32), dead)

    ids, vectors = index.rows()

    living = {i: row for i, row in rows.items() if i not in dead} | {9_000: np.full(DIM, 0.5, np.float32)}
    assert ids.tolist() == list(living)
    assert np.array_equal(vectors, np.stack(list(living.values())))
    assert vectors.dtype == np.float16 and vectors.flags.c_contiguous


def test_rows_of_an_empty_index_are_none(rows: Rows) -> None:
    gone = index_of(rows, SHAPES["both"]).only(NOTHING)

    for index in (VectorIndex(DIM), gone):
        ids, vectors = index.rows()
        assert (ids.shape, vectors.shape) == ((0,), (0, DIM))


def test_rows_come_and_go_at_random_and_every_view_answers_as_a_dict_would() -> None:
    rng = np.random.default_rng(8)
    index, held, next_id = VectorIndex(DIM), dict[int, NDArray[np.float32]](), 1
    for _ in range(150):
        born = int(rng.integers(0, 5))
        ids = np.arange(next_id, next_id + born)
        vectors = exact_vectors(rng, born)
        dead = [i for i in held if rng.random() < 0.1]
        next_id += born
        index = index.with_changes(ids, vectors, np.array(dead, np.int64))
        held = {i: row for i, row in held.items() if i not in dead} | dict(
            zip(ids.tolist(), vectors, strict=True)
        )
        if rng.random() < 0.1:
            first = int(rng.integers(0, len(index.parts) + 1))
            kept = [part.segment for part in index.parts[:first]]
            index = index.with_segments([*kept, exact_segment(*index.rows(first))])
        query, k = exact_vectors(rng, 1), int(rng.integers(1, 20))
        (scores,), (found,) = index.search(query, k)
        assert_exact(scores, found, held, query[0], k)
        assert index.living().tolist() == list(held)


# -- threads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["segment", "both"])
def test_filtered_searches_of_many_threads_equal_the_serial_answers(
    rows: Rows, queries: NDArray[np.float32], shape: str
) -> None:
    index = index_of(rows, SHAPES[shape])
    rng = np.random.default_rng(10)
    filters = [rng.choice(ids_of(rows), int(rng.integers(1, N)), replace=False) for _ in range(60)]
    started = threading.Barrier(8)

    def answers() -> Iterator[object]:
        for i, allowed in enumerate(filters):
            query = queries[i % len(queries)][None]
            yield [part.tolist() for part in index.search(query, 10, allowed=index.allow(allowed))]

    def in_thread(_: int) -> list[object]:
        started.wait()
        return list(answers())

    serial = list(answers())
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(in_thread, range(8))) == [serial] * 8
