import shutil
from pathlib import Path

import pytest

from indexer.config import IngestConfig
from indexer.database import Database
from indexer.files import Blobs
from indexer.ingest import Ingest
from indexer.store.collections import Collections
from indexer.store.images import Images
from search.client import Client, NotFound
from search.contents import Contents
from tests.conftest import LIMITS
from textmm.encoder import Encoder
from textmm.sources import read_source


@pytest.fixture
def folder(pictures: Path, tmp_path: Path, database: Database, encoder: Encoder) -> Path:
    """A copy of the pictures that tests may harm, indexed as collection `own`."""
    folder = tmp_path / "own"
    shutil.copytree(pictures, folder)
    collection = Collections(database).create("own", is_bank=False, limits=LIMITS)
    ingest = Ingest(database, encoder, Blobs(tmp_path / "blobs"), IngestConfig())
    for _ in ingest.run(read_source(str(folder)), collection, source="own"):
        pass
    return folder


def read(database: Database, tmp_path: Path, key: str) -> bytes:
    record = Images(database).get(Collections(database).get("own").collection_id, key)
    return Contents(Blobs(tmp_path / "blobs")).read(record)


def test_an_indexed_file_is_read_from_where_it_lies(folder: Path, database: Database, tmp_path: Path) -> None:
    assert read(database, tmp_path, "red-circle.png") == (folder / "red-circle.png").read_bytes()


def test_a_file_that_is_gone_or_was_overwritten_is_never_served_as_the_one_that_was_indexed(
    folder: Path, database: Database, tmp_path: Path
) -> None:
    (folder / "red-circle.png").unlink()
    (folder / "red-cross.png").write_bytes((folder / "blue-cross.png").read_bytes())

    with pytest.raises(FileNotFoundError, match="red-circle"):
        read(database, tmp_path, "red-circle.png")
    with pytest.raises(OSError, match=r"'red-cross\.png' has changed since it was indexed: index it again"):
        read(database, tmp_path, "red-cross.png")


def test_through_the_api_lost_bytes_are_not_found_and_the_picture_is_still_searched(
    folder: Path, client: Client
) -> None:
    (folder / "red-circle.png").unlink()

    with pytest.raises(NotFound, match=r"'red-circle\.png'"):
        client.content("own", "red-circle.png")
    with pytest.raises(NotFound, match=r"'red-circle\.png'"):
        client.caption(collection="own", image_key="red-circle.png")
    hits = client.search("a red circle", collection="own", k=1, captions=True).hits or []
    assert [(hit.key, hit.caption) for hit in hits] == [("red-circle.png", None)]
