"""Our own vector index, as the service uses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.ids import Ids
from indexer.vectors.index import VectorIndex, build_segment, read_segment, set_threads, write_segment
from tests.benchmarks.peers.system import Masks, Rows, Vectors


class Ours:
    """Ids of embeddings begin at 1; they are row + 1 here. Nothing to set: the index chooses."""

    efforts: tuple[int, ...] = (0,)

    def __init__(self, variant: str) -> None:
        self.index = VectorIndex(0)

    def build(self, vectors: Vectors, passes: Masks, folder: Path, threads: int) -> None:
        set_threads(threads)
        segment = build_segment(np.arange(1, len(vectors) + 1), vectors, "Flat")
        (folder / "sha256").write_text(write_segment(segment, folder / "segment.faiss"))

    def start(self, folder: Path, threads: int) -> None: ...

    def open(self, folder: Path, threads: int) -> None:
        set_threads(threads)
        segment = read_segment(folder / "segment.faiss", (folder / "sha256").read_text())
        self.index = VectorIndex(segment.index.d, segment)

    def search(self, queries: Vectors, k: int, effort: int) -> Rows:
        return self.index.search(queries, k)[1] - 1

    def prepare_filter(self, number: int, passes: NDArray[np.bool_]) -> Ids:
        return np.flatnonzero(passes) + 1

    def search_filtered(self, queries: Vectors, k: int, effort: int, prepared: Ids) -> Rows:
        return self.index.search(queries, k, allowed=prepared)[1] - 1

    def close(self) -> None: ...
