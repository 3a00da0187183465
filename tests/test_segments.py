"""Segments on disk, and the traps of FAISS that they close."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.vectors.choice import build_segment
from indexer.vectors.index import VectorIndex
from indexer.vectors.options import BuildOptions
from indexer.vectors.segments import (
    APPROXIMATE,
    CODES,
    IDS,
    ROWS,
    IndexFileBroken,
    Segment,
    delete_segment,
    exact_segment,
    faiss_threads,
    read_segment,
    write_segment,
)
from tests.full_disk import small_disk
from tests.rows import DIM, exact_vectors, overlap
from tests.test_choice import clustered

NOTHING = np.empty(0, np.int64)
N = 300


def segment_of(n: int, seed: int = 9) -> Segment:
    return exact_segment(np.arange(n) * 3 + 2**40, exact_vectors(np.random.default_rng(seed), n))


@pytest.mark.parametrize("n", [0, 1, N])
def test_a_segment_that_is_read_back_is_the_one_that_was_written(tmp_path: Path, n: int) -> None:
    segment = segment_of(n)

    files = write_segment(segment, tmp_path, "a")

    again = read_segment(tmp_path, "a", files)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ids.npy", "a.rows.faiss"]
    assert files == {e: hashlib.sha256((tmp_path / f"a.{e}").read_bytes()).hexdigest() for e in (IDS, ROWS)}
    assert again.count == n
    assert np.array_equal(again.ids, segment.ids) and np.array_equal(again.halves, segment.halves)


def test_a_segment_that_is_read_is_mapped_and_not_copied(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40_000, 128)).astype(np.float32)
    files = write_segment(exact_segment(np.arange(1, 40_001), rows), tmp_path, "a")
    before = own_memory()

    segment = read_segment(tmp_path, "a", files)
    segment.search_exact(rows[:3], 10)

    assert own_memory() - before < 2_000_000 < segment.halves.nbytes


def own_memory() -> int:
    """Bytes of this process that no file is behind."""
    with Path("/proc/self/status").open() as file:
        (line,) = [line for line in file if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def test_deleting_a_segment_takes_all_its_files_and_a_reader_reads_on(tmp_path: Path) -> None:
    segment = segment_of(N)
    again = read_segment(tmp_path, "a", write_segment(segment, tmp_path, "a"))
    query = exact_vectors(np.random.default_rng(1), 1)

    delete_segment(tmp_path, "a")
    delete_segment(tmp_path, "a")

    assert list(tmp_path.iterdir()) == []
    assert again.search_exact(query, 5)[1].tolist() == segment.search_exact(query, 5)[1].tolist()


def test_a_graph_that_is_done_with_gives_its_files_back(tmp_path: Path) -> None:
    rows = clustered(3000, 1.0)
    built = build_segment(np.arange(1, 3001), rows, BuildOptions(kind="graph"))
    again = read_segment(tmp_path, "a", write_segment(built, tmp_path, "a"), built.tuning)
    found = again.search_approximate(rows[:5], 3, 64)[1]
    assert np.array_equal(found, built.search_approximate(rows[:5], 3, 64)[1])
    assert str(tmp_path) in Path("/proc/self/maps").read_text()

    del again

    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


@pytest.fixture
def written(tmp_path: Path) -> dict[str, str]:
    built = build_segment(np.arange(1, 3001), clustered(3000, 0.2), BuildOptions(kind="lists"))
    return write_segment(built, tmp_path, "a")


@pytest.mark.parametrize("ending", [IDS, ROWS, CODES, APPROXIMATE])
def test_a_truncated_file_is_broken(tmp_path: Path, written: dict[str, str], ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(IndexFileBroken, match=rf"{path.name} has sha256 .*, published was "):
        read_segment(tmp_path, "a", written)


@pytest.mark.parametrize("ending", [IDS, ROWS, CODES, APPROXIMATE])
def test_a_file_with_one_wrong_bit_is_broken(tmp_path: Path, written: dict[str, str], ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)

    with pytest.raises(IndexFileBroken, match=rf"{path.name} has sha256 .*, published was "):
        read_segment(tmp_path, "a", written)


def test_a_file_that_faiss_would_load_but_we_did_not_publish_is_broken(
    tmp_path: Path, written: dict[str, str]
) -> None:
    path = tmp_path / f"a.{ROWS}"
    strange = faiss.IndexFlatIP(DIM)
    strange.add(np.ones((1, DIM), np.float32))
    faiss.write_index(strange, str(path))

    assert faiss.read_index(str(path)).ntotal == 1  # the trap
    with pytest.raises(IndexFileBroken, match=r"a\.rows\.faiss has sha256 .*, published was "):
        read_segment(tmp_path, "a", written)


def test_a_file_that_is_not_there_or_no_file_is_broken(tmp_path: Path, written: dict[str, str]) -> None:
    (tmp_path / f"a.{IDS}").unlink()
    with pytest.raises(IndexFileBroken, match=r"a\.ids\.npy cannot be read: No such file"):
        read_segment(tmp_path, "a", written)
    (tmp_path / f"a.{IDS}").mkdir()
    with pytest.raises(IndexFileBroken, match="cannot be read: Is a directory"):
        read_segment(tmp_path, "a", written)


def test_a_full_disk_is_an_error_and_leaves_the_old_files_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64_000):
        files = write_segment(segment_of(3), tmp_path / "disk", "a")

        with pytest.raises(OSError, match=r"No space left|File too large"):
            write_segment(segment_of(3_000), tmp_path / "disk", "b")

        left = sorted(p.name for p in (tmp_path / "disk").iterdir())
        assert left == ["a.ids.npy", "a.rows.faiss"]
        assert read_segment(tmp_path / "disk", "a", files).count == 3


# -- traps of faiss itself, and ours beside them -----------------------------------------------------------


@pytest.fixture
def bare() -> faiss.IndexIDMap2:
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(DIM))
    index.add_with_ids(np.eye(DIM, dtype=np.float32)[:3], np.array([1, 2, 3]))
    return index


def ours() -> VectorIndex:
    return VectorIndex.over(DIM, [exact_segment(np.array([1, 2, 3]), np.eye(DIM, dtype=np.float32)[:3])])


def test_faiss_pads_a_short_answer_and_we_do_not(bare: faiss.IndexIDMap2) -> None:
    scores, ids = bare.search(np.eye(DIM, dtype=np.float32)[:1], 5)

    assert (ids[0, 3:].tolist(), scores[0, 3] < -3e38) == ([-1, -1], True)
    assert ours().search(np.eye(DIM, dtype=np.float32)[:1], 5)[1].tolist() == [[1, 2, 3]]


def test_faiss_takes_an_id_twice_and_we_do_not(bare: faiss.IndexIDMap2) -> None:
    row = np.ones((1, DIM), np.float32)

    bare.add_with_ids(row, np.array([1]))

    assert bare.search(row, 4)[1][0].tolist().count(1) == 2
    with pytest.raises(ValueError, match="embedding 1 is or was in the index"):
        ours().with_changes(np.array([1]), row, NOTHING)


@pytest.mark.parametrize(("dim", "k"), [(DIM, 0), (DIM + 1, 1)])
def test_faiss_refuses_without_a_word_and_we_say_what_is_wrong(
    bare: faiss.IndexIDMap2, dim: int, k: int
) -> None:
    with pytest.raises(AssertionError, match=r"^$"):
        bare.search(np.zeros((1, dim), np.float32), k)
    with pytest.raises(ValueError, match=r"k must be at least 1|this index holds 8-d rows"):
        VectorIndex(DIM).search(np.zeros((1, dim), np.float32), k)


def test_faiss_has_kinds_that_cannot_delete_and_a_dead_row_is_gone_from_ours_all_the_same() -> None:
    hnsw = faiss.IndexHNSWFlat(DIM, 8, faiss.METRIC_INNER_PRODUCT)
    hnsw.add(np.ones((3, DIM), np.float32))

    with pytest.raises(RuntimeError, match="remove_ids not implemented"):
        hnsw.remove_ids(np.array([1]))  # type: ignore[arg-type]
    index = ours().with_changes(NOTHING, np.empty((0, DIM), np.float32), np.array([2]))
    assert index.search(np.ones((1, DIM), np.float32), 3)[1].tolist() == [[1, 3]]


def test_faiss_keeps_the_number_of_threads_a_thread_and_so_do_we() -> None:
    """A number that is set at the start of a process says nothing to the threads that answer requests."""
    said: list[int] = []

    def ask() -> None:
        said.append(faiss.omp_get_max_threads())
        with faiss_threads(3):
            said.append(faiss.omp_get_max_threads())
            with faiss_threads(1):
                said.append(faiss.omp_get_max_threads())
            said.append(faiss.omp_get_max_threads())

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(before + 5)
    try:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    finally:
        faiss.omp_set_num_threads(before)

    assert said[0] != before + 5  # the trap
    assert said[1:] == [3, 1, 3]


def test_faiss_looks_through_one_list_by_default(rng_rows: NDArray[np.float32]) -> None:
    index = faiss.index_factory(32, "IVF64,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(rng_rows)
    index.add(rng_rows)
    exact = np.argsort(-(rng_rows[:100] @ rng_rows.T), axis=1)[:, :10]

    found = index.search(rng_rows[:100], 10)[1]

    right = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True))
    assert right / 1000 < 0.6  # the trap; ours: tests/test_index_kinds.py


@pytest.fixture
def rng_rows() -> NDArray[np.float32]:
    rows = np.random.default_rng(0).normal(size=(4000, 32)).astype(np.float32)
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


SHARED_PARAMETERS = """
import threading
import faiss, numpy as np
faiss.omp_set_num_threads(1)
rng = np.random.default_rng(0)
index = faiss.IndexIDMap2(faiss.IndexFlatIP(32))
index.add_with_ids(rng.normal(size=(20_000, 32)).astype(np.float32), np.arange(20_000))
query = rng.normal(size=(1, 32)).astype(np.float32)
parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(np.arange(0, 20_000, 7)))
started = threading.Barrier(8)
def search():
    started.wait()
    for _ in range(200):
        index.search(query, 10, params=parameters)
threads = [threading.Thread(target=search) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.slow
def test_faiss_crashes_when_threads_share_the_parameters_of_a_filtered_search() -> None:
    codes = (
        subprocess.run([sys.executable, "-c", SHARED_PARAMETERS], capture_output=True).returncode
        for _ in range(5)  # on a busy machine threads may happen not to meet
    )

    assert any(code < 0 for code in codes), "fixed in faiss? Then VectorIndex may share them"


def test_faiss_looks_through_one_list_unless_told_and_ours_is_told_with_every_search() -> None:
    rows = clustered(3000, 1.0)
    bare: Any = faiss.index_factory(rows.shape[1], "IVF64,Flat", faiss.METRIC_INNER_PRODUCT)
    bare.train(rows)
    bare.add(rows)
    built = build_segment(np.arange(1, 3001), rows, BuildOptions(kind="lists"))
    exact = built.search_exact(rows[:50], 10)[1]
    before = built.approximate.nprobe

    assert bare.nprobe == 1 and overlap(bare.search(rows[:50], 10)[1], exact) < 0.9  # the trap
    assert overlap(built.search_approximate(rows[:50], 10, built.approximate.nlist)[1], exact) > 0.95
    assert overlap(built.search_approximate(rows[:50], 10, 1)[1], exact) < 0.95
    assert built.approximate.nprobe == before  # nothing is set on the index, which other threads use


def test_faiss_gives_no_vector_back_from_lists_and_ours_lie_beside_them() -> None:
    rows = clustered(3000, 1.0)
    bare: Any = faiss.IndexIDMap2(
        faiss.index_factory(rows.shape[1], "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
    )
    bare.train(rows)
    bare.add_with_ids(rows, np.arange(3000))
    built = build_segment(np.arange(1, 3001), rows, BuildOptions(kind="lists"))

    with pytest.raises(RuntimeError, match="direct map"):
        bare.reconstruct(5)
    (at,) = built.positions(np.array([6]))
    assert np.array_equal(built.halves[at].astype(np.float32), rows[5])


def test_rows_are_never_added_to_an_index_that_is_searched() -> None:
    """FAISS lets readers share an index, and nobody write to it: ours grows beside it."""
    rows = clustered(3000, 1.0)
    index = VectorIndex.over(
        rows.shape[1], [build_segment(np.arange(1, 3001), rows, BuildOptions(kind="lists"))]
    )
    (part,) = index.parts

    grown = index.with_changes(np.arange(4000, 4010), rows[:10], NOTHING)

    assert grown.parts[0].segment is part.segment and part.segment.approximate.ntotal == 3000
    assert (index.count, grown.count, grown.tail_rows) == (3000, 3010, 10)
