"""Search through VectorIndex: latency by size, by filter selectivity, by tail, beside FAISS's own exact index; and
filters and facets over columns.

What it means: `p50_ms` of one query, k = 10, on one thread; every answer is compared with exact search by numpy
(`recall` must be 1: the index is exact). Good: within a tenth of bare FAISS, and filters never slower than no filter.

`filter_ms` and `facets_ms` are medians over `--attribute-rows` rows with four attributes: masks of a filter, facets
["gender", {"price": [0, 50, 100]}] over what passes. Good at a million rows: 8 ms together.

    python -m tests.benchmarks.bench_search [--rows 4000 20000 100000] [--dim 384] [--attribute-rows 1000000]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import astuple

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.attributes import AttributeIndex, Part, Type
from indexer.columns import Column, Lists, Numbers, Words
from indexer.facets import facet
from indexer.filters import parse, passing
from indexer.vectors.index import VectorIndex, build_segment, set_threads
from tests.benchmarks.measure import median, percentile, print_json

K = 10
SELECTIVITIES = (0.5, 0.1, 0.01, 0.001)
FILTERS = (
    "gender = w1",
    "price < 50",
    "gender = w1 and price < 50",
    "brand in (w1, w2, w3)",
    "tags = w3",
    "not (gender = w1 or brand prefix w2)",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[4000, 20_000, 100_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--attribute-rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    set_threads(1)
    rows = []
    print(f"{'rows':>8} {'what':24} {'recall':>7} {'p50 ms':>8} {'p95 ms':>8}")
    for count in arguments.rows:
        for row in measure(count, arguments.dim, arguments.queries):
            rows.append(row)
            print(
                f"{count:8d} {row['what']:24} {row['recall']:7.3f} {row['p50_ms']:8.3f} {row['p95_ms']:8.3f}"
            )
    filters = measure_filters(arguments.attribute_rows)
    print_json("search", vars(arguments), {"results": rows, "filters": filters})


def measure(count: int, dim: int, queries: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(7)
    vectors, asked = normalised(rng.normal(size=(count, dim))), normalised(rng.normal(size=(queries, dim)))
    ids = np.arange(1, count + 1)
    whole = VectorIndex(dim, build_segment(ids, vectors, "Flat"))
    half = count // 2
    split = VectorIndex(dim, build_segment(ids[:-half], vectors[:-half], "Flat"))
    split = split.with_changes(ids[-half:], vectors[-half:], ids[:0])
    bare = faiss.IndexFlatIP(dim)
    bare.add(vectors)
    everything = np.ones(count, dtype=bool)
    out = [
        timed("faiss IndexFlatIP", lambda q: bare.search(q, K)[1] + 1, asked, vectors, everything),
        timed("segment", lambda q: whole.search(q, K)[1], asked, vectors, everything),
        timed("half of it in the tail", lambda q: split.search(q, K)[1], asked, vectors, everything),
    ]
    for selectivity in SELECTIVITIES:
        passes = rng.random(count) < selectivity
        allowed = ids[passes]
        if len(allowed) >= K:
            name = f"filter, {100 * selectivity:g} % pass"
            out.append(
                timed(name, lambda q, a=allowed: whole.search(q, K, allowed=a)[1], asked, vectors, passes)
            )
    return [{"rows": count, **row} for row in out]


def measure_filters(count: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(7)
    tags = np.repeat(np.arange(count, dtype=np.int32), rng.integers(0, 4, count))
    columns: dict[str, Column] = {
        "gender": random_words(rng, count, 4),
        "brand": random_words(rng, count, 300),
        "price": Numbers(rng.gamma(2, 30, count).round(2)),
        "tags": Lists(np.ones(count, dtype=bool), tags, *astuple(random_words(rng, len(tags), 20))),
    }
    types: dict[str, Type] = {"gender": "string", "brand": "string", "price": "number", "tags": "strings"}
    attributes = AttributeIndex(types, (Part(np.arange(1, count + 1), columns),))
    print(f"\n{'filter':40} {'passes':>7} {'filter ms':>10} {'facets ms':>10}")
    out: list[dict[str, object]] = []
    for text in FILTERS:
        condition = parse(text)
        masks = passing(condition, attributes)
        share = float(np.mean(masks[0]))
        filter_ms = median_ms(lambda c=condition: passing(c, attributes))
        facets_ms = median_ms(
            lambda m=masks: (facet("gender", [], attributes, m), facet("price", [0, 50, 100], attributes, m))
        )
        print(f"{text:40} {share:7.3f} {filter_ms:10.2f} {facets_ms:10.2f}")
        out.append({"filter": text, "selectivity": share, "filter_ms": filter_ms, "facets_ms": facets_ms})
    return out


def random_words(rng: np.random.Generator, count: int, distinct: int) -> Words:
    codes = rng.integers(0, distinct, count).astype(np.int32)
    return Words(codes, tuple(f"w{i}" for i in range(distinct)))


def median_ms(run) -> float:  # type: ignore[no-untyped-def]
    run()
    times = []
    for _ in range(15):
        started = time.perf_counter()
        run()
        times.append((time.perf_counter() - started) * 1e3)
    return round(median(times), 3)


def timed(what, search, queries, vectors, passes) -> dict[str, object]:  # type: ignore[no-untyped-def]
    search(queries[:1])
    times, right = [], 0
    for query in queries:
        started = time.perf_counter()
        found = search(query[None])[0]
        times.append((time.perf_counter() - started) * 1e3)
        scores = np.where(passes, vectors @ query, -2.0)
        right += len(set(found.tolist()) & set((np.argsort(-scores)[:K] + 1).tolist()))
    return {
        "what": what,
        "recall": right / (K * len(queries)),
        "p50_ms": round(percentile(times, 0.5), 4),
        "p95_ms": round(percentile(times, 0.95), 4),
    }


def normalised(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


if __name__ == "__main__":
    main()
