"""Index files that were built: which rows they hold and how to know them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select

from indexer.database import Database, now
from indexer.store.embeddings import Target
from indexer.tables import index_build


@dataclass(frozen=True)
class Build:
    file: str
    """Name in the index folder."""
    sha256: str
    through_seq: int
    rows: int
    settings: Mapping[str, Any]


class Builds:
    def __init__(self, database: Database) -> None:
        self._database = database

    def latest(self, collection_id: int, generation_id: int, target: Target) -> Build | None:
        with self._database.read() as connection:
            row = connection.execute(
                select(index_build)
                .where(
                    index_build.c.collection_id == collection_id,
                    index_build.c.generation_id == generation_id,
                    index_build.c.kind == target,
                )
                .order_by(index_build.c.through_seq.desc(), index_build.c.id.desc())
                .limit(1)
            ).first()
        return None if row is None else Build(row.file, row.sha256, row.through_seq, row.rows, row.settings)

    def publish(
        self, collection_id: int, generation_id: int, builds: Mapping[Target, Build], *, build_s: float
    ) -> list[str]:
        """Record new builds; returns the files of older ones that nobody needs any more (all but the last
        two).
        """
        with self._database.write() as connection:
            for target, build in builds.items():
                connection.execute(
                    insert(index_build).values(
                        collection_id=collection_id,
                        generation_id=generation_id,
                        kind=target,
                        file=build.file,
                        sha256=build.sha256,
                        through_seq=build.through_seq,
                        rows=build.rows,
                        settings=dict(build.settings),
                        measured={"build_s": round(build_s, 3)},
                        created_at=now(),
                    )
                )
            stale = []
            for target in builds:
                old = connection.execute(
                    select(index_build.c.id, index_build.c.file)
                    .where(index_build.c.collection_id == collection_id, index_build.c.kind == target)
                    .order_by(index_build.c.id.desc())
                    .offset(2)
                ).all()
                connection.execute(delete(index_build).where(index_build.c.id.in_([row.id for row in old])))
                stale += [row.file for row in old]
        return stale

    def forget(self, collection_id: int) -> None:
        """All builds of a collection; their files are swept in time."""
        with self._database.write() as connection:
            connection.execute(delete(index_build).where(index_build.c.collection_id == collection_id))

    def files(self) -> set[str]:
        """Every file that a build refers to."""
        with self._database.read() as connection:
            return set(connection.scalars(select(index_build.c.file)))
