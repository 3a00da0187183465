import os
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import IntegrityError

from indexer.config import IndexConfig
from indexer.database import Database
from indexer.live import LiveIndex
from indexer.store.builds import Builds
from indexer.store.collections import Collections
from tests.rows import exact_vectors, new_image
from tests.shop import NEVER, ONE, SOON, Shop

ROOT = Path(__file__).parent.parent


@pytest.fixture
def indexes(tmp_path: Path) -> Path:
    return tmp_path / "indexes"


@pytest.fixture
def shop(any_database: Database) -> Shop:
    return Shop(any_database)


def test_a_collection_without_a_picture_ever_has_no_view(any_database: Database, indexes: Path) -> None:
    empty = Collections(any_database).create("empty", is_bank=False, limits={})
    live = LiveIndex(any_database, indexes, NEVER)

    assert live.view(empty) is None
    assert live.take_up(empty) is None
    live.poll()
    live.fold_due()


def test_a_view_is_of_all_that_is_committed_when_it_is_first_asked_for(shop: Shop, indexes: Path) -> None:
    shop.put_some(np.random.default_rng(1), range(40))
    shop.delete("3", "4")

    view = LiveIndex(shop.database, indexes, NEVER).view(shop.collection)

    shop.assert_answers(view)
    assert view is not None and (view.through_seq, view.folded_seq) == (2, 0)


@pytest.mark.parametrize("folds", [False, True])
def test_what_another_database_object_wrote_is_taken_up(shop: Shop, indexes: Path, folds: bool) -> None:
    rng = np.random.default_rng(2)
    reader = Database(shop.database.url)
    live = LiveIndex(reader, indexes, SOON if folds else NEVER)
    shop.put_some(rng, range(20))
    live.view(shop.collection)

    shop.put_some(rng, range(15, 30))
    shop.delete("1", "16")
    live.poll()
    live.fold_due()

    shop.assert_answers(live.view(shop.collection))
    reader.close()


def test_a_view_that_nobody_brought_up_to_date_stays_as_it_is(shop: Shop, indexes: Path) -> None:
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put(new_image("1", ONE[0]))
    before = live.view(shop.collection)

    shop.put(new_image("2", ONE[1]))

    assert live.view(shop.collection) is before
    assert before is not None and before.images.vectors.count == 1


def test_deleted_pictures_vanish_from_images_and_texts(shop: Shop, indexes: Path) -> None:
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put(*(new_image(k, ONE[0], texts={f"{k}!": ONE[1]}, attributes={"n": 0}) for k in "abc"))
    live.view(shop.collection)

    shop.delete("b")

    shop.assert_answers(live.take_up(shop.collection))


def test_an_old_view_answers_the_same_after_changes_and_folds(shop: Shop, indexes: Path) -> None:
    rng = np.random.default_rng(3)
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put_some(rng, range(30))
    view = live.view(shop.collection)
    assert view is not None
    query = exact_vectors(rng, 4)
    before = [part.tolist() for part in view.images.vectors.search(query, 50)]

    shop.put_some(rng, range(10, 50))
    live.take_up(shop.collection)
    live.fold(view.collection_id)
    shop.delete(*(f"{i}" for i in range(25)))
    live.poll()
    live.fold_due()

    assert [part.tolist() for part in view.images.vectors.search(query, 50)] == before


def test_a_fold_empties_the_tail_and_changes_no_answer(shop: Shop, indexes: Path) -> None:
    rng = np.random.default_rng(4)
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put_some(rng, range(30))
    shop.put_some(rng, range(20, 40))
    before = live.take_up(shop.collection)
    assert before is not None

    live.fold(before.collection_id)

    after = live.view(shop.collection)
    shop.assert_answers(after)
    assert after is not None
    assert (before.images.vectors.tail_rows, after.images.vectors.tail_rows) == (40, 0)
    assert ([part.count for part in after.images.vectors.parts], after.cuts) == ([40], (0, 2))


def test_a_fold_of_what_is_not_loaded_does_nothing(shop: Shop, indexes: Path) -> None:
    shop.put(new_image("1", ONE[0]))

    LiveIndex(shop.database, indexes, NEVER).fold(shop.collection.collection_id)

    assert not indexes.exists()


def test_reopening_after_a_fold_gives_the_same_answers_from_the_files(shop: Shop, indexes: Path) -> None:
    rng = np.random.default_rng(5)
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put_some(rng, range(40))
    live.view(shop.collection)
    live.fold(shop.collection.collection_id)
    shop.put_some(rng, range(35, 45))
    shop.delete("1", "36")

    again = LiveIndex(shop.database, indexes, NEVER).view(shop.collection)

    shop.assert_answers(again)
    assert again is not None
    (part,) = again.images.vectors.parts
    assert (part.segment.count, again.folded_seq, again.through_seq) == (40, 1, 3)


def test_a_poll_folds_what_is_worth_it_and_nothing_else(shop: Shop, indexes: Path) -> None:
    live = LiveIndex(shop.database, indexes, SOON)
    shop.put(*(new_image(f"{i}", ONE[0]) for i in range(4)))
    live.view(shop.collection)

    live.poll()
    live.fold_due()
    assert not indexes.exists()
    shop.put(new_image("4", ONE[0]))
    live.poll()
    live.fold_due()

    assert len(list(indexes.glob("*.faiss"))) == 2
    view = live.view(shop.collection)
    assert view is not None and view.images.vectors.tail_rows == 0


def test_a_deleted_collection_is_forgotten_and_its_name_starts_anew(shop: Shop, indexes: Path) -> None:
    live = LiveIndex(shop.database, indexes, SOON)
    shop.put(*(new_image(f"{i}", ONE[0]) for i in range(20)))
    live.view(shop.collection)
    live.poll()
    live.fold_due()

    Collections(shop.database).delete("shop")
    live.poll()
    live.fold_due()
    anew = Shop(shop.database)
    anew.put(new_image("other", ONE[1], attributes={"n": 1}))

    anew.assert_answers(live.view(anew.collection))


# -- files that are lost or broken -----------------------------------------------------------------------


def folded(shop: Shop, indexes: Path) -> None:
    """Forty pictures in files, ten more changes in rows alone."""
    rng = np.random.default_rng(6)
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put_some(rng, range(40))
    live.view(shop.collection)
    live.fold(shop.collection.collection_id)
    shop.put_some(rng, range(35, 45))


def test_losing_every_index_file_loses_nothing(shop: Shop, indexes: Path) -> None:
    folded(shop, indexes)
    for path in indexes.iterdir():
        path.unlink()
    indexes.rmdir()

    live = LiveIndex(shop.database, indexes, SOON)

    shop.assert_answers(live.view(shop.collection))
    live.poll()
    live.fold_due()
    shop.assert_answers(live.view(shop.collection))
    assert len(list(indexes.glob("*.faiss"))) == 2  # built again


@pytest.mark.parametrize("target", ["images", "texts"])
@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_broken_index_file_is_put_aside_and_the_answers_stay_exact(
    shop: Shop, indexes: Path, target: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    folded(shop, indexes)
    (path,) = indexes.glob(f"*-{target}-*.faiss")
    os.truncate(path, size % path.stat().st_size)

    view = LiveIndex(shop.database, indexes, NEVER).view(shop.collection)

    shop.assert_answers(view)
    assert path.with_suffix(".broken").exists() and not path.exists()
    assert view is not None and view.folded_seq == 0
    assert f"index file put aside, its rows are searched from SQL: {path.name} has sha256" in caplog.text


def test_a_broken_file_of_a_later_segment_leaves_the_earlier_ones_in_use(shop: Shop, indexes: Path) -> None:
    rng = np.random.default_rng(8)
    live = LiveIndex(shop.database, indexes, IndexConfig(fold_rows=5))
    shop.put_some(rng, range(60))
    live.view(shop.collection)
    live.fold_due()
    shop.put_some(rng, range(60, 66))
    live.poll()
    live.fold_due()
    (view,) = live.views()
    assert len(view.cuts) == 3
    (path,) = indexes.glob(f"*-images-{view.cuts[2]}-*.rows.faiss")
    path.write_bytes(b"noise")

    again = LiveIndex(shop.database, indexes, NEVER).view(shop.collection)

    shop.assert_answers(again)
    assert again is not None and again.cuts == view.cuts[:2]


def test_when_what_is_recorded_was_forgotten_all_rows_are_folded_anew(shop: Shop, indexes: Path) -> None:
    rng = np.random.default_rng(8)
    live = LiveIndex(shop.database, indexes, IndexConfig(fold_rows=5))
    shop.put_some(rng, range(60))
    live.view(shop.collection)
    live.fold_due()
    Builds(shop.database).forget(shop.collection.collection_id)
    shop.put_some(rng, range(60, 66))
    live.poll()

    live.fold_due()

    again = LiveIndex(shop.database, indexes, NEVER).view(shop.collection)
    shop.assert_answers(again)
    assert again is not None and again.folded_seq == again.through_seq


def test_a_fold_that_fails_does_not_keep_others_from_theirs(shop: Shop, indexes: Path) -> None:
    other = Shop(shop.database, "other")
    live = LiveIndex(shop.database, indexes, IndexConfig(fold_rows=5))
    for one in (shop, other):
        one.put_some(np.random.default_rng(8), range(20))
        live.view(one.collection)
    with shop.database.write() as connection:  # its records of index files cannot be written
        connection.exec_driver_sql("DELETE FROM generation WHERE collection_id = 1")

    with pytest.raises(IntegrityError):
        live.fold_due()

    view = live.view(other.collection)
    assert view is not None and view.images.vectors.tail_rows == 0


def test_the_next_fold_mends_a_broken_index_file(shop: Shop, indexes: Path) -> None:
    folded(shop, indexes)
    for path in indexes.iterdir():
        path.write_bytes(b"noise")
    live = LiveIndex(shop.database, indexes, NEVER)
    live.view(shop.collection)

    live.fold(shop.collection.collection_id)

    again = LiveIndex(shop.database, indexes, NEVER).view(shop.collection)
    shop.assert_answers(again)
    assert again is not None and again.folded_seq == again.through_seq == 2


def test_a_fold_that_fails_leaves_the_view_as_it_was(shop: Shop, tmp_path: Path) -> None:
    live = LiveIndex(shop.database, tmp_path / "file" / "indexes", NEVER)
    (tmp_path / "file").touch()
    shop.put_some(np.random.default_rng(7), range(9))
    live.view(shop.collection)

    with pytest.raises(OSError, match="Not a directory"):
        live.fold(shop.collection.collection_id)

    shop.assert_answers(live.view(shop.collection))
