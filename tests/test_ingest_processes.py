import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.config import IndexConfig
from indexer.database import Database
from indexer.live import LiveIndex
from indexer.store.collections import Collections
from indexer.store.images import Images
from tests.deadline import wait_for
from tests.drawn import COLOURS, SHAPES
from tests.rows import LIMITS, assert_sound

ROOT = Path(__file__).parent.parent
NAMES = [f"{colour}-{shape}.png" for shape in SHAPES for colour in COLOURS]


MANY = 1500


@pytest.fixture
def command(any_database: Database, tmp_path: Path, tiny: Path, pictures: Path) -> list[str]:
    """`textmm index` of many pictures into `any_database`, with the tiny model and batches of 8."""
    table = tmp_path / "many.csv"
    with table.open("w", newline="") as file:
        rows = [[f"k{i:04}", pictures / NAMES[i % 16], f"number {i}", i % 16] for i in range(MANY)]
        csv.writer(file).writerows([["key", "path", "title", "kind"], *rows])
    config = tmp_path / "config.toml"
    config.write_text(
        f"data = '{tmp_path}/data'\n[model]\nname = '{tiny}'\nthreads = 1\n[ingest]\nbatch_size = 8\n"
    )
    return [
        *(sys.executable, "-m", "search.cli.main", "index", str(table)),
        *("--collection", "shop", "--json", "--config", str(config)),
    ]


def started(command: list[str], database: Database) -> subprocess.Popen[str]:
    environment = {**os.environ, "TEXTMM_DATABASE_URL": database.url, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(command: list[str], database: Database) -> tuple[int, int, list[object]]:
    """(added, unchanged, failed)"""
    process = started(command, database)
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    report = json.loads(out)
    assert report["updated"] == 0
    return report["added"], report["unchanged"], report["failed"]


def there(database: Database) -> int:
    """Pictures in collection `shop`"""
    shop = Collections(database).find("shop")
    return 0 if shop is None else Collections(database).counts(shop.collection_id)[0]


@pytest.mark.slow
def test_an_indexing_process_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing(
    any_database: Database, command: list[str]
) -> None:
    held = 0
    for more in (1, 100, 333):
        with started(command, any_database) as process:
            wait_for(lambda more=more, held=held: there(any_database) >= held + more)  # type: ignore[misc]
            process.kill()
        assert process.returncode == -signal.SIGKILL
        held = there(any_database)
        assert held < MANY and held % 8 == 0  # batches are whole
        assert_sound(any_database)

    assert finished(command, any_database) == (MANY - held, held, [])
    assert finished(command, any_database) == (0, MANY, [])

    assert_sound(any_database)
    shop = Collections(any_database).get("shop")
    keys = [i.key for i in Images(any_database).page(shop.collection_id, limit=2 * MANY)]
    assert keys == [f"k{i:04}" for i in range(MANY)]
    assert Collections(any_database).counts(shop.collection_id) == (MANY, MANY)


@pytest.mark.slow
def test_a_live_index_sees_the_collection_grow_while_another_process_indexes(
    any_database: Database, command: list[str], tmp_path: Path
) -> None:
    live = LiveIndex(any_database, tmp_path / "other", IndexConfig(fold_rows=200))
    seen: list[int] = []

    def look() -> bool:
        live.poll()
        live.fold_due()
        shop = Collections(any_database).find("shop")
        view = None if shop is None else live.view(shop)
        seen.append(0 if view is None else view.images.vectors.count)
        return seen[-1] == MANY

    with started(command, any_database) as process:
        wait_for(look, timeout_s=120)
        _, said = process.communicate()

    assert process.returncode == 0, said
    assert seen == sorted(seen)
    assert len(set(seen)) > 5
    assert all(count % 8 == 0 for count in seen if count < MANY)  # whole batches only


@pytest.mark.slow
def test_two_processes_that_index_the_same_source_at_once_put_everything_in_once(
    any_database: Database, command: list[str]
) -> None:
    Collections(any_database).create("shop", is_bank=False, limits=LIMITS)

    processes = [started(command, any_database) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], said
    assert there(any_database) == MANY
    assert_sound(any_database)
