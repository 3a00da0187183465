"""Settings of the database and the index."""

from __future__ import annotations

import re
from dataclasses import dataclass

from indexer.vectors.options import KINDS, BuildOptions

DEVICE_NAMES = re.compile(r"(cpu|cuda:\d+)( *, *(cpu|cuda:\d+))*")
"""cpu: torch on the processor, slower than FAISS there; for trying the way to a device out."""


@dataclass(frozen=True, kw_only=True)
class DatabaseConfig:
    url: str = ""
    """SQLAlchemy URL; empty: SQLite in the data folder. PostgreSQL: postgresql+psycopg://user@host/name."""
    busy_timeout_s: float = 30.0
    """How long a writer waits for another (SQLite)."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    kind: str = "auto"
    """auto: exact search while it is fast enough, then the quickest of codes, lists and graph at the recall asked for,
    measured on the segment's own rows. exact, codes (PQ), graph (HNSW), lists (IVF): that one."""
    recall: float = 0.98
    """Recall@10 that an approximate index must reach against exact search, or it is not used."""
    exact_rows: int = 20_000
    """Rows of a segment up to which `auto` searches exactly."""
    memory_mb: float = 0.0
    """Of one segment's approximate index; a kind that would be larger is not built. 0: no limit."""
    fold_rows: int = 1000
    """Rows in the tail, or dead rows in a segment, from which a new segment is built."""
    poll_s: float = 0.5
    """How often a process takes up what others wrote."""
    recall_check_s: float = 300.0
    """How often the recall of approximate segments is measured again, on queries that were asked. 0: never."""
    threads: int = 1
    """Threads of one FAISS search. Two on a busy machine wait for each other: 4 ms instead of 0.1 at 4,000 rows."""
    build_threads: int = 1
    """Threads that build an approximate index, beside searches."""

    device: str = "auto"
    """Where segments of more than `exact_rows` are held for exact search. auto: on all CUDA devices that pass a probe;
    off: in main memory only; cuda:0 or cuda:0,cuda:1: on these, or the start is refused."""

    def __post_init__(self) -> None:
        if self.device not in ("auto", "off") and not DEVICE_NAMES.fullmatch(self.device):
            raise ValueError(
                f"index.device must be auto, off or names like cuda:0,cuda:1, got {self.device!r}"
            )
        if self.kind not in KINDS:
            raise ValueError(f"index.kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not 0.5 <= self.recall < 1:
            raise ValueError(f"index.recall must be 0.5 or more and below 1, got {self.recall}")
        for name in ("fold_rows", "threads", "build_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"index.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("exact_rows", "memory_mb", "recall_check_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"index.{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.poll_s <= 60:
            raise ValueError(f"index.poll_s must be above 0 and at most 60 seconds, got {self.poll_s}")

    @property
    def build_options(self) -> BuildOptions:
        return BuildOptions(
            kind=self.kind,
            recall=self.recall,
            exact_rows=self.exact_rows,
            memory_mb=self.memory_mb,
            threads=self.build_threads,
        )


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
