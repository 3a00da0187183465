"""How an index grows: build time, memory, latency and recall from a thousand rows to a million, on log-log axes.

Vectors of 256 numbers whose clusters overlap, `auto`, built on 2 threads, asked one at a time on 1. `memory_mb` is what
a fresh process grows by when it opens the segment and asks. Good: latency grows much more slowly than the rows, recall
stays at .98 or above.

    python -m tests.benchmarks.bench_growth [--rows 1000 10000 100000 1000000] [--out data/growth.png]
    python -m tests.benchmarks.bench_growth --index graph --rows 20000 100000      # GRAPH_GROWTH in choice.py
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from indexer.vectors.choice import build_segment, recall
from indexer.vectors.index import VectorIndex
from indexer.vectors.options import KINDS, BuildOptions
from indexer.vectors.segments import read_segment, write_segment
from indexer.vectors.tuning import Tuning
from tests.benchmarks.measure import percentile, print_json
from tests.benchmarks.peers.data import DEVIATIONS, drawing

K, QUERIES = 10, 500


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--kind", choices=list(DEVIATIONS), default="overlapping")
    parser.add_argument("--index", choices=KINDS, default="auto")
    parser.add_argument("--out", type=Path, default=Path("data/growth.png"))
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        print(json.dumps(asked(arguments.ask)))
        return
    results = []
    print(f"{'rows':>9} {'kind':8} {'build s':>8} {'MB':>8} {'p50 ms':>8} {'p99 ms':>8} {'recall':>7}")
    for count in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            row = {"rows": count, **built(arguments, count, Path(folder))}
            command = [sys.executable, "-m", "tests.benchmarks.bench_growth", "--ask", folder]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            row |= json.loads(ran.stdout.splitlines()[-1])
        results.append(row)
        print(
            f"{count:9d} {row['kind']:8} {row['build_s']:8.2f} {row['memory_mb']:8.1f} "
            f"{row['p50_ms']:8.3f} {row['p99_ms']:8.3f} {row['recall']:7.4f}",
            flush=True,
        )
    if len(results) > 1:
        *_, one, other = results
        power = math.log(other["p50_ms"] / one["p50_ms"]) / math.log(other["rows"] / one["rows"])
        print(f"from {one['rows']:,} rows to {other['rows']:,} p50 grows as rows to the power {power:.2f}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    draw(results, arguments.out)
    shown = {"kind": arguments.kind, "rows": arguments.rows, "index": arguments.index}
    print_json("growth", shown, {"results": results})


def built(arguments: argparse.Namespace, count: int, folder: Path) -> dict[str, Any]:
    drawn = drawing(arguments.kind)
    vectors, queries = drawn(count)[0], drawn(QUERIES)[0]
    options = BuildOptions(kind=arguments.index, threads=2)
    started = time.perf_counter()
    segment = build_segment(np.arange(1, count + 1), vectors, options)
    files = write_segment(segment, folder, "segment")
    seconds = time.perf_counter() - started
    measured = {} if segment.tuning is None else segment.tuning.as_json()
    np.save(folder / "queries.npy", queries)
    (folder / "segment.json").write_text(json.dumps({"files": files, "measured": measured}))
    return {"kind": segment.kind, "build_s": round(seconds, 3)}


def asked(folder: Path) -> dict[str, float]:
    build, queries = json.loads((folder / "segment.json").read_text()), np.load(folder / "queries.npy")
    queries = queries.astype(np.float32)
    process = psutil.Process()
    before = process.memory_info().rss
    segment = read_segment(folder, "segment", build["files"], Tuning.of(build["measured"]))
    index = VectorIndex.over(segment.dim, [segment])
    times, found = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(index.search(query[None], K)[0][0])
        times.append((time.perf_counter() - started) * 1e3)
    memory = (process.memory_info().rss - before) / 1e6
    truth = index.exactly().search(queries, K)[0]
    return {
        "memory_mb": round(memory, 1),
        "p50_ms": round(percentile(times, 0.5), 4),
        "p99_ms": round(percentile(times, 0.99), 4),
        "recall": round(recall(np.stack(found), truth), 4),
    }


def draw(results: list[dict[str, Any]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(14, 3.4), constrained_layout=True)
    rows = [row["rows"] for row in results]
    for axis, (title, names) in zip(
        axes,
        {
            "build, s": ["build_s"],
            "memory, MB": ["memory_mb"],
            "one query, ms": ["p50_ms", "p99_ms"],
            "recall@10": ["recall"],
        }.items(),
        strict=True,
    ):
        for name in names:
            axis.plot(rows, [row[name] for row in results], marker="o", label=name.removesuffix("_ms"))
        axis.set_xscale("log")
        if title != "recall@10":
            axis.set_yscale("log")
        else:
            axis.set_ylim(0.95, 1.001)
        axis.set_title(title)
        axis.set_xlabel("rows")
        axis.grid(True, which="both", alpha=0.3)
        if len(names) > 1:
            axis.legend()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
