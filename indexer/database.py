"""Database: engine, transactions, pragmas and migrations; SQLite or PostgreSQL by URL."""

from __future__ import annotations

import datetime as dt
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, inspect, text
from sqlalchemy.engine import make_url

from indexer.errors import DatabaseTooOld

_MIGRATIONS = Path(str(resources.files("migrations")))
PAGE_CACHE_KIB = 512
"""Of one SQLite connection; each thread has one. With the usual 2 MB a busy server is 30 MB larger and no faster."""
IMPORT_CACHE_KIB = 65_536
"""Of the one connection of an import: the index of a million keys fits (8,200 vectors a second became 11,100)."""


class Database:
    """One engine. `read()` and `write()` give a connection inside a transaction."""

    def __init__(
        self, url: str, *, busy_timeout_s: float = 30.0, page_cache_kib: int = PAGE_CACHE_KIB
    ) -> None:
        self.url = url
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        options: dict[str, Any] = (
            {"connect_args": {"timeout": busy_timeout_s}} if self.is_sqlite else {"pool_pre_ping": True}
        )
        self._engine = create_engine(url, pool_size=16, max_overflow=32, **options)
        if self.is_sqlite:
            _prepare_sqlite(self._engine, busy_timeout_s, page_cache_kib)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database."""
        with self._engine.connect() as connection:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is whole on disk when the block ends, or not at all.

        SQLite takes its write lock at once: a transaction that read first and wrote later could not wait for
        another writer.
        """
        with self._engine.connect() as connection:
            connection.info["write"] = True
            try:
                with connection.begin():
                    yield connection
            finally:
                connection.info["write"] = False

    def upgrade(self) -> None:
        """Bring the schema to this version. Harmless when it is there; processes that start together wait."""
        self.upgrade_to(self.head)

    def upgrade_to(self, revision: str) -> None:
        """Bring an older schema to a revision, which may be older than this version's."""
        if self.revision() == revision:
            return
        from alembic import command  # 11 MB that a server over a current schema does without
        from alembic.config import Config

        with self.write() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(7261001)"))
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, revision)

    def check(self) -> None:
        """Raise DatabaseTooOld unless the schema is that of this version."""
        found, head = self.revision(), self.head
        if found != head:
            raise DatabaseTooOld(
                f"the database is at schema {found or 'none'}, this version needs {head}: run `textmm db upgrade`"
            )

    @property
    def head(self) -> str:
        """The newest migration of this version: files are named by their number."""
        return max(self.revisions())

    def revisions(self) -> list[str]:
        """All that this version knows."""
        return [path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")]

    def revision(self) -> str | None:
        """Of the schema that is there; None: there is none."""
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
            return found

    def close(self) -> None:
        self._engine.dispose()


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _prepare_sqlite(engine: Any, busy_timeout_s: float, page_cache_kib: int) -> None:
    @event.listens_for(engine, "connect")
    def pragmas(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        _log_ahead(connection, busy_timeout_s)
        for pragma in ("synchronous=FULL", "foreign_keys=ON", f"cache_size=-{page_cache_kib}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.info.get("write") else "BEGIN")


def _log_ahead(connection: Any, busy_timeout_s: float) -> None:
    """Turn the write-ahead log on. In a fresh file SQLite does not wait for others that do so too: we do."""
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # the rest says why
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
