"""Proof that rows, index files and blobs agree; what is a cache can be built anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.config import IndexConfig
from indexer.database import Database
from indexer.files import Blobs
from indexer.hashing import sha256
from indexer.live import LiveIndex
from indexer.store.builds import TARGETS, Builds, Link
from indexer.store.checks import Checks
from indexer.store.collections import Collection, Collections
from indexer.store.embeddings import Target
from indexer.store.images import Images
from indexer.vectors.segments import IndexFileBroken, read_segment

AGAIN = 5
"""How often a check that a publishing process overtook is begun again."""


@dataclass(frozen=True)
class Problem:
    where: str
    """A collection, or what all of them share."""
    what: str
    in_cache: bool = False
    """It goes away when the index is built anew from the rows."""


class Fsck:
    def __init__(self, database: Database, data: Path, config: IndexConfig) -> None:
        self._database, self._folder, self._config = database, data / "indexes", config
        self._blobs = Blobs(data / "blobs")
        self._checks = Checks(database)
        self._builds = Builds(database)
        self._images = Images(database)
        self._collections = Collections(database)

    def check(self, *, contents: bool = False) -> Iterator[Problem]:
        """Everything that does not agree. `contents`: read the blobs too, and compare their sha256."""
        torn = self._checks.of_the_file()
        yield from (Problem("database", said) for said in torn)
        if torn:  # what such a file says of its rows is worth nothing
            return
        yield from (Problem("blobs", said) for said in self._wrong_blobs(contents))
        for one in self._collections.all():
            yield from self.check_collection(one)

    def check_collection(self, one: Collection) -> Iterator[Problem]:
        yield from (Problem(one.name, said) for said in self._checks.of_rows(one))
        if one.generation is not None:
            yield from (Problem(one.name, said, in_cache=True) for said in self._wrong_index(one))

    def rebuild(self, name: str) -> str | None:
        """Build a collection's index anew from its rows. None, or why it was not.

        Raises NotFound, OSError (a full disk).
        """
        one = self._collections.get(name)
        if self._checks.of_rows(one):
            return "its rows must be put right first"
        if one.generation is not None:
            self._builds.forget(one.collection_id, one.generation.generation_id)
        live = LiveIndex(self._database, self._folder, self._config)
        if live.view(one) is not None:
            live.fold(one.collection_id)
        return None

    def _wrong_index(self, one: Collection) -> list[str]:
        assert one.generation is not None
        said: list[str] = []
        seen: list[Link] | None = None
        for _ in range(AGAIN):
            chain = self._builds.chain(one.collection_id, one.generation.generation_id)
            if chain == seen:
                return said
            seen = chain
            wrong = [(target, self._wrong_build(one, target, link)) for link in chain for target in TARGETS]
            said = [f"index of {target}: {what}" for target, what in wrong if what]
            if not said:
                return []
        return said

    def _wrong_build(self, one: Collection, target: Target, link: Link) -> str | None:
        build = link.builds[target]
        try:
            segment = read_segment(self._folder, build.file, build.files)
        except IndexFileBroken as error:
            return str(error)
        parts = {"codes": segment.codes, "rows of its approximate index": segment.approximate}
        for name, part in parts.items():
            if part is not None and part.ntotal != segment.count:
                return f"{build.file} has {part.ntotal} {name}, and {segment.count} rows"
        rows = self._checks.indexed(one, target, from_seq=link.from_seq, through_seq=link.through_seq)
        lacks, more = np.setdiff1d(rows.ids, segment.ids), np.setdiff1d(segment.ids, rows.ids)
        if len(lacks) or len(more) or segment.count != len(rows.ids):
            return f"{build.file} lacks {len(lacks)} rows and has {len(more)} that it should not have"
        order = np.argsort(segment.ids)
        living = order[np.searchsorted(segment.ids[order], rows.living)]
        other = (segment.halves[living] != rows.vectors).any(axis=1) if len(living) else np.zeros(0, bool)
        if other.any():
            return f"{build.file} holds {int(other.sum())} vectors unlike the rows', first {rows.living[other][0]}"
        return None

    def _wrong_blobs(self, contents: bool) -> Iterator[str]:
        said = {digest: self._wrong_blob(digest, contents) for digest in sorted(self._images.blobs_in_use())}
        wrong = {digest: one for digest, one in said.items() if one}
        in_use = self._images.blobs_in_use() if wrong else set()  # an image may have gone meanwhile
        for digest in sorted(wrong.keys() & in_use):
            yield f"blob {digest[:12]}… {wrong[digest]}: put its image again"

    def _wrong_blob(self, digest: str, contents: bool) -> str | None:
        try:
            if not contents:
                return None if self._blobs.has(digest) else "is not there"
            found = sha256(self._blobs.get(digest))
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return None if found == digest else f"holds other bytes now (sha256 {found[:12]}…)"
