"""One task on one system in this process: build its index, search in batches, or search one query at a time.

    python -m tests.benchmarks.peers.worker TASK SYSTEM DATA INDEX RESULT [--threads 2] [--effort 40]

Exit code 3: the system's package is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.measure import median, percentile
from tests.benchmarks.peers.data import Data, recall, returned
from tests.benchmarks.peers.system import K, Rows, System, Vectors, make

ROUNDS = 5
WARM_UP = 20
ENOUGH = 0.98
FILTER_SECONDS = 20.0
LEAST_ASKED = 20
"""Of a filter queries are asked for so long, and so many at least: some systems take seconds for one."""
NOT_INSTALLED = 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("system")
    for name in ("data", "index", "result"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--effort", type=int, default=0)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # before a system starts threads of its own: all get the same cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    try:
        system = make(arguments.system)
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_INSTALLED)
    try:
        figures = TASKS[arguments.task](system, Data(arguments.data), arguments)
    finally:
        system.close()
    arguments.result.write_text(json.dumps(figures))


def build(system: System, data: Data, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds from vectors in memory to an index on disk that can be searched."""
    vectors, passes = data.vectors(), data.passes()
    started = time.perf_counter()
    system.build(vectors, passes, arguments.index, arguments.threads)
    return {"build_s": round(time.perf_counter() - started, 2)}


def batches(system: System, data: Data, arguments: argparse.Namespace) -> dict[str, Any]:
    """Queries per second of the whole batch, effort by effort until recall is enough."""
    queries, truth = data.batch()
    system.start(arguments.index, arguments.threads)
    system.open(arguments.index, arguments.threads)
    curve: list[dict[str, float]] = []
    for effort in system.efforts:
        system.search(queries[:WARM_UP], K, effort)
        seconds, found = timed(partial(system.search, queries, K, effort))
        row = {"effort": effort, "recall": recall(found, truth), "qps": round(len(queries) / seconds, 1)}
        curve.append(row)
        if row["recall"] >= ENOUGH:
            break
    best = curve[-1] if curve[-1]["recall"] >= ENOUGH else max(curve, key=lambda row: row["recall"])
    times = [timed(lambda: system.search(queries, K, int(best["effort"])))[0] for _ in range(ROUNDS)]
    rates = [round(len(queries) / seconds, 1) for seconds in times]
    best["qps"] = median(rates)
    return {
        **best,
        "qps_low": min(rates),
        "qps_high": max(rates),
        "curve": curve,
    }


def singles(system: System, data: Data, arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of one query at a time, without and with each filter, at the effort of the batch; memory when those
    without are answered (a batch leaves buffers behind that are no part of an index).
    """
    effort, queries = arguments.effort, data.singles()
    system.start(arguments.index, arguments.threads)
    before = memory_mb()
    system.open(arguments.index, arguments.threads)
    times, _ = one_by_one(lambda q: system.search(q, K, effort), queries)
    figures: dict[str, Any] = {
        "p50_ms": round(percentile(times, 0.5), 4),
        "p95_ms": round(percentile(times, 0.95), 4),
        "memory_mb": round(memory_mb() - before, 1),
        "filters": [],
    }
    passes = data.passes()
    for number, (name, truth) in enumerate(zip(data.filters, data.filter_truth(), strict=True)):
        prepared = system.prepare_filter(number, passes[number])
        times, found = one_by_one(partial(filtered, system, effort, prepared), queries, most_s=FILTER_SECONDS)
        row = {
            **name,
            "asked": len(times),
            "recall": recall(found, truth[: len(times)]),
            "rows_returned": returned(found, passes[number]),
            "p95_ms": round(percentile(times, 0.95), 4),
        }
        figures["filters"].append(row)
    return figures


def filtered(system: System, effort: int, prepared: Any, query: Vectors) -> Rows:
    return system.search_filtered(query, K, effort, prepared)


TASKS: dict[str, Callable[[System, Data, argparse.Namespace], dict[str, Any]]] = {
    "build": build,
    "batches": batches,
    "singles": singles,
}


def timed(search: Callable[[], Rows]) -> tuple[float, Rows]:
    started = time.perf_counter()
    found = search()
    return time.perf_counter() - started, found


def one_by_one(
    search: Callable[[Any], Rows], queries: Any, *, most_s: float = float("inf")
) -> tuple[list[float], Rows]:
    """Milliseconds of each query asked, after a warm-up, and what it found."""
    started = time.perf_counter()
    for query in queries[:WARM_UP]:
        search(query[None])
        if time.perf_counter() - started > most_s / 4:
            break
    times: list[float] = []
    rows = np.full((len(queries), K), -1, dtype=np.int64)
    for row, query in zip(rows, queries, strict=True):
        if len(times) >= LEAST_ASKED and sum(times) > most_s * 1e3:
            break
        seconds, found = timed(partial(search, query[None]))
        times.append(seconds * 1e3)
        row[: found.shape[1]] = found[0]
    return times, rows[: len(times)]


def memory_mb() -> float:
    """VmRSS of this process and of those it started."""
    parents, sizes = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:  # it ended meanwhile
            continue
        parents[int(lines["Pid"])] = int(lines["PPid"])
        sizes[int(lines["Pid"])] = int(lines.get("VmRSS", "0 kB").split()[0]) / 1024
    ours = {os.getpid()}
    while more := {p for p, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(sizes[p] for p in ours)


if __name__ == "__main__":
    main()
