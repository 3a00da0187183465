"""Running servers over one database, and the models each of them can serve."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from sqlalchemy import delete, insert, select, update

from indexer.database import Database, now
from indexer.tables import process

STALE_S = 30.0
"""A process that has not been seen for so long is dead: it says so itself when it stops, unless it was killed."""


class Processes:
    def __init__(self, database: Database) -> None:
        self._database = database

    def seen(self, name: str, models: Sequence[str]) -> None:
        """The process is alive and can serve these models."""
        values = {"models": sorted(models), "seen_at": now()}
        with self._database.write() as connection:
            there = connection.execute(update(process).where(process.c.name == name).values(values))
            if not there.rowcount:
                connection.execute(insert(process).values(name=name, **values))

    def gone(self, name: str) -> None:
        with self._database.write() as connection:
            connection.execute(delete(process).where(process.c.name == name))

    def live(self) -> dict[str, list[str]]:
        """Name -> models of each process that was seen lately. Those that were not are forgotten."""
        with self._database.write() as connection:
            before = now() - dt.timedelta(seconds=STALE_S)
            connection.execute(delete(process).where(process.c.seen_at < before))
            return {
                row.name: row.models for row in connection.execute(select(process).order_by(process.c.name))
            }
