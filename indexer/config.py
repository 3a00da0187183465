"""Settings of the database and the index."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DatabaseConfig:
    url: str = ""
    """SQLAlchemy URL; empty: SQLite in the data folder. PostgreSQL: postgresql+psycopg://user@host/name."""
    busy_timeout_s: float = 30.0
    """How long a writer waits for another (SQLite)."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    factory: str = "Flat"
    """FAISS index_factory string of the main segment. Only exact kinds are allowed so far: Flat."""
    fold_rows: int = 1000
    """Rows in the tail, or dead rows in the segment, from which a new main segment is built."""
    poll_s: float = 0.5
    """How often a process takes up what others wrote."""
    threads: int = 1
    """Threads of one FAISS search. Two on a busy machine wait for each other: 4 ms instead of 0.1 at 4,000 rows."""

    def __post_init__(self) -> None:
        if self.factory != "Flat":
            raise ValueError(
                f"index.factory must be Flat, got {self.factory!r}: a filter must never lose results"
            )
        if self.fold_rows < 1:
            raise ValueError(f"index.fold_rows must be at least 1, got {self.fold_rows}")
        if not 0 < self.poll_s <= 60:
            raise ValueError(f"index.poll_s must be above 0 and at most 60 seconds, got {self.poll_s}")


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    batch_size: int = 64
    """Pictures a transaction."""
    decode_threads: int = 2
    thumbnail_side: int = 320
    """Pixels of a thumbnail's longer side; smaller pictures are their own thumbnail."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "decode_threads", "thumbnail_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"ingest.{name} must be at least 1, got {getattr(self, name)}")
