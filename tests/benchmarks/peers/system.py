"""What a measured system does, and the table of systems."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Masks = NDArray[np.bool_]

K = 10
M, EF_CONSTRUCTION = 16, 100
"""Of every graph whose builder lets us say, so that graphs are compared at one size (usearch and FAISS: defaults)."""
EFS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 226, 320, 640)
NPROBES = (2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 128)


class System(Protocol):
    """q queries, n rows, f filters, d dimensions. Making one imports its package: ModuleNotFoundError without it."""

    efforts: tuple[int, ...]
    """What `search` may be told to spend, from least to most (ef, nprobe, ...); one value when nothing can be set."""

    def build(self, vectors: Vectors, passes: Masks, folder: Path, threads: int) -> None:
        """Rows [n, d] and which filter each passes, [f, n], into an index on disk that `open` finds."""

    def start(self, folder: Path, threads: int) -> None:
        """What runs before an index is there: a server. Not counted as the index's memory."""

    def open(self, folder: Path, threads: int) -> None:
        """Make the built index ready to be searched."""

    def search(self, queries: Vectors, k: int, effort: int) -> Rows:
        """Rows [q, k] of [q, d], best first; -1 fills a short answer."""

    def prepare_filter(self, number: int, passes: NDArray[np.bool_]) -> Any:
        """What `search_filtered` needs for filter `number`, which the rows of `passes` [n] pass. Not timed."""

    def search_filtered(self, queries: Vectors, k: int, effort: int, prepared: Any) -> Rows:
        """As `search`, among the rows that pass."""

    def close(self) -> None: ...


SYSTEMS: dict[str, tuple[str, str, str]] = {
    "ours": ("tests.benchmarks.peers.ours:Ours", "project", ""),
    "hnswlib": ("tests.benchmarks.peers.libraries:Hnswlib", "peers", ""),
    "usearch": ("tests.benchmarks.peers.libraries:Usearch", "peers", "f32"),
    "usearch-f16": ("tests.benchmarks.peers.libraries:Usearch", "peers", "f16"),
    "usearch-i8": ("tests.benchmarks.peers.libraries:Usearch", "peers", "i8"),
    "faiss-hnsw": ("tests.benchmarks.peers.libraries:Faiss", "project", "hnsw"),
    "faiss-ivf": ("tests.benchmarks.peers.libraries:Faiss", "project", "ivf"),
    "milvus-lite": ("tests.benchmarks.peers.databases:MilvusLite", "peers", "HNSW"),
    "milvus-lite-ivf": ("tests.benchmarks.peers.databases:MilvusLite", "peers", "IVF_FLAT"),
    "milvus": ("tests.benchmarks.peers.databases:Milvus", "milvus", "HNSW"),
    "milvus-ivf": ("tests.benchmarks.peers.databases:Milvus", "milvus", "IVF_FLAT"),
    "lancedb": ("tests.benchmarks.peers.databases:LanceDB", "peers", "IVF_HNSW_SQ"),
    "lancedb-pq": ("tests.benchmarks.peers.databases:LanceDB", "peers", "IVF_PQ"),
    "chromadb": ("tests.benchmarks.peers.databases:Chroma", "peers", ""),
}
"""Name: its class, whose interpreter runs it, which of its index types."""
AT_A_MILLION = ("ours", "hnswlib", "usearch")


def make(name: str) -> System:
    where, _, variant = SYSTEMS[name]
    module, name_of_class = where.split(":")
    system: System = getattr(importlib.import_module(module), name_of_class)(variant)
    return system


def padded(found: Sequence[Sequence[int]], k: int) -> Rows:
    """Answers of any length up to k as rows [q, k], -1 where there is none."""
    rows = np.full((len(found), k), -1, dtype=np.int64)
    for row, ids in zip(rows, found, strict=True):
        row[: len(ids)] = ids
    return rows
