"""Whole tables, out and in: what a snapshot is made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, MetaData, func, insert, select, text, types

from indexer.database import Database
from indexer.store.images import blobs_of
from indexer.tables import collection, generation, image, index_build, metadata, process

ROWS = 2000
"""At a time."""


class _Tables:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tables = _reflected(connection)

    @property
    def tables(self) -> list[str]:
        """Those that others refer to first; without the records of index files, which are a cache, and of processes."""
        left_out = (index_build.name, process.name)
        return [table.name for table in self._tables.sorted_tables if table.name not in left_out]

    def columns(self, name: str) -> dict[str, str]:
        """Column -> int, float, bool, bytes, json, time or text."""
        return {column.name: _kind(column.type) for column in self._tables.tables[name].columns}


class Dump(_Tables):
    """One state of the database, table by table, while others write on."""

    @property
    def revision(self) -> str:
        return str(self._connection.scalar(text("SELECT version_num FROM alembic_version")))

    def rows(self, name: str) -> Iterator[list[dict[str, Any]]]:
        """All rows of a table, some thousand at a time."""
        table = self._tables.tables[name]
        key = list(table.primary_key.columns)
        asked = select(table).order_by(*key)
        with self._connection.execute(asked, execution_options={"yield_per": ROWS}) as found:
            for part in found.mappings().partitions(ROWS):
                yield [dict(row) for row in part]

    def blobs(self) -> set[str]:
        return blobs_of(self._connection)

    def summary(self) -> list[dict[str, Any]]:
        """Collections with their model and size."""
        rows = self._connection.execute(
            select(collection.c.name, generation.c.model_id, func.count(image.c.id).label("images"))
            .select_from(
                collection.outerjoin(generation, collection.c.generation_id == generation.c.id).outerjoin(
                    image, image.c.collection_id == collection.c.id
                )
            )
            .group_by(collection.c.id, collection.c.name, generation.c.model_id)
            .order_by(collection.c.name)
        )
        return [dict(row) for row in rows.mappings()]


@contextmanager
def dumped(database: Database) -> Iterator[Dump]:
    with database.read() as connection:
        yield Dump(connection)


class Load(_Tables):
    """Rows into an empty database, all in one transaction."""

    def is_empty(self) -> bool:
        return not any(
            self._connection.execute(select(self._tables.tables[name]).limit(1)).first()
            for name in self.tables
        )

    def insert(self, name: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._connection.execute(insert(self._tables.tables[name]), rows)

    def end(self) -> None:
        """New keys grow from the largest there are (SQLite's do by themselves)."""
        if self._connection.dialect.name == "sqlite":
            return
        for table in self._tables.sorted_tables:
            if "id" in table.c:
                largest = self._connection.scalar(select(func.max(table.c.id)))
                if largest is not None:
                    name = f"pg_get_serial_sequence('{table.name}', 'id')"
                    self._connection.execute(text(f"SELECT setval({name}, :largest)"), {"largest": largest})


def _kind(of: types.TypeEngine[Any]) -> str:
    for kind, classes in _KINDS.items():
        if isinstance(of, classes):
            return kind
    return "text"


_KINDS: dict[str, tuple[type[types.TypeEngine[Any]], ...]] = {
    "bool": (types.Boolean,),
    "int": (types.Integer,),
    "float": (types.Float,),
    "bytes": (types.LargeBinary,),
    "json": (types.JSON,),
    "time": (types.DateTime,),
}


def _reflected(connection: Connection) -> MetaData:
    """The tables as they are in this database, whatever version made them."""
    found = MetaData()
    found.reflect(connection, only=lambda name, _: name in metadata.tables)  # others may share a database
    return found
