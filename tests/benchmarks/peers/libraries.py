"""Libraries that search arrays: hnswlib, usearch, FAISS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.peers.system import EF_CONSTRUCTION, EFS, K, M, Masks, Rows, Vectors, padded

MOST_HITS = 10_000
"""Hits a post-filtered search asks for at most: with rarer filters its answers come out short."""


class Hnswlib:
    """M = 16, ef_construction = 100. Filters by a Python callback per row met (one thread)."""

    efforts = EFS

    def __init__(self, variant: str) -> None:
        import hnswlib

        self.make: Callable[[int], Any] = lambda dim: hnswlib.Index(space="ip", dim=dim)
        self.index: Any = None

    def build(self, vectors: Vectors, passes: Masks, folder: Path, threads: int) -> None:
        index = self.make(vectors.shape[1])
        index.init_index(len(vectors), ef_construction=EF_CONSTRUCTION, M=M, random_seed=1)
        index.add_items(vectors, np.arange(len(vectors)), num_threads=threads)
        index.save_index(str(folder / "index.bin"))
        (folder / "dim").write_text(str(vectors.shape[1]))

    def start(self, folder: Path, threads: int) -> None: ...

    def open(self, folder: Path, threads: int) -> None:
        self.index = self.make(int((folder / "dim").read_text()))
        self.index.load_index(str(folder / "index.bin"))
        self.index.set_num_threads(threads)

    def search(self, queries: Vectors, k: int, effort: int) -> Rows:
        self.index.set_ef(effort)
        return np.asarray(self.index.knn_query(queries, k)[0], dtype=np.int64)

    def prepare_filter(self, number: int, passes: NDArray[np.bool_]) -> Callable[[int], bool]:
        flags: list[bool] = passes.tolist()
        return flags.__getitem__

    def search_filtered(self, queries: Vectors, k: int, effort: int, prepared: Callable[[int], bool]) -> Rows:
        """It refuses to answer when it finds fewer than k, so fewer are asked for until it does."""
        self.index.set_ef(effort)
        for fewer in range(k, 0, -1):
            try:
                found = self.index.knn_query(queries, fewer, num_threads=1, filter=prepared)[0]
            except RuntimeError:
                continue
            return padded(found.astype(np.int64).tolist(), k)
        return padded([[]] * len(queries), k)

    def close(self) -> None: ...


class Usearch:
    """Its defaults: connectivity 16, expansion_add 128. Its Python binding has no filter, so more hits than asked for
    are found and those that pass are kept, twice as many as a filter that strikes at random would need.
    """

    efforts = EFS

    def __init__(self, variant: str) -> None:
        from usearch.index import Index

        self.make: Callable[..., Any] = Index
        self.dtype = variant
        self.index: Any = None
        self.threads = 1

    def build(self, vectors: Vectors, passes: Masks, folder: Path, threads: int) -> None:
        metric = "cos" if self.dtype == "i8" else "ip"
        index = self.make(ndim=vectors.shape[1], metric=metric, dtype=self.dtype)
        index.add(np.arange(len(vectors)), vectors, threads=threads)
        index.save(str(folder / "index.usearch"))

    def start(self, folder: Path, threads: int) -> None: ...

    def open(self, folder: Path, threads: int) -> None:
        self.index = self.make(path=str(folder / "index.usearch"))
        self.threads = threads

    def search(self, queries: Vectors, k: int, effort: int) -> Rows:
        self.index.expansion_search = effort
        keys = self.index.search(queries, k, threads=self.threads).keys
        return np.asarray(keys, dtype=np.int64).reshape(len(queries), -1)

    def prepare_filter(self, number: int, passes: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return passes

    def search_filtered(self, queries: Vectors, k: int, effort: int, prepared: NDArray[np.bool_]) -> Rows:
        share = np.count_nonzero(prepared) / len(prepared)
        hits = self.search(queries, min(int(2 * k / share), MOST_HITS, len(prepared)), effort)
        return padded([row[prepared[row]][:k].tolist() for row in hits], k)

    def close(self) -> None: ...


class Faiss:
    """As it comes: IndexHNSWFlat(d, 32) with efSearch 16, or IndexIVFFlat of 4 * sqrt(n) lists with nprobe 1. No
    higher effort is tried: this is what who sets nothing gets. Filters by a bitmap of ids, made beforehand.
    """

    def __init__(self, variant: str) -> None:
        import faiss

        self.faiss: Any = faiss
        self.kind = variant
        self.efforts: tuple[int, ...] = (16,) if variant == "hnsw" else (1,)
        self.index: Any = None

    def build(self, vectors: Vectors, passes: Masks, folder: Path, threads: int) -> None:
        self.faiss.omp_set_num_threads(threads)
        lists = int(4 * len(vectors) ** 0.5)
        factory = "HNSW32" if self.kind == "hnsw" else f"IVF{lists},Flat"
        index = self.faiss.index_factory(vectors.shape[1], factory, self.faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        self.faiss.write_index(index, str(folder / "index.faiss"))

    def start(self, folder: Path, threads: int) -> None: ...

    def open(self, folder: Path, threads: int) -> None:
        self.faiss.omp_set_num_threads(threads)
        self.index = self.faiss.read_index(str(folder / "index.faiss"))

    def search(self, queries: Vectors, k: int, effort: int) -> Rows:
        rows: Rows = self.index.search(queries, k)[1]
        return rows

    def prepare_filter(self, number: int, passes: NDArray[np.bool_]) -> Any:
        selector = self.faiss.IDSelectorBitmap(np.packbits(passes, bitorder="little"))
        if self.kind == "hnsw":
            return self.faiss.SearchParametersHNSW(sel=selector, efSearch=self.efforts[0])
        return self.faiss.SearchParametersIVF(sel=selector, nprobe=self.efforts[0])

    def search_filtered(self, queries: Vectors, k: int, effort: int, prepared: Any) -> Rows:
        rows: Rows = self.index.search(queries, k, params=prepared)[1]
        return rows

    def close(self) -> None: ...


assert min(EFS) >= K
