"""Blobs and thumbnails, content-addressed: a file's name is the sha256 of its bytes."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from indexer.hashing import sha256

GRACE_S = 3600.0
"""A blob younger than this is never swept: its row may still be on the way."""


class Blobs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes, *, anew: bool = False) -> str:
        """Keep the bytes; returns their sha256. Whole on disk when it returns. Raises OSError (a full disk).

        `anew`: write them where a file of that name is there too, which may hold others.
        """
        digest = sha256(data)
        path = self._path(digest)
        if not anew:
            with suppress(FileNotFoundError):
                os.utime(path)  # there, and young again: a sweep does not take it from under the row to come
                return digest
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{digest}.{os.getpid()}.{time.monotonic_ns()}.partial")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return digest

    def get(self, digest: str) -> bytes:
        """Raises FileNotFoundError."""
        return self._path(digest).read_bytes()

    def has(self, digest: str) -> bool:
        return self._path(digest).is_file()

    def link(self, digest: str, into: Path) -> None:
        """The blob in another folder too, as the same file where the disk allows; a sweep then spares it there.

        Raises FileNotFoundError.
        """
        try:
            os.link(self._path(digest), into / digest)
        except FileNotFoundError:
            raise
        except OSError:  # another disk, or one without links
            shutil.copyfile(self._path(digest), into / digest)

    def sweep(self, in_use: set[str], *, grace_s: float = GRACE_S) -> int:
        """Delete blobs that no row refers to and that are older than grace_s; returns how many."""
        gone = 0
        before = time.time() - grace_s
        for path in self._folder.glob("??/*"):
            with suppress(FileNotFoundError):  # another sweep was quicker
                if path.name not in in_use and path.stat().st_mtime < before:
                    path.unlink()
                    gone += 1
        return gone

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest
