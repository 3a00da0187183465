"""Segments that were built: which rows each holds, in which files, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select

from indexer.database import Database, now
from indexer.store.embeddings import Target
from indexer.tables import index_build

TARGETS: tuple[Target, ...] = ("images", "texts")


@dataclass(frozen=True)
class Build:
    file: str
    """Stem of its files' names in the index folder."""
    files: Mapping[str, str]
    """Ending -> sha256"""
    kind: str
    """exact, codes, graph or lists"""
    rows: int
    measured: Mapping[str, Any]
    """Recall against latency, when it was built."""


@dataclass(frozen=True)
class Link:
    """One segment of each target, over the same range of changes: rows born after from_seq and up to through_seq."""

    from_seq: int
    through_seq: int
    builds: Mapping[Target, Build]


class Builds:
    def __init__(self, database: Database) -> None:
        self._database = database

    def chain(self, collection_id: int, generation_id: int) -> list[Link]:
        """The segments in use: each begins where the one before it ends, the first at 0; of two that begin alike the
        one that goes further, then the newer."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(index_build)
                .where(
                    index_build.c.collection_id == collection_id,
                    index_build.c.generation_id == generation_id,
                )
                .order_by(index_build.c.id)
            ).all()
        links: dict[tuple[int, int], dict[Target, Build]] = {}
        for row in rows:  # a later build of the same range takes the place of an earlier one
            links.setdefault((row.from_seq, row.through_seq), {})[row.target] = _build(row)
        whole = {reach: builds for reach, builds in links.items() if len(builds) == len(TARGETS)}
        chain: list[Link] = []
        at = 0
        while ends := [through for start, through in whole if start == at and through > at]:
            chain.append(Link(at, max(ends), whole[at, max(ends)]))
            at = max(ends)
        return chain

    def publish(self, collection_id: int, generation_id: int, link: Link) -> list[str]:
        """Record new segments in place of those that lie within their range; the stems of these files, which nobody
        needs any more."""
        mine = (
            index_build.c.collection_id == collection_id,
            index_build.c.generation_id == generation_id,
        )
        with self._database.write() as connection:
            within = (
                index_build.c.from_seq >= link.from_seq,
                index_build.c.through_seq <= link.through_seq,
            )
            stale = connection.scalars(
                delete(index_build).where(*mine, *within).returning(index_build.c.file)
            ).all()
            connection.execute(
                insert(index_build),
                [
                    {
                        "collection_id": collection_id,
                        "generation_id": generation_id,
                        "target": target,
                        "kind": build.kind,
                        "file": build.file,
                        "files": dict(build.files),
                        "from_seq": link.from_seq,
                        "through_seq": link.through_seq,
                        "rows": build.rows,
                        "measured": dict(build.measured),
                        "created_at": now(),
                    }
                    for target, build in link.builds.items()
                ],
            )
        return list(stale)

    def forget(self, collection_id: int, generation_id: int | None = None) -> None:
        """All builds of a collection, or of one generation; their files are swept in time."""
        which = [index_build.c.collection_id == collection_id]
        if generation_id is not None:
            which.append(index_build.c.generation_id == generation_id)
        with self._database.write() as connection:
            connection.execute(delete(index_build).where(*which))

    def stems(self) -> set[str]:
        """Of every file that a build refers to."""
        with self._database.read() as connection:
            return set(connection.scalars(select(index_build.c.file)))


def _build(row: Row[Any]) -> Build:
    return Build(row.file, row.files, row.kind, row.rows, row.measured)
