"""The files of an approximate index, from a collection large enough to have one: published, read, corrupt, mended."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import update

from indexer.config import IndexConfig
from indexer.database import Database
from indexer.fsck import Fsck
from indexer.live import LiveIndex, View
from indexer.store.collections import Collection, Collections
from indexer.store.images import Images
from indexer.tables import index_build
from indexer.vectors.codes import codes_over
from indexer.vectors.segments import (
    APPROXIMATE,
    CODES,
    IDS,
    ROWS,
    add_rows,
    delete_segment,
    write_segment,
)
from tests.rows import made, new_image
from tests.test_choice import DIM, clustered

CONFIG = IndexConfig(kind="lists", recall=0.9)
ROWS_OF = clustered(3000, 0.2)


@pytest.fixture
def shop(any_database: Database) -> Collection:
    collection, generation_id = made(any_database, dim=DIM)
    images = [new_image(f"k{i}", row) for i, row in enumerate(ROWS_OF)]
    Images(any_database).put(collection.collection_id, generation_id, images)
    return Collections(any_database).get(collection.name)


@pytest.fixture
def data(any_database: Database, shop: Collection, tmp_path: Path) -> Path:
    live = LiveIndex(any_database, tmp_path / "indexes", CONFIG)
    live.view(shop)
    live.fold(shop.collection_id)
    return tmp_path


def opened(database: Database, data: Path, shop: Collection) -> tuple[LiveIndex, View]:
    live = LiveIndex(database, data / "indexes", CONFIG)
    view = live.view(shop)
    assert view is not None
    return live, view


def found(view: View) -> NDArray[np.int64]:
    ids: NDArray[np.int64] = view.images.search(ROWS_OF[:40], 10)[1]
    return ids


def ending(data: Path, name: str) -> Path:
    (path,) = (
        path for path in (data / "indexes").iterdir() if "-images-" in path.name and path.name.endswith(name)
    )
    return path


def test_all_files_of_an_index_with_codes_are_published_and_read(
    any_database: Database, shop: Collection, data: Path
) -> None:
    (part,) = opened(any_database, data, shop)[1].images.vectors.parts

    assert (part.segment.kind, part.segment.count) == ("lists", 3000)
    assert (
        part.segment.codes is not None
        and part.segment.codes.ntotal == part.segment.approximate.ntotal == 3000
    )
    assert all(ending(data, name).exists() for name in (IDS, ROWS, CODES, APPROXIMATE))
    assert list(Fsck(any_database, data, CONFIG).check()) == []


@pytest.mark.parametrize("name", [CODES, APPROXIMATE])
@pytest.mark.parametrize("harm", ["truncated", "one bit", "gone"])
def test_a_corrupt_file_of_it_is_told_answers_stay_exact_and_the_next_fold_mends_it(
    any_database: Database, shop: Collection, data: Path, name: str, harm: str
) -> None:
    before = found(opened(any_database, data, shop)[1])
    path = ending(data, name)
    if harm == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content[: len(content) // 2] if harm == "truncated" else content)

    (told,) = Fsck(any_database, data, CONFIG).check()
    live, view = opened(any_database, data, shop)

    assert path.name in str(told)
    assert view.images.vectors.count == 3000 and not path.exists()
    exact = view.images.vectors.exactly().search(ROWS_OF[:40], 10)[1]
    assert np.array_equal(found(view), exact)
    assert (before == exact).mean() > 0.9
    live.fold(shop.collection_id)
    assert list(Fsck(any_database, data, CONFIG).check()) == []
    assert opened(any_database, data, shop)[1].images.vectors.parts[0].segment.kind == "lists"


def test_an_index_with_fewer_codes_than_rows_is_told(
    any_database: Database, shop: Collection, data: Path
) -> None:
    view = opened(any_database, data, shop)[1]
    (part,) = view.images.vectors.parts
    fewer = codes_over(part.segment.halves)
    add_rows(fewer, part.segment.halves[:2990])
    stem = ending(data, CODES).name.partition(".")[0]
    delete_segment(data / "indexes", stem)
    files = write_segment(replace(part.segment, codes=fewer), data / "indexes", stem)
    with any_database.write() as connection:
        connection.execute(update(index_build).where(index_build.c.file == stem).values(files=files))

    (told,) = Fsck(any_database, data, CONFIG).check()

    assert "has 2990 codes, and 3000 rows" in told.what
