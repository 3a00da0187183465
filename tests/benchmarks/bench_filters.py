"""Filters and facets over columns.

What it means: `filter_ms` and `facets_ms` are medians over `--rows` rows with four attributes: the masks of a filter,
and the facets ["gender", {"price": [0, 50, 100]}] over what passes. Good at a million rows: 8 ms together.

    python -m tests.benchmarks.bench_filters [--rows 1000000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import partial

import numpy as np
from numpy.typing import NDArray

from indexer.attributes import AttributeIndex, Part, Type
from indexer.columns import Column, Lists, Numbers, Words
from indexer.facets import facet
from indexer.filters import parse, passing
from tests.benchmarks.measure import median, print_json

ROUNDS = 15
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
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    print_json("filters", vars(arguments), {"filters": measure(arguments.rows)})


def measure(rows: int) -> list[dict[str, object]]:
    attributes = random_attributes(rows)
    print(f"{'filter':40} {'passes':>7} {'filter ms':>10} {'facets ms':>10}")
    out: list[dict[str, object]] = []
    for text in FILTERS:
        condition = parse(text)
        masks = passing(condition, attributes)
        share = float(np.mean(masks[0]))
        filter_ms = median_ms(partial(passing, condition, attributes))
        facets_ms = median_ms(partial(two_facets, attributes, masks))
        print(f"{text:40} {share:7.3f} {filter_ms:10.2f} {facets_ms:10.2f}")
        out.append({"filter": text, "selectivity": share, "filter_ms": filter_ms, "facets_ms": facets_ms})
    return out


def two_facets(attributes: AttributeIndex, masks: Sequence[NDArray[np.bool_]]) -> None:
    facet("gender", [], attributes, masks)
    facet("price", [0, 50, 100], attributes, masks)


def random_attributes(rows: int) -> AttributeIndex:
    rng = np.random.default_rng(7)
    tags = np.repeat(np.arange(rows, dtype=np.int32), rng.integers(0, 4, rows))
    columns: dict[str, Column] = {
        "gender": random_words(rng, rows, 4),
        "brand": random_words(rng, rows, 300),
        "price": Numbers(rng.gamma(2, 30, rows).round(2)),
        "tags": Lists(np.ones(rows, dtype=bool), tags, *astuple(random_words(rng, len(tags), 20))),
    }
    types: dict[str, Type] = {"gender": "string", "brand": "string", "price": "number", "tags": "strings"}
    return AttributeIndex(types, (Part(np.arange(1, rows + 1), columns),))


def random_words(rng: np.random.Generator, count: int, distinct: int) -> Words:
    codes = rng.integers(0, distinct, count).astype(np.int32)
    return Words(codes, tuple(f"w{i}" for i in range(distinct)))


def median_ms(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        run()
        times.append((time.perf_counter() - started) * 1e3)
    return round(median(times), 3)


if __name__ == "__main__":
    main()
