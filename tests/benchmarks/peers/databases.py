"""Databases with vector search: Milvus Lite, the Milvus server, LanceDB, chromadb.

Each filter is a column of 0 and 1 with the scalar index that the database has, and a condition in its own language;
evaluating the condition is part of a filtered search here (libraries are handed the rows that pass).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.peers.system import EF_CONSTRUCTION, EFS, NPROBES, K, M, Masks, Rows, Vectors, padded

TABLE = "rows"
BATCH = 5000
"""Rows of one insert."""
REFINE = {"IVF_HNSW_SQ": 2, "IVF_PQ": 30}
"""LanceDB: candidates compared exactly, in times k. Its documentation advises 10 to 50 for products of codes."""


def _column(number: int) -> str:
    return f"filter_{number}"


def _batches(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def _milvus_build(kind: str, rows: int) -> dict[str, int]:
    """Milvus documents 4 * sqrt(n) lists."""
    if kind == "HNSW":
        return {"M": M, "efConstruction": EF_CONSTRUCTION}
    return {"nlist": int(4 * math.sqrt(rows))}


def _milvus_search(kind: str, effort: int) -> dict[str, Any]:
    return {"metric_type": "IP", "params": {"ef" if kind == "HNSW" else "nprobe": effort}}


class MilvusLite:
    """Embedded: its server runs in threads of this process and answers by gRPC, as its client library has it."""

    def __init__(self, variant: str) -> None:
        import milvus_lite  # noqa: F401  -- the client library alone is no system
        from pymilvus import DataType, MilvusClient

        self.connect: Any = MilvusClient
        self.types: Any = DataType
        self.kind = variant
        self.efforts = EFS if variant == "HNSW" else NPROBES
        self.client: Any = None

    def build(self, vectors: Vectors, passes: Masks, folder: Path, threads: int) -> None:
        client = self.connect(str(folder / "rows.db"))
        schema = self.connect.create_schema(auto_id=False)
        schema.add_field("id", self.types.INT64, is_primary=True)
        schema.add_field("vector", self.types.FLOAT_VECTOR, dim=vectors.shape[1])
        names = [_column(f) for f in range(len(passes))]
        for name in names:
            schema.add_field(name, self.types.INT8)
        client.create_collection(TABLE, schema=schema)
        for start, stop in _batches(len(vectors)):
            flags = passes[:, start:stop].T.astype(int).tolist()
            rows = [
                {"id": start + i, "vector": vectors[start + i], **dict(zip(names, values, strict=True))}
                for i, values in enumerate(flags)
            ]
            client.insert(TABLE, rows)
        client.flush(TABLE)
        indexes = client.prepare_index_params()
        parameters = _milvus_build(self.kind, len(vectors))
        indexes.add_index("vector", index_type=self.kind, metric_type="IP", params=parameters)
        for name in names:
            indexes.add_index(name, index_type="INVERTED")
        client.create_index(TABLE, indexes)
        client.load_collection(TABLE)
        client.close()

    def start(self, folder: Path, threads: int) -> None: ...

    def open(self, folder: Path, threads: int) -> None:
        self.client = self.connect(str(folder / "rows.db"))
        self.client.load_collection(TABLE)

    def search(self, queries: Vectors, k: int, effort: int) -> Rows:
        return self.search_filtered(queries, k, effort, "")

    def prepare_filter(self, number: int, passes: NDArray[np.bool_]) -> str:
        return f"{_column(number)} == 1"

    def search_filtered(self, queries: Vectors, k: int, effort: int, prepared: str) -> Rows:
        found = self.client.search(
            TABLE,
            data=list(queries),
            limit=k,
            filter=prepared,
            search_params=_milvus_search(self.kind, effort),
        )
        return padded([[hit["id"] for hit in hits] for hits in found], k)

    def close(self) -> None:
        if self.client is not None:
            self.client.close()


class Milvus:
    """The server 2.3.5 (package milvus), a child process on a free port; one shard."""

    def __init__(self, variant: str) -> None:
        import pymilvus
        from milvus import MilvusServer, MilvusServerConfig

        self.pymilvus: Any = pymilvus
        self.serve: Any = lambda folder: MilvusServer(MilvusServerConfig(data_dir=str(folder / "server")))
        self.kind = variant
        self.efforts = EFS if variant == "HNSW" else NPROBES
        self.server: Any = None
        self.collection: Any = None

    def build(self, vectors: Vectors, passes: Masks, folder: Path, threads: int) -> None:
        self.start(folder, threads)
        api, types = self.pymilvus, self.pymilvus.DataType
        fields = [
            api.FieldSchema("id", types.INT64, is_primary=True),
            api.FieldSchema("vector", types.FLOAT_VECTOR, dim=vectors.shape[1]),
            *(api.FieldSchema(_column(f), types.INT8) for f in range(len(passes))),
        ]
        collection = api.Collection(TABLE, api.CollectionSchema(fields), shards_num=1)
        for start, stop in _batches(len(vectors)):
            flags = passes[:, start:stop].astype(int).tolist()
            collection.insert([list(range(start, stop)), list(vectors[start:stop]), *flags])
        collection.flush()
        parameters = _milvus_build(self.kind, len(vectors))
        collection.create_index(
            "vector", {"index_type": self.kind, "metric_type": "IP", "params": parameters}
        )
        for f in range(len(passes)):
            collection.create_index(_column(f), index_name=_column(f))
        api.utility.wait_for_index_building_complete(TABLE, "vector")
        collection.load()
        collection.release()

    def start(self, folder: Path, threads: int) -> None:
        self.server = self.serve(folder)
        self.server.start()
        self.pymilvus.connections.connect(host="127.0.0.1", port=str(self.server.listen_port))

    def open(self, folder: Path, threads: int) -> None:
        self.collection = self.pymilvus.Collection(TABLE)
        self.collection.load()

    def search(self, queries: Vectors, k: int, effort: int) -> Rows:
        return self.search_filtered(queries, k, effort, None)

    def prepare_filter(self, number: int, passes: NDArray[np.bool_]) -> str:
        return f"{_column(number)} == 1"

    def search_filtered(self, queries: Vectors, k: int, effort: int, prepared: str | None) -> Rows:
        found = self.collection.search(
            list(queries), "vector", _milvus_search(self.kind, effort), limit=k, expr=prepared
        )
        return padded([hits.ids for hits in found], k)

    def close(self) -> None:
        if self.collection is not None:
            self.collection.release()
        if self.server is not None:
            self.pymilvus.connections.disconnect("default")
            self.server.stop()


class LanceDB:
    """One partition of a graph over scalar codes, or inverted lists of product codes, both refined by the exact
    vectors; bitmap indexes on the filter columns, filters applied before the search (its default).
    """

    def __init__(self, variant: str) -> None:
        import lancedb
        import pyarrow

        self.lancedb: Any = lancedb
        self.arrow: Any = pyarrow
        self.kind = variant
        # It compares twice k again exactly, and refuses to look for fewer.
        self.efforts = tuple(ef for ef in EFS if ef >= 2 * K) if variant == "IVF_HNSW_SQ" else NPROBES
        self.table: Any = None

    def build(self, vectors: Vectors, passes: Masks, folder: Path, threads: int) -> None:
        dim = vectors.shape[1]
        columns = {
            "id": np.arange(len(vectors)),
            "vector": self.arrow.FixedSizeListArray.from_arrays(self.arrow.array(vectors.ravel()), dim),
            **{_column(f): flags.astype(np.int8) for f, flags in enumerate(passes)},
        }
        table = self.lancedb.connect(str(folder)).create_table(TABLE, self.arrow.table(columns))
        if self.kind == "IVF_HNSW_SQ":
            settings = {"num_partitions": 1, "m": M, "ef_construction": EF_CONSTRUCTION}
        else:
            settings = {"num_partitions": int(math.sqrt(len(vectors))), "num_sub_vectors": dim // 8}
        table.create_index(metric="dot", index_type=self.kind, **settings)
        for f in range(len(passes)):
            table.create_scalar_index(_column(f), index_type="BITMAP")

    def start(self, folder: Path, threads: int) -> None: ...

    def open(self, folder: Path, threads: int) -> None:
        self.table = self.lancedb.connect(str(folder)).open_table(TABLE)

    def search(self, queries: Vectors, k: int, effort: int) -> Rows:
        return self.search_filtered(queries, k, effort, None)

    def prepare_filter(self, number: int, passes: NDArray[np.bool_]) -> str:
        return f"{_column(number)} = 1"

    def search_filtered(self, queries: Vectors, k: int, effort: int, prepared: str | None) -> Rows:
        query = self.table.search(queries if len(queries) > 1 else queries[0], vector_column_name="vector")
        query = query.distance_type("dot").limit(k).refine_factor(REFINE[self.kind])
        query = query.ef(effort).nprobes(1) if self.kind == "IVF_HNSW_SQ" else query.nprobes(effort)
        if prepared is not None:
            query = query.where(prepared)
        found = query.select(["id", "_distance"]).to_arrow()
        ids = found["id"].to_numpy()
        if len(queries) == 1:
            return padded([ids.tolist()], k)
        of = found["query_index"].to_numpy()
        return padded([ids[of == q].tolist() for q in range(len(queries))], k)

    def close(self) -> None: ...


class Chroma:
    """Persistent client in this process, space "ip". The effort is the collection's own setting, ef_search; an index
    that is open keeps the one it was opened with, so changing it opens the collection anew.
    """

    efforts = EFS

    def __init__(self, variant: str) -> None:
        import chromadb
        from chromadb.api.shared_system_client import SharedSystemClient

        self.connect: Any = chromadb.PersistentClient
        self.forget: Any = SharedSystemClient.clear_system_cache
        self.settings: Any = chromadb.Settings
        self.collection: Any = None
        self.folder = Path()
        self.effort = 0
        self.threads = 1

    def build(self, vectors: Vectors, passes: Masks, folder: Path, threads: int) -> None:
        client = self._client(folder)
        hnsw = {
            "space": "ip",
            "ef_construction": EF_CONSTRUCTION,
            "max_neighbors": M,
            "num_threads": threads,
        }
        collection = client.create_collection(TABLE, configuration={"hnsw": hnsw}, embedding_function=None)
        for start, stop in _batches(len(vectors)):
            flags = passes[:, start:stop].T.astype(int).tolist()
            collection.add(
                ids=[str(row) for row in range(start, stop)],
                embeddings=vectors[start:stop],
                metadatas=[{_column(f): value for f, value in enumerate(values)} for values in flags],
            )

    def start(self, folder: Path, threads: int) -> None: ...

    def open(self, folder: Path, threads: int) -> None:
        self.folder, self.threads = folder, threads
        self._reopen({"num_threads": threads})

    def search(self, queries: Vectors, k: int, effort: int) -> Rows:
        return self.search_filtered(queries, k, effort, None)

    def prepare_filter(self, number: int, passes: NDArray[np.bool_]) -> dict[str, int]:
        return {_column(number): 1}

    def search_filtered(self, queries: Vectors, k: int, effort: int, prepared: dict[str, int] | None) -> Rows:
        if effort != self.effort:
            self._reopen({"ef_search": effort, "num_threads": self.threads})
        found = self.collection.query(query_embeddings=queries, n_results=k, where=prepared, include=[])
        return padded([[int(row) for row in ids] for ids in found["ids"]], k)

    def close(self) -> None: ...

    def _reopen(self, settings: dict[str, int]) -> None:
        """With these settings, which stay on disk."""
        client = self._client(self.folder)
        client.get_collection(TABLE, embedding_function=None).modify(configuration={"hnsw": settings})
        del client
        self.collection = None
        self.forget()
        self.collection = self._client(self.folder).get_collection(TABLE, embedding_function=None)
        self.effort = self.collection.configuration["hnsw"]["ef_search"]

    def _client(self, folder: Path) -> Any:
        return self.connect(str(folder), settings=self.settings(anonymized_telemetry=False))
