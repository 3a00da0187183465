import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from indexer.files import GRACE_S, Blobs
from tests.full_disk import small_disk


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def files_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def make_old(folder: Path, age_s: float) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - age_s,) * 2)


def test_bytes_come_back_under_their_sha256(blobs: Blobs) -> None:
    digests = [blobs.put(data) for data in (b"", b"abc", bytes(300_000))]

    assert digests == [sha256(data).hexdigest() for data in (b"", b"abc", bytes(300_000))]
    assert [blobs.get(digest) for digest in digests] == [b"", b"abc", bytes(300_000)]


def test_bytes_put_twice_are_one_file_that_is_young_again(blobs: Blobs, tmp_path: Path) -> None:
    digest = blobs.put(b"abc")
    make_old(tmp_path, 10 * GRACE_S)

    assert blobs.put(b"abc") == digest

    assert files_in(tmp_path) == [digest]
    assert blobs.sweep(set()) == 0


def test_bytes_that_were_never_put_are_not_found(blobs: Blobs) -> None:
    with pytest.raises(FileNotFoundError, match="No such file"):
        blobs.get("0" * 64)


def test_a_sweep_takes_what_is_old_and_unused_and_nothing_else(blobs: Blobs, tmp_path: Path) -> None:
    used, unused = blobs.put(b"used"), blobs.put(b"unused")
    leftover = tmp_path / "blobs" / unused[:2] / f"{'0' * 64}.77.1.partial"  # of a process that was killed
    leftover.write_bytes(b"half")
    make_old(tmp_path, GRACE_S + 60)
    young = blobs.put(b"young")

    gone = blobs.sweep({used})

    assert gone == 2
    assert files_in(tmp_path) == sorted([used, young])


def test_a_sweep_of_a_folder_that_is_not_there_finds_nothing(blobs: Blobs) -> None:
    assert blobs.sweep(set()) == 0


def test_sweeps_at_the_same_time_do_not_trip_over_each_other(blobs: Blobs, tmp_path: Path) -> None:
    for i in range(1500):
        blobs_path = tmp_path / "blobs" / f"{i % 7:02x}"
        blobs_path.mkdir(parents=True, exist_ok=True)
        (blobs_path / f"{i:064x}").touch()
    make_old(tmp_path, 2 * GRACE_S)
    started = threading.Barrier(4)

    def sweep() -> int:
        started.wait()
        return Blobs(tmp_path / "blobs").sweep(set())

    with ThreadPoolExecutor(4) as pool:
        gone = [done.result() for done in [pool.submit(sweep) for _ in range(4)]]

    assert files_in(tmp_path) == []
    assert sum(gone) == 1500


def test_a_full_disk_is_an_error_and_leaves_neither_the_blob_nor_a_part_of_it(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64_000):
        blobs = Blobs(tmp_path / "disk" / "blobs")
        small = blobs.put(b"small")

        with pytest.raises(OSError, match=r"No space left|File too large"):
            blobs.put(os.urandom(200_000))

        assert files_in(tmp_path) == [small]
        assert blobs.get(small) == b"small"


def test_threads_that_put_the_same_bytes_at_once_leave_one_whole_file(blobs: Blobs, tmp_path: Path) -> None:
    started = threading.Barrier(8)
    data = os.urandom(500_000)

    def put() -> str:
        started.wait()
        return blobs.put(data)

    with ThreadPoolExecutor(8) as pool:
        digests = {done.result() for done in [pool.submit(put) for _ in range(8)]}

    assert digests == {sha256(data).hexdigest()}
    assert files_in(tmp_path) == [sha256(data).hexdigest()]
    assert blobs.get(digests.pop()) == data
