"""What comparing a row costs, by how it is reached: the constants of `indexer/vectors/planner.py`, and why the index
is made as it is.

- `scan`, `jump`, `copy` (per row and dimension) and `test` (per row), in microseconds: exact search of neighbours in
  memory, of rows far apart (a bitmap lets one in fifty through), of rows that are copied out first, and asking a
  bitmap. Their proportions decide; what the planner has stands beside them. `test` is what a bitmap adds to the rows.
- exact search over half floats beside float32 (flat), one query on one thread.
- recall of a graph asked by rows within it, and by rows that were held out of it.
- a graph over 8-bit codes whose hits are compared again, beside ours over the exact rows: queries per second at recall
  .98 of held-out rows, and bytes a row.

Good: what was measured is within a factor of two of the constants.

    python -m tests.benchmarks.bench_ways [--rows 100000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.vectors.choice import recall
from indexer.vectors.planner import COPY, JUMP, SCAN, TEST, Chosen
from indexer.vectors.segments import (
    CONSTRUCTION,
    NEIGHBOURS,
    Segment,
    add_rows,
    exact_segment,
    faiss_threads,
    graph_over,
)
from tests.benchmarks.measure import median, print_json
from tests.benchmarks.peers.data import drawing

K, QUERIES, SHARE = 10, 256, 0.02
EFFORTS = (10, 14, 20, 28, 40, 56, 80, 112, 160)
Vectors = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    count: int = parser.parse_args().rows
    drawn = drawing("overlapping")(count + QUERIES)[0]
    rows, held = drawn[:count], drawn[count:].astype(np.float32)
    segment = exact_segment(np.arange(1, count + 1), rows)
    with faiss_threads(1):
        costs = measured_costs(segment, held)
        flat = faiss.IndexFlatIP(segment.dim)
        add_rows(flat, rows)
        exact = {
            "half_ms": ms(lambda q: segment.search_exact(q, K), held),
            "float32_ms": ms(lambda q: flat.search(q, K), held),
        }
    with faiss_threads(2):
        graph = graph_over(segment)
        add_rows(graph, rows)
        coded: Any = faiss.index_factory(segment.dim, f"HNSW{NEIGHBOURS},SQ8", faiss.METRIC_INNER_PRODUCT)
        coded.hnsw.efConstruction = CONSTRUCTION
        coded.train(rows[:50_000].astype(np.float32))
        add_rows(coded, rows)
    links = (graph_bytes(graph) - 2 * segment.dim * count) / count
    with faiss_threads(1):
        ours = Segment(segment.ids, segment.exact, graph)
        within = rows[:: count // QUERIES][:QUERIES].astype(np.float32)
        asked = {
            "within": recall(ours.search_approximate(within, K, 20)[0], segment.search_exact(within, K)[0]),
            "held_out": recall(ours.search_approximate(held, K, 20)[0], segment.search_exact(held, K)[0]),
        }
        refined = faiss.IndexRefine(coded, segment.exact)

        def again(queries: Vectors, effort: int) -> Vectors:
            base: Any = faiss.SearchParametersHNSW(efSearch=effort)  # type: ignore[attr-defined]
            two: Any = faiss.IndexRefineSearchParameters(k_factor=2.0, base_index_params=base)  # type: ignore[call-arg]
            scores: Vectors = refined.search(queries, K, params=two)[0]
            return scores

        graphs = {
            "over_exact_rows": at_recall(lambda q, e: ours.search_approximate(q, K, e)[0], segment, held)
            | {"bytes_a_row": round(2 * segment.dim + links)},
            "over_8_bit_codes": at_recall(again, segment, held)
            | {"bytes_a_row": round(3 * segment.dim + links)},
        }
    for name, value in {**costs, **exact, **asked}.items():
        print(f"{name:12} {value}")
    for name, row in graphs.items():
        print(f"graph {name}: {row}")
    print_json(
        "ways", {"rows": count}, {"costs": costs, "exact": exact, "recall_at_20": asked, "graphs": graphs}
    )


def measured_costs(segment: Segment, queries: Vectors) -> dict[str, Any]:
    rows, dim = segment.count, segment.dim
    mask = np.random.default_rng(3).random(rows) < SHARE
    few, allowed = Chosen(mask), int(mask.sum())
    none = Chosen(np.zeros(rows, dtype=bool))
    scan = ms(lambda q: segment.search_exact(q, K), queries)
    asking = ms(lambda q: segment.search_exact(q, K, none.selector), queries)
    jumping = ms(lambda q: segment.search_exact(q, K, few.selector), queries)
    copying = ms(
        lambda q: exact_segment(few.positions, segment.halves[few.positions]).search_exact(q, K), queries
    )
    per = 1e3 / dim
    return {
        name: {"microseconds": float(f"{value:.3g}"), "planner": planner * 1e3}
        for name, value, planner in (
            ("scan", scan / rows * per, SCAN),
            ("jump", (jumping - asking) / allowed * per, JUMP),
            ("copy", copying / allowed * per, COPY),
            ("test", asking / rows * 1e3, TEST),
        )
    }


def ms(search: Callable[[Vectors], object], queries: Vectors) -> float:
    """Of one query: the median of 25, after five to warm up."""
    times = []
    for query in queries[:30]:
        started = time.perf_counter()
        search(query[None])
        times.append((time.perf_counter() - started) * 1e3)
    return round(median(times[5:]), 4)


def at_recall(search: Callable[[Vectors, int], Vectors], segment: Segment, held: Vectors) -> dict[str, float]:
    """The least effort that finds .98, and queries per second there, median of 7 rounds on a thread."""
    truth = segment.search_exact(held, K)[0]
    for effort in EFFORTS:
        found = recall(search(held, effort), truth)
        if found >= 0.98:
            break
    rates = []
    for _ in range(7):
        started = time.perf_counter()
        search(held, effort)
        rates.append(len(held) / (time.perf_counter() - started))
    return {"effort": effort, "recall": round(found, 4), "qps": round(median(rates))}


def graph_bytes(graph: Any) -> int:
    """Of an index as FAISS writes it, rows included."""
    return len(faiss.serialize_index(graph))


if __name__ == "__main__":
    main()
