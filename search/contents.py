"""The bytes of stored pictures and their thumbnails, wherever they lie."""

from __future__ import annotations

from indexer.errors import NoPicture
from indexer.files import Blobs
from indexer.hashing import sha256
from indexer.store.images import ImageRecord
from textmm.sources import read_bytes


class Contents:
    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def read(self, record: ImageRecord) -> bytes:
        """The bytes that were indexed.

        Raises OSError when their file is gone or holds something else now, NoPicture when there never were any.
        """
        if record.sha256 is None:
            raise NoPicture(record.key)
        if record.locator is None:
            return self._blobs.get(record.sha256)
        data = read_bytes(record.locator)
        if sha256(data) != record.sha256:
            raise OSError(
                f"the file of image {record.key!r} has changed since it was indexed: index it again"
            )
        return data

    def thumbnail(self, record: ImageRecord) -> bytes:
        """A small JPEG, or the picture itself when it is small. Raises OSError, NoPicture."""
        if record.thumbnail_sha256 is None:
            return self.read(record)
        return self._blobs.get(record.thumbnail_sha256)
