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
from indexer.vectors.segments import read_segment
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

    (link,) = builds.chain(view.collection_id, view.generation.generation_id)
    assert (link.from_seq, link.through_seq) == (0, 1)
    assert {t: (b.rows, b.kind) for t, b in link.builds.items()} == {
        "images": (30, "exact"),
        "texts": (5, "exact"),
    }
    named = [f"{b.file}.{ending}" for b in link.builds.values() for ending in b.files]
    assert names_in(indexes) == sorted(named)
    for target, build in link.builds.items():
        segment = read_segment(indexes, build.file, build.files)
        assert segment.ids.tolist() == view.target(target).vectors.living().tolist()
        assert segments[target].ids.tolist() == segment.ids.tolist()


def test_files_that_were_replaced_stay_a_while_for_who_has_just_read_their_names(
    database: Database, indexes: Path
) -> None:
    view = view_of(database, "shop", images=3, texts=2)
    builds = Builds(database)
    fold(view, indexes, NEVER, builds)
    first = set(names_in(indexes))
    old = time.time() - GRACE_S - 60
    for path in indexes.iterdir():
        os.utime(path, (old, old))

    fold(view, indexes, NEVER, builds)
    assert len(names_in(indexes)) == 8
    for name in first:
        os.utime(indexes / name, (old, old))
    fold(view_of(database, "other", images=1), indexes, NEVER, builds)

    assert not first & set(names_in(indexes))
    assert {name.partition(".")[0] for name in names_in(indexes)} == builds.stems()


def test_a_fold_on_a_full_disk_raises_records_nothing_and_leaves_no_file(
    database: Database, tmp_path: Path
) -> None:
    view = view_of(database, "shop", images=100, texts=3000)  # the images would fit, the texts do not
    with small_disk(tmp_path / "disk", 24_000):
        with pytest.raises(OSError, match=r"No space left|File too large"):
            fold(view, tmp_path / "disk" / "indexes", NEVER, Builds(database))

        assert names_in(tmp_path / "disk" / "indexes") == []
    assert Builds(database).stems() == set()


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
        "9-9-images-1-1.rows.faiss",
        "9-9-images-1-1.ids.npy",
        "9-9-images-1-2.rows.faiss.77.partial",
        "9-9-images-1-3.rows.broken",
        "notes.txt",
    ):
        (indexes / name).touch()
    for path in indexes.iterdir():
        os.utime(path, (time.time() - GRACE_S - 60,) * 2)
    (indexes / "9-9-images-1-4.rows.faiss").touch()  # its row may be on the way

    fold(view_of(database, "third", images=1), indexes, NEVER, builds)

    strangers = {"9-9-images-1-3.rows.broken", "9-9-images-1-4.rows.faiss", "notes.txt"}
    kept = {name for name in names_in(indexes) if name.partition(".")[0] in builds.stems()}
    assert len(kept) == 8 and set(names_in(indexes)) == kept | strangers


@pytest.mark.parametrize(
    ("segment", "tail", "dead", "fold_rows", "worth"),
    [
        (0, 9, 0, 10, False),
        (0, 10, 0, 10, True),
        (20, 9, 0, 10, False),
        (20, 0, 9, 10, False),
        (20, 0, 10, 10, True),
        (100, 9, 10, 10, False),
        (100, 10, 0, 10, True),
        (100, 0, 19, 10, False),
        (100, 0, 20, 10, True),
        (0, 0, 0, 1, False),
    ],
)
def test_a_fold_is_worth_it_when_the_tail_has_fold_rows_or_a_fifth_of_a_segment_has_died(
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
    assert (worth_folding(view, IndexConfig(fold_rows=fold_rows)) is not None) is worth


def test_texts_alone_can_make_a_fold_worth_it(database: Database) -> None:
    view = view_of(database, "shop", images=1, texts=10)

    assert worth_folding(view, IndexConfig(fold_rows=11)) is None
    assert worth_folding(view, IndexConfig(fold_rows=10)) == 0


def test_segments_stay_few_and_each_row_is_folded_a_few_times_only(database: Database, indexes: Path) -> None:
    """A thousand images, ten at a time, with fold_rows 10."""
    shop, generation_id = made(database)
    config = IndexConfig(fold_rows=10)
    live = LiveIndex(database, indexes, config)
    written, most = 0, 0
    rng = np.random.default_rng(0)
    for start in range(0, 1000, 10):
        new = [new_image(f"{i}", row) for i, row in enumerate(exact_vectors(rng, 10), start=start)]
        Images(database).put(shop.collection_id, generation_id, new)
        live.take_up(Collections(database).get("shop"))
        live.fold_due()
        (view,) = live.views()
        written += view.images.vectors.parts[-1].count
        most = max(most, len(view.images.vectors.parts))

    assert view.images.vectors.count == 1000 and view.images.vectors.tail_rows == 0
    assert most <= 4
    assert written <= 12 * 1000


def test_a_process_takes_the_segments_of_another_in_place_of_folding_itself(
    database: Database, indexes: Path
) -> None:
    shop, generation_id = made(database)
    one, other = (LiveIndex(database, indexes, IndexConfig(fold_rows=5)) for _ in range(2))
    rng = np.random.default_rng(0)
    put = [new_image(f"{i}", row) for i, row in enumerate(exact_vectors(rng, 20))]
    Images(database).put(shop.collection_id, generation_id, put)
    one.take_up(shop)
    before = other.take_up(shop)
    one.fold_due()
    files = names_in(indexes)
    Images(database).delete(shop.collection_id, ["3"])
    other.poll()

    other.fold_due()

    after = other.view(Collections(database).get("shop"))
    assert before is not None and after is not None
    assert names_in(indexes) == files
    assert (after.cuts, after.images.vectors.tail_rows, after.images.vectors.count) == ((0, 1), 0, 19)
