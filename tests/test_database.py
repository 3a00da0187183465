import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from indexer.database import IMPORT_CACHE_KIB, PAGE_CACHE_KIB, Database
from indexer.errors import DatabaseTooOld
from indexer.store.collections import Collections
from indexer.tables import collection
from tests.full_disk import small_disk
from tests.rows import LIMITS, made

UPGRADE = """
import sys
from indexer.database import Database
database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
database.upgrade()
database.check()
"""

DIE_WHILE_WRITING = """
import os, signal, sys
from sqlalchemy import text
from indexer.database import Database
with Database(sys.argv[1]).write() as connection:
    connection.execute(text("UPDATE collection SET name = 'half'"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_upgrading_twice_is_harmless_and_keeps_what_is_there(bare_url: str) -> None:
    database = Database(bare_url)

    database.upgrade()
    Collections(database).create("shop", is_bank=False, limits=LIMITS)
    database.upgrade()

    database.check()
    assert [c.name for c in Collections(database).all()] == ["shop"]
    database.close()


@pytest.mark.parametrize("kib", [PAGE_CACHE_KIB, IMPORT_CACHE_KIB])
def test_a_connection_keeps_as_many_pages_as_it_is_told(tmp_path: Path, kib: int) -> None:
    database = Database(f"sqlite:///{tmp_path}/textmm.sqlite", page_cache_kib=kib)

    with database.read() as connection:
        assert connection.scalar(text("PRAGMA cache_size")) == -kib
    database.close()


@pytest.mark.slow
def test_processes_that_upgrade_at_once_all_succeed(bare_url: str) -> None:
    command = [sys.executable, "-c", UPGRADE, bare_url]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"

    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0, 0], said


@pytest.mark.slow
def test_threads_that_open_a_fresh_sqlite_file_at_once_all_succeed(tmp_path: Path) -> None:
    """SQLite itself does not wait for others while it turns a file's write-ahead log on."""
    started = threading.Barrier(6)

    def open_fresh(url: str) -> object:
        database = Database(url)
        started.wait()
        with database.write() as connection:
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        database.close()
        return mode

    with ThreadPoolExecutor(6) as pool:
        for i in range(120):
            assert list(pool.map(open_fresh, [f"sqlite:///{tmp_path}/{i}.sqlite"] * 6)) == ["wal"] * 6


def test_a_database_without_tables_is_refused_with_the_command_that_makes_them(bare_url: str) -> None:
    database = Database(bare_url)

    with pytest.raises(
        DatabaseTooOld, match=r"at schema none, this version needs \d+: run `textmm db upgrade`"
    ):
        database.check()
    database.close()


def test_a_database_at_another_schema_is_refused_with_both_numbers(any_database: Database) -> None:
    with any_database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))

    with pytest.raises(DatabaseTooOld, match=r"at schema 0000, this version needs \d{4}: run"):
        any_database.check()


def test_a_write_that_raises_leaves_nothing(any_database: Database) -> None:
    made(any_database, "before")

    with pytest.raises(KeyError, match="in the middle"), any_database.write() as connection:
        connection.execute(collection.update().values(name="after"))
        raise KeyError("in the middle")

    assert [c.name for c in Collections(any_database).all()] == ["before"]


@pytest.mark.slow
def test_a_process_that_is_killed_in_a_write_leaves_nothing(any_database: Database) -> None:
    made(any_database, "before")

    died = subprocess.run([sys.executable, "-c", DIE_WHILE_WRITING, any_database.url], capture_output=True)

    assert died.returncode == -9, died.stderr
    assert [c.name for c in Collections(any_database).all()] == ["before"]
    made(any_database, "next")  # and no lock stays behind


def test_a_write_on_a_full_disk_raises_and_leaves_what_was_there(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1_000_000):
        database = Database(f"sqlite:///{tmp_path}/disk/textmm.sqlite")
        database.upgrade()
        made(database, "before")

        with (
            pytest.raises(OperationalError, match=r"disk (is full|I/O error)"),
            database.write() as connection,
        ):
            connection.execute(collection.update().values(caption_style="x" * 3_000_000))

        assert [(c.name, c.caption_style) for c in Collections(database).all()] == [("before", None)]
        database.close()


def test_every_sqlite_connection_has_a_write_ahead_log_and_checks_foreign_keys(database: Database) -> None:
    with database.read() as first, database.read() as second, database.write() as third:
        found = [
            tuple(c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "foreign_keys"))
            for c in (first, second, third)
        ]

    assert found == [("wal", 1)] * 3


def test_a_reader_is_not_blocked_by_a_writer_and_sees_what_was_committed(any_database: Database) -> None:
    made(any_database, "before")
    impatient = Database(any_database.url, busy_timeout_s=0.0)

    with any_database.write() as connection:
        connection.execute(collection.update().values(name="after"))
        seen = [c.name for c in Collections(impatient).all()]

    assert seen == ["before"]
    assert [c.name for c in Collections(impatient).all()] == ["after"]
    impatient.close()


def test_a_read_sees_one_state_from_its_first_look_to_its_end(any_database: Database) -> None:
    made(any_database, "before")
    names = select(collection.c.name)

    with any_database.read() as reader:
        first = reader.scalars(names).all()
        with any_database.write() as writer:
            writer.execute(collection.update().values(name="after"))
        second = reader.scalars(names).all()

    assert (first, second) == (["before"], ["before"])
    with any_database.read() as reader:
        assert reader.scalars(names).all() == ["after"]


def test_a_writer_waits_for_another(any_database: Database) -> None:
    made(any_database)
    add_one = collection.update().values(change_seq=collection.c.change_seq + 1)
    started = threading.Barrier(8)

    def write() -> None:
        started.wait()
        with any_database.write() as connection:
            connection.execute(add_one)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(write) for _ in range(8)]:
            done.result()

    assert Collections(any_database).get("shop").change_seq == 8


def test_a_writer_that_may_not_wait_is_told_that_the_database_is_locked(database: Database) -> None:
    impatient = Database(database.url, busy_timeout_s=0.0)

    with database.write(), pytest.raises(OperationalError, match="database is locked"), impatient.write():
        pass
    impatient.close()
