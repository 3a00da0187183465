"""Our own vector index, as the service uses it: `auto`, at the recall it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.vectors.choice import build_segment
from indexer.vectors.index import Allowed, VectorIndex
from indexer.vectors.options import BuildOptions
from indexer.vectors.segments import read_segment, write_segment
from indexer.vectors.tuning import Tuning
from tests.benchmarks.peers.system import Masks, Rows, Vectors


class Ours:
    """Ids of embeddings begin at 1; they are row + 1 here. Nothing to set: the index chooses."""

    efforts: tuple[int, ...] = (0,)

    def __init__(self, variant: str) -> None:
        self.index = VectorIndex(0)

    def build(self, vectors: Vectors, passes: Masks, folder: Path, threads: int) -> None:
        segment = build_segment(np.arange(1, len(vectors) + 1), vectors, BuildOptions(threads=threads))
        measured = {} if segment.tuning is None else segment.tuning.as_json()
        files = write_segment(segment, folder, "segment")
        (folder / "segment.json").write_text(json.dumps({"files": files, "measured": measured}))

    def start(self, folder: Path, threads: int) -> None: ...

    def open(self, folder: Path, threads: int) -> None:
        build = json.loads((folder / "segment.json").read_text())
        segment = read_segment(folder, "segment", build["files"], Tuning.of(build["measured"]))
        self.index = VectorIndex.over(segment.dim, [segment], threads=threads)

    def search(self, queries: Vectors, k: int, effort: int) -> Rows:
        return self.index.search(queries, k)[1] - 1

    def prepare_filter(self, number: int, passes: NDArray[np.bool_]) -> Allowed:
        return self.index.allow(np.flatnonzero(passes) + 1)

    def search_filtered(self, queries: Vectors, k: int, effort: int, prepared: Allowed) -> Rows:
        return self.index.search(queries, k, allowed=prepared)[1] - 1

    def close(self) -> None: ...
