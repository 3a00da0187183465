import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text as sql

from indexer.config import IndexConfig
from indexer.database import Database
from indexer.files import Blobs
from indexer.fsck import Fsck
from indexer.live import LiveIndex
from indexer.snapshot import NotEmpty, SnapshotBroken, read_snapshot, restore_snapshot, write_snapshot
from indexer.store.captions import Captions
from indexer.store.collections import Collections
from indexer.store.images import Images
from tests.full_disk import small_disk
from tests.rows import DIM, made, new_image
from tests.shop import Shop

CONFIG = IndexConfig()
ONE = np.eye(DIM, dtype=np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "here"


@pytest.fixture
def shop(any_database: Database, data: Path) -> Shop:
    """Images with texts, attributes, blobs, hashes and captions; some of them dead, one without a picture."""
    blobs = Blobs(data / "blobs")
    shop = Shop(any_database)
    shop.put_some(np.random.default_rng(1), range(12))
    shop.put(
        new_image(
            "own",
            ONE[0],
            texts={"a 'red' cap\n颜色": ONE[1]},
            attributes={"n": 7, "sale": True, "tags": ["a", "ü"], "price": 2.5},
            sha256=blobs.put(b"a picture"),
            locator=None,
            perceptual_hash=(bytes(range(32)), 90),
        )
    )
    bare = new_image("bare", ONE[2], attributes={"n": 0}, locator=None)
    shop.put(replace(bare, sha256=None, width=None, height=None))
    shop.delete("3")
    collections = Collections(any_database)
    collections.declare_types(shop.collection.collection_id, {"price": "string"})
    own = Images(any_database).get(shop.collection.collection_id, "own")
    Captions(any_database).remember(
        {own.image_id: ("a cap", 0.5)}, {own.image_id: str(own.sha256)}, model_id="model-1", style="photo"
    )
    return shop


@pytest.fixture
def empty(bare_url: str) -> Iterator[Database]:
    database = Database(bare_url)
    yield database
    database.close()


def rows_of(database: Database) -> dict[str, list[str]]:
    """Every row of every table but index_build, as text that does not depend on the kind of database."""
    out = {}
    with database.read() as connection:
        for table in ("collection", "generation", "image", "text", "caption", "perceptual_hash"):
            columns = {"image": "id, key, sha256, locator, title", "collection": "id, name, change_seq"}
            asked = f"SELECT {columns.get(table, '*')} FROM {table}"
            out[table] = sorted(
                str([v for v in row if not hasattr(v, "tzinfo") and "-" not in str(v)[4:5]])
                for row in connection.execute(sql(asked))
            )
        found = connection.execute(
            sql("SELECT id, image_id, text_id, vector, born_seq, dead_seq FROM embedding")
        )
        out["embedding"] = sorted(
            str([bytes(v) if isinstance(v, memoryview) else v for v in row]) for row in found
        )
    return out


def test_a_snapshot_in_an_empty_place_of_either_kind_is_the_same_service(
    shop: Shop, data: Path, tmp_path: Path, empty: Database
) -> None:
    archive, there = tmp_path / "a.tar", tmp_path / "there"

    written = write_snapshot(shop.database, data, archive)
    restored = restore_snapshot(empty, there, archive)

    assert written == restored == read_snapshot(archive)
    assert written.collections == [{"name": "shop", "model_id": "model-1", "images": 13}]
    assert rows_of(empty) == rows_of(shop.database)
    assert list(Fsck(empty, there, CONFIG).check(contents=True)) == []
    assert Collections(empty).get("shop").types == shop.collection.types
    assert Images(empty).get(shop.collection.collection_id, "own").attributes["tags"] == ["a", "ü"]
    shop.database, original = empty, shop.database
    live = LiveIndex(empty, there / "indexes", CONFIG)
    shop.assert_answers(live.view(shop.collection))
    shop.put_some(np.random.default_rng(5), range(10, 15))  # keys of new rows go on from the largest
    shop.assert_answers(live.take_up(shop.collection))
    shop.database = original


def test_a_snapshot_while_others_write_is_of_one_moment(
    shop: Shop, data: Path, tmp_path: Path, empty: Database
) -> None:
    stop = threading.Event()
    put: list[int] = []
    pairs = Images(shop.database)

    def write() -> None:
        while not stop.is_set():
            n = len(put)
            rows = [new_image(f"pair {n} {side}", ONE[n % DIM], attributes={"n": n}) for side in "ab"]
            pairs.put(shop.collection.collection_id, shop.generation_id, rows)
            put.append(n)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(3):
            write_snapshot(shop.database, data, tmp_path / f"{i}.tar")
    finally:
        stop.set()
        writer.join()
    restore_snapshot(empty, tmp_path / "there", tmp_path / "2.tar")

    keys = {image.key for image in Images(empty).page(shop.collection.collection_id, limit=10_000)}
    whole = {key.rsplit(" ", 1)[0] for key in keys if key.startswith("pair")}
    assert {key for key in keys if key.startswith("pair")} == {
        f"{pair} {side}" for pair in whole for side in "ab"
    }
    assert list(Fsck(empty, tmp_path / "there", CONFIG).check()) == []


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    at = data.index(b"a picture")
    return data[:at] + b"A" + data[at + 1 :]


def without_manifest(data: bytes) -> bytes:
    out = BytesIO()
    with tarfile.open(fileobj=BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w:") as new:
        for member in old:
            if member.name != "manifest.json":
                new.addfile(member, old.extractfile(member))
    return out.getvalue()


def newer(data: bytes) -> bytes:
    return data.replace(b'"revision": "0003"', b'"revision": "9999"')


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (cut, "no manifest|not an archive"),
        (flip, "blobs/[0-9a-f]{64} is not what was written: the archive is damaged"),
        (without_manifest, "no manifest"),
        (lambda _: b"", "not an archive"),
        (lambda _: b"PK\3\4" * 400, "not an archive"),
        (newer, "made by schema 9999, this version has 0003"),
    ],
)
def test_an_archive_that_is_not_whole_or_too_new_is_refused_and_nothing_is_restored(
    shop: Shop, data: Path, tmp_path: Path, empty: Database, harm: Callable[[bytes], bytes], said: str
) -> None:
    archive = tmp_path / "a.tar"
    write_snapshot(shop.database, data, archive)
    archive.write_bytes(harm(archive.read_bytes()))

    with pytest.raises(SnapshotBroken, match=said):
        restore_snapshot(empty, tmp_path / "there", archive)

    assert empty.revision() is None
    assert not (tmp_path / "there").exists()


def test_rows_that_are_there_are_not_mixed_with_those_of_a_snapshot(
    shop: Shop, data: Path, tmp_path: Path, database: Database
) -> None:
    write_snapshot(shop.database, data, tmp_path / "a.tar")
    made(database, "mine")

    with pytest.raises(NotEmpty, match="restore into an empty place"):
        restore_snapshot(database, tmp_path / "there", tmp_path / "a.tar")

    assert [one.name for one in Collections(database).all()] == ["mine"]


def test_a_file_that_is_there_is_not_written_over(shop: Shop, data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("mine")

    with pytest.raises(FileExistsError, match=r"a\.tar is there already"):
        write_snapshot(shop.database, data, tmp_path / "a.tar")

    assert (tmp_path / "a.tar").read_text() == "mine"


def test_what_a_killed_snapshot_left_goes_after_a_day(shop: Shop, data: Path, tmp_path: Path) -> None:
    old, young = data / "staging" / "old", data / "staging" / "young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "image.parquet").write_bytes(b"half")
    os.utime(old, (0, 0))

    write_snapshot(shop.database, data, tmp_path / "a.tar")

    assert list((data / "staging").iterdir()) == [young]


def test_a_full_disk_leaves_no_archive_behind(shop: Shop, data: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 20_000):
        with pytest.raises(OSError, match=r"No space left|File too large"):
            write_snapshot(shop.database, data, tmp_path / "small" / "a.tar")
        left = list((tmp_path / "small").iterdir())

    assert left == []


def test_a_blob_that_is_gone_fails_the_snapshot_by_name(shop: Shop, data: Path, tmp_path: Path) -> None:
    for path in (data / "blobs").glob("??/*"):
        path.unlink()

    with pytest.raises(FileNotFoundError, match=r"blob [0-9a-f]{12}… is not there"):
        write_snapshot(shop.database, data, tmp_path / "a.tar")

    assert [path.name for path in tmp_path.glob("*.tar*")] == []


def test_a_snapshot_of_an_older_schema_is_brought_to_this_one(
    tmp_path: Path, data: Path, empty: Database
) -> None:
    old = Database(f"sqlite:///{tmp_path / 'old.sqlite'}")
    old.upgrade_to("0001")
    with old.write() as connection:
        connection.execute(
            sql(
                "INSERT INTO collection (name, is_bank, limits, change_seq, created_at) "
                "VALUES ('old', false, '{}', 0, '2026-01-31 00:00:00')"
            )
        )
        connection.execute(
            sql(
                "INSERT INTO image (collection_id, key, sha256, width, height, locator, attributes, "
                "created_at, updated_at) "
                "VALUES (1, 'a', 'x', 1, 1, '/a', :attributes, '2026-01-31 00:00:00', '2026-01-31 00:00:00')"
            ),
            {"attributes": json.dumps({"size": 4, "made": "2026-01-31"})},
        )
    write_snapshot(old, data, tmp_path / "old.tar")
    old.close()

    restore_snapshot(empty, tmp_path / "there", tmp_path / "old.tar")

    empty.check()
    assert Collections(empty).get("old").types == {"size": "number", "made": "datetime"}
    assert str(Images(empty).get(1, "a").created_at).startswith("2026-01-31 00:00:00")


def test_an_image_that_is_deleted_and_swept_meanwhile_does_not_fail_the_snapshot(
    shop: Shop, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Blobs.link
    deleted: list[str] = []

    def overtaken(self: Blobs, digest: str, into: Path) -> None:
        if not deleted:
            shop.delete("own")
            deleted.append(digest)
            self.sweep(Images(shop.database).blobs_in_use(), grace_s=-1)
        link(self, digest, into)

    monkeypatch.setattr(Blobs, "link", overtaken)  # the real one, at the one moment that matters

    written = write_snapshot(shop.database, data, tmp_path / "a.tar")

    assert deleted
    assert [name for name in written.files if name.startswith("blobs/")] == []
    assert written.collections[0]["images"] == 12


def test_a_strangers_table_in_the_same_database_stays_out(
    shop: Shop, data: Path, tmp_path: Path, empty: Database
) -> None:
    for database in (shop.database, empty):
        with database.write() as connection:
            connection.execute(sql("CREATE TABLE other_app (secret TEXT)"))
            connection.execute(sql("INSERT INTO other_app VALUES ('mine')"))

    written = write_snapshot(shop.database, data, tmp_path / "a.tar")
    restore_snapshot(empty, tmp_path / "there", tmp_path / "a.tar")

    assert "tables/other_app.parquet" not in written.files
    assert rows_of(empty) == rows_of(shop.database)


@pytest.mark.parametrize(
    "manifest",
    [
        "3",
        '"x"',
        "[]",
        "{}",
        '{"format": 1, "revision": 2, "created_at": "", "collections": [], "files": {}}',
        '{"format": 1, "revision": "0003", "created_at": "", "collections": [], "files": {}}',
        '{"format": 1, "revision": "0003", "created_at": "", "collections": [], "files": ["a"]}',
        '{"format": 9, "revision": "0003", "created_at": "", "collections": [], "files": {}}',
    ],
)
def test_a_manifest_that_makes_no_sense_is_no_snapshot(
    tmp_path: Path, database: Database, manifest: str
) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w:") as made_up:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(manifest)
        made_up.addfile(member, BytesIO(manifest.encode()))

    with pytest.raises(SnapshotBroken, match=r"a\.tar: "):
        restore_snapshot(database, tmp_path / "there", archive)


def test_a_wrong_blob_that_is_there_is_put_right_by_a_restore(
    shop: Shop, data: Path, tmp_path: Path, empty: Database
) -> None:
    write_snapshot(shop.database, data, tmp_path / "a.tar")
    digest = next(path.name for path in (data / "blobs").glob("??/*"))
    wrong = tmp_path / "there" / "blobs" / digest[:2] / digest
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"go")

    restore_snapshot(empty, tmp_path / "there", tmp_path / "a.tar")

    assert wrong.read_bytes() == b"a picture"
