"""Import of vectors that were made elsewhere, file to commit, into SQLite on disk.

What it means: `rows_per_s` of a first import, with a title and four attributes a row and keys in no order, from one
Parquet file of a single row group, or from NPY; `again_s` of the same import run again, which finds everything there
and so is what an import that broke off spends on what it has; `memory_mb` is the most that the process grew by over
what it had when it began. `start_s` is `textmm index` of ten rows. Good: 8,000 rows a second and more with 256 numbers,
memory that hardly grows with --rows, a start below a second. An index is not built here.

    python -m tests.benchmarks.bench_import [--rows 50000] [--dim 256] [--npy]
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from indexer.database import IMPORT_CACHE_KIB, Database
from indexer.report import IngestReport
from indexer.store.collections import Collections
from indexer.vector_ingest import VectorIngest
from tests.benchmarks.measure import print_json
from textmm.vector_sources import read_vectors

SEED = 11
STATUS = Path("/proc/self/status")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument(
        "--npy", action="store_true", help="vectors in NPY with their words in Parquet beside it"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = written(folder / "many", arguments.rows, arguments.dim, arguments.npy)
        database = Database(f"sqlite:///{folder}/textmm.sqlite", page_cache_kib=IMPORT_CACHE_KIB)
        database.upgrade()
        there = Collections(database).create("bench", is_bank=False, limits={})
        Collections(database).make_external(there.collection_id, arguments.dim)
        first = imported(database, source)
        again = imported(database, source)
        database.close()
        start_s = started(written(folder / "few", 10, arguments.dim, arguments.npy), folder / "data")
    for name, run in (("first", first), ("again", again)):
        print(f"{name:6} {run['seconds']:7.1f} s {run['rows_per_s']:9.0f} rows/s  busy s: {run['stages_s']}")
    print(
        f"memory grew by {first['memory_mb']:.0f} MB, then {again['memory_mb']:.0f} MB; start {start_s:.2f} s"
    )
    figures = {"first": first, "again_s": again["seconds"], "again": again, "start_s": round(start_s, 2)}
    print_json("import", vars(arguments), {"rows_per_s": first["rows_per_s"], **figures})


def written(path: Path, rows: int, dim: int, npy: bool) -> Path:
    """A source of random vectors, made by a process of its own, whose memory goes with it."""
    maker = multiprocessing.get_context("spawn").Process(target=write_source, args=(path, rows, dim, npy))
    maker.start()
    maker.join()
    assert maker.exitcode == 0
    return path.with_suffix(".npy" if npy else ".parquet")


def write_source(path: Path, rows: int, dim: int, npy: bool) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(SEED)
    columns = {
        "key": [f"product-{n:09}" for n in rng.permutation(rows)],
        "title": [f"a thing of number {n}" for n in range(rows)],
        "brand": [f"brand {n}" for n in rng.integers(0, 50, rows)],
        "price": rng.uniform(1, 100, rows).round(2),
        "stock": rng.integers(0, 1000, rows),
        "sale": rng.integers(0, 2, rows).astype(bool),
    }
    vectors = rng.standard_normal((rows, dim), dtype=np.float32)
    if npy:
        np.save(path.with_suffix(".npy"), vectors)
    else:
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
    parquet.write_table(pa.table(columns), path.with_suffix(".parquet"), row_group_size=rows)


def imported(database: Database, source: Path) -> dict[str, float | dict[str, float]]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5))
    before, started = memory_mb("VmRSS"), time.perf_counter()
    total = IngestReport()
    collection = Collections(database).get("bench")
    for report in VectorIngest(database).run(read_vectors(str(source)), collection, source=str(source)):
        total.add(report)
    seconds = time.perf_counter() - started
    assert total.failed == []
    return {
        "seconds": round(seconds, 2),
        "rows_per_s": round((total.added + total.unchanged) / seconds),
        "memory_mb": round(memory_mb("VmHWM") - before, 1),
        "stages_s": {stage: round(busy, 2) for stage, busy in total.stages_s.items()},
    }


def memory_mb(name: str) -> float:
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 1024


def started(source: Path, data: Path) -> float:
    command = [sys.executable, "-m", "search.cli.main", "index", str(source)]
    began = time.perf_counter()
    subprocess.run([*command, "--collection", "few", "--data", str(data)], check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
