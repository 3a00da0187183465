import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete, insert, select, update

from indexer.config import IndexConfig
from indexer.database import Database
from indexer.files import Blobs
from indexer.fsck import Fsck, Problem
from indexer.live import LiveIndex
from indexer.store.collections import Collections
from indexer.store.images import Images
from indexer.tables import embedding, image, index_build, text
from indexer.vectors.segments import ROWS, delete_segment, exact_segment, write_segment
from tests.rows import DIM, made, new_image
from tests.shop import Shop

CONFIG = IndexConfig(fold_rows=5)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def shop(any_database: Database, data: Path) -> Shop:
    """Some images, folded; then some more, and some deleted."""
    shop = Shop(any_database)
    rng = np.random.default_rng(2)
    shop.put_some(rng, range(20))
    live = LiveIndex(any_database, data / "indexes", CONFIG)
    live.view(shop.collection)
    live.poll()
    live.fold_due()
    shop.put_some(rng, range(18, 22))
    shop.delete("3", "4")
    return shop


def problems(shop: Shop, data: Path, *, contents: bool = False) -> list[Problem]:
    return list(Fsck(shop.database, data, CONFIG).check(contents=contents))


def test_what_was_put_deleted_and_folded_is_clean(shop: Shop, data: Path) -> None:
    assert len(list((data / "indexes").glob("*.faiss"))) == 2
    assert problems(shop, data, contents=True) == []


def test_an_empty_database_is_clean(any_database: Database, data: Path) -> None:
    Collections(any_database).create("new", is_bank=False, limits={})

    assert list(Fsck(any_database, data, CONFIG).check()) == []


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [lose, cut, flip])
def test_a_broken_index_file_is_found_and_built_anew_from_the_rows(
    shop: Shop, data: Path, harm: Callable[[Path], None]
) -> None:
    for path in (data / "indexes").glob("*-images-*.faiss"):
        harm(path)

    (found,) = problems(shop, data)
    Fsck(shop.database, data, CONFIG).rebuild("shop")

    assert (found.where, found.in_cache) == ("shop", True)
    assert found.what.startswith("index of images: ")
    assert problems(shop, data) == []
    live = LiveIndex(shop.database, data / "indexes", CONFIG)
    shop.assert_answers(live.view(shop.collection))


@pytest.mark.parametrize("what", ["lacks a row", "has a row too many", "another vector"])
def test_an_index_file_that_is_whole_but_of_other_rows_is_found(shop: Shop, data: Path, what: str) -> None:
    live = LiveIndex(shop.database, data / "indexes", CONFIG)
    view = live.view(shop.collection)
    assert view is not None
    (part,) = view.images.vectors.parts
    ids, vectors = part.segment.ids, part.segment.halves.copy()
    if what == "lacks a row":
        ids, vectors = ids[1:], vectors[1:]
    elif what == "has a row too many":
        ids, vectors = np.append(ids, 999), np.vstack([vectors, vectors[:1]])
    else:
        vectors[0] = -vectors[0]
    (path,) = (data / "indexes").glob(f"*-images-*.{ROWS}")
    stem = path.name.partition(".")[0]
    delete_segment(data / "indexes", stem)
    files = write_segment(exact_segment(ids, vectors), data / "indexes", stem)
    with shop.database.write() as connection:
        connection.execute(update(index_build).where(index_build.c.file == stem).values(files=files))

    (found,) = problems(shop, data)

    assert found.in_cache
    assert {"lacks a row": "lacks 1 rows and has 0", "has a row too many": "lacks 0 rows and has 1"}.get(
        what, "holds 1 vectors unlike the rows'"
    ) in found.what


def test_rows_that_contradict_each_other_are_told(shop: Shop, data: Path) -> None:
    with shop.database.write() as connection:
        lonely, doubled = connection.scalars(
            select(image.c.id).where(image.c.key.in_(["7", "8"])).order_by(image.c.key)
        )
        connection.execute(
            update(embedding).where(embedding.c.image_id == lonely).values(dead_seq=9, vector=b"")
        )
        row = connection.execute(
            select(embedding).where(embedding.c.image_id == doubled, embedding.c.dead_seq.is_(None))
        ).one()
        again = {name: value for name, value in row._mapping.items() if name != "id"}
        connection.execute(insert(embedding).values(again))
        (short,) = connection.scalars(
            select(embedding.c.id)
            .join(image, embedding.c.image_id == image.c.id)
            .where(image.c.key == "9", embedding.c.dead_seq.is_(None))
        )
        connection.execute(update(embedding).where(embedding.c.id == short).values(vector=b"\0" * 6))
        gone = connection.scalars(select(text.c.id)).all()[0]
        connection.execute(delete(text).where(text.c.id == gone))

    said = "\n".join(
        one.what
        for one in Fsck(shop.database, data, CONFIG).check_collection(shop.collection)
        if not one.in_cache
    )

    assert "image with not one living vector: '7' has 0, '8' has 2" in said
    assert f"vector that is not {2 * DIM} bytes long: {short} has 6" in said
    assert "living vector whose text is gone: " in said


def test_a_blob_that_is_lost_or_changed_is_told(any_database: Database, data: Path) -> None:
    blobs = Blobs(data / "blobs")
    kept, lost, changed = (blobs.put(word) for word in (b"kept", b"lost", b"changed"))
    shop, generation_id = made(any_database)
    for key, digest in (("a", kept), ("b", lost), ("c", changed)):
        row = new_image(key, np.eye(DIM, dtype=np.float32)[0], sha256=digest, locator=None)
        Images(any_database).put(shop.collection_id, generation_id, [row])
    (data / "blobs" / lost[:2] / lost).unlink()
    (data / "blobs" / changed[:2] / changed).write_bytes(b"other")

    fsck = Fsck(any_database, data, CONFIG)

    quick, whole = ([one.what for one in fsck.check(contents=contents)] for contents in (False, True))
    assert quick == [f"blob {lost[:12]}… is not there: put its image again"]
    assert sorted(whole) == sorted(
        [
            f"blob {lost[:12]}… cannot be read (No such file or directory): put its image again",
            f"blob {changed[:12]}… holds other bytes now (sha256 d9298a10d1b0…): put its image again",
        ]
    )


def test_a_torn_sqlite_file_is_told_and_nothing_else(tmp_path: Path, migrated: Path, data: Path) -> None:
    path = tmp_path / "torn.sqlite"
    shutil.copy(migrated, path)
    database = Database(f"sqlite:///{path}")
    shop, generation_id = made(database)
    for i in range(40):
        row = new_image(f"{i}", np.eye(DIM, dtype=np.float32)[0], attributes={"words": "x" * 2000})
        Images(database).put(shop.collection_id, generation_id, [row])
    database.close()
    torn = bytearray(path.read_bytes())
    torn[len(torn) // 2 :] = bytes(len(torn) - len(torn) // 2)
    path.write_bytes(torn)

    database = Database(f"sqlite:///{path}")
    found = list(Fsck(database, data, CONFIG).check())
    database.close()

    assert found
    assert {one.where for one in found} == {"database"}


@pytest.mark.parametrize("left", ["images without texts", "nothing"])
def test_an_index_without_a_living_row_is_clean(any_database: Database, data: Path, left: str) -> None:
    shop = Shop(any_database)
    shop.put(*(new_image(f"{i}", np.eye(DIM, dtype=np.float32)[i]) for i in range(5)))
    live = LiveIndex(any_database, data / "indexes", CONFIG)
    live.view(shop.collection)
    live.poll()
    live.fold_due()
    if left == "nothing":
        shop.delete(*shop.truth)

    assert len(list((data / "indexes").glob("*.faiss"))) == 2
    assert problems(shop, data) == []


def test_an_index_is_not_built_anew_from_rows_that_are_wrong_themselves(shop: Shop, data: Path) -> None:
    with shop.database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE embedding SET vector = 'ab' WHERE id = (SELECT max(id) FROM embedding)"
        )
    (path,) = (data / "indexes").glob("*-images-*.faiss")
    path.write_bytes(b"xx")

    refused = Fsck(shop.database, data, CONFIG).rebuild("shop")

    assert refused == "its rows must be put right first"
    assert {one.in_cache for one in problems(shop, data)} == {True, False}
