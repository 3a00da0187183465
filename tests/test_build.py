import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import IntegrityError

from indexer.build import fold, worth_folding
from indexer.config import IndexConfig
from indexer.database import Database
from indexer.files import GRACE_S
from indexer.live import LiveIndex, View
from indexer.store.builds import Builds
from indexer.store.collections import Collections
from indexer.store.images import Images
from indexer.vectors.index import read_segment
from tests.full_disk import small_disk
from tests.rows import DIM, exact_vectors, made, new_image

ONE = np.eye(DIM, dtype=np.float32)
NEVER = IndexConfig(fold_rows=10**9)


@pytest.fixture
def indexes(tmp_path: Path) -> Path:
    return tmp_path / "indexes"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def view_of(database: Database, name: str, *, images: int, texts: int = 0) -> View:
    """A fresh view of a new collection of so many images, the first of which has all the texts."""
    collection, generation_id = made(database, name)
    rng = np.random.default_rng(1)
    new = [new_image(f"{i}", vector) for i, vector in enumerate(exact_vectors(rng, images))]
    if texts:
        said = {f"text {i}": vector for i, vector in enumerate(exact_vectors(rng, texts))}
        new[0] = new_image("0", ONE[0], texts=said)
    Images(database).put(collection.collection_id, generation_id, new)
    view = LiveIndex(database, Path("/nowhere"), NEVER).view(Collections(database).get(name))
    assert view is not None
    return view


def test_a_fold_writes_the_living_rows_to_files_and_then_records_them(
    database: Database, indexes: Path
) -> None:
    view = view_of(database, "shop", images=30, texts=5)
    builds = Builds(database)

    segments = fold(view, indexes, NEVER, builds)

    ids = (view.collection_id, view.generation.generation_id)
    latest = {target: builds.latest(*ids, target) for target in segments}
    assert {t: (b.rows, b.through_seq, dict(b.settings)) for t, b in latest.items() if b is not None} == {
        "images": (30, 1, {"factory": "Flat"}),
        "texts": (5, 1, {"factory": "Flat"}),
    }
    assert names_in(indexes) == sorted(b.file for b in latest.values() if b is not None)
    for target, build in latest.items():
        assert build is not None
        path = indexes / build.file
        assert hashlib.sha256(path.read_bytes()).hexdigest() == build.sha256
        assert read_segment(path, build.sha256).ids.tolist() == view.target(target).vectors.living().tolist()


def test_the_last_two_builds_keep_their_files(database: Database, indexes: Path) -> None:
    view = view_of(database, "shop", images=3, texts=2)
    other = view_of(database, "other", images=3, texts=2)
    builds = Builds(database)
    fold(other, indexes, NEVER, builds)
    listed = []

    for _ in range(4):
        fold(view, indexes, NEVER, builds)
        listed.append(len(names_in(indexes)))

    assert listed == [4, 6, 6, 6]
    assert set(names_in(indexes)) == builds.files()


def test_a_fold_on_a_full_disk_raises_records_nothing_and_leaves_no_file(
    database: Database, tmp_path: Path
) -> None:
    view = view_of(database, "shop", images=100, texts=3000)  # the images would fit, the texts do not
    with small_disk(tmp_path / "disk", 64_000):
        with pytest.raises(OSError, match=r"No space left|File too large"):
            fold(view, tmp_path / "disk" / "indexes", NEVER, Builds(database))

        assert names_in(tmp_path / "disk" / "indexes") == []
    assert Builds(database).files() == set()


def test_a_fold_of_a_collection_that_was_deleted_meanwhile_leaves_no_file(
    any_database: Database, indexes: Path
) -> None:
    view = view_of(any_database, "shop", images=3)
    Collections(any_database).delete("shop")

    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        fold(view, indexes, NEVER, Builds(any_database))

    assert names_in(indexes) == []


def test_a_fold_takes_away_old_files_that_no_build_refers_to(database: Database, indexes: Path) -> None:
    """Those of a process that was killed between file and row, and those of collections that are gone."""
    gone, view = view_of(database, "gone", images=3), view_of(database, "shop", images=3)
    builds = Builds(database)
    fold(gone, indexes, NEVER, builds)
    fold(view, indexes, NEVER, builds)
    Collections(database).delete("gone")
    for name in (
        "9-9-images-1-1.faiss",
        "9-9-images-1-2.faiss.77.partial",
        "9-9-images-1-3.broken",
        "notes.txt",
    ):
        (indexes / name).touch()
    for path in indexes.iterdir():
        os.utime(path, (time.time() - GRACE_S - 60,) * 2)
    (indexes / "9-9-images-1-4.faiss").touch()  # its row may be on the way

    fold(view, indexes, NEVER, builds)

    strangers = {"9-9-images-1-3.broken", "9-9-images-1-4.faiss", "notes.txt"}
    assert set(names_in(indexes)) == builds.files() | strangers


@pytest.mark.parametrize(
    ("segment", "tail", "dead", "fold_rows", "worth"),
    [
        (0, 9, 0, 10, False),
        (0, 10, 0, 10, True),
        (20, 9, 0, 10, False),
        (20, 5, 5, 10, True),
        (20, 0, 9, 10, False),
        (20, 0, 10, 10, True),
        (100, 19, 0, 10, False),
        (100, 20, 0, 10, True),
        (100, 10, 10, 10, True),
        (0, 0, 0, 1, False),
    ],
)
def test_a_fold_is_worth_it_when_tail_and_dead_rows_are_fold_rows_and_a_fifth_of_the_segment(
    database: Database, tmp_path: Path, segment: int, tail: int, dead: int, fold_rows: int, worth: bool
) -> None:
    shop, generation_id = made(database)
    images = Images(database)
    live = LiveIndex(database, tmp_path, NEVER)
    live.view(shop)
    images.put(shop.collection_id, generation_id, [new_image(f"s{i}", ONE[0]) for i in range(segment)])
    live.take_up(shop)
    if segment:
        live.fold(shop.collection_id)
    images.put(shop.collection_id, generation_id, [new_image(f"t{i}", ONE[0]) for i in range(tail)])
    images.delete(shop.collection_id, [f"s{i}" for i in range(dead)])

    view = live.take_up(shop)

    assert view is not None
    assert worth_folding(view, IndexConfig(fold_rows=fold_rows)) is worth


def test_texts_alone_can_make_a_fold_worth_it(database: Database) -> None:
    view = view_of(database, "shop", images=1, texts=10)

    assert not worth_folding(view, IndexConfig(fold_rows=11))
    assert worth_folding(view, IndexConfig(fold_rows=10))
