"""A large collection that is written to: how soon an insert is found, and what folding does to searches.

`--rows` vectors of 256 numbers with four attributes are imported into SQLite and loaded. Then, with `auto`:

- `fresh_ms`: from the return of a committed insert of one vector to the search in the same process that finds it:
  taking the change up, and the search. Good: p99 at most 50 ms at a million rows.
- `search_ms` and `while_folding_ms`: one query at a time, without and with a thread that inserts and folds all the
  while. Good: no pause as long as a fold.
- `load_s`, `memory_mb`: loading the collection's view in a fresh process, and what that process grew by.

    python -m tests.benchmarks.bench_live [--rows 1000000] [--place DIR]
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from indexer.config import IndexConfig
from indexer.database import Database
from indexer.live import LiveIndex
from indexer.store.collections import Collection, Collections
from indexer.vector_ingest import VectorIngest
from tests.benchmarks.measure import percentile, print_json
from tests.benchmarks.peers.data import drawing
from textmm.vector_sources import VectorItem

FRESH, SEARCHES = 300, 1000
CONFIG = IndexConfig(build_threads=2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--place", type=Path, default=Path("data/bench-live"), help="kept, and used again")
    arguments = parser.parse_args()
    place = arguments.place / str(arguments.rows)
    place.mkdir(parents=True, exist_ok=True)
    database = Database(f"sqlite:///{place / 'live.sqlite'}")
    database.upgrade()
    draw = drawing("overlapping")
    vectors, queries = draw(arguments.rows)[0], draw(SEARCHES)[0].astype(np.float32)
    shop = filled(database, place, vectors)
    figures: dict[str, object] = {}

    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    live = LiveIndex(database, place / "indexes", CONFIG)
    view = live.view(shop)
    assert view is not None
    figures["load_s"] = round(time.perf_counter() - started, 2)
    figures["memory_mb"] = round((psutil.Process().memory_info().rss - before) / 1e6)
    figures["segments"] = [(p.segment.kind, p.segment.count) for p in view.images.vectors.parts]
    figures["fresh_ms"] = shown(fresh(database, live, shop, queries))
    figures["search_ms"] = shown(searches(live, shop, queries))
    stop, folds = threading.Event(), [0]
    writer = threading.Thread(target=write_and_fold, args=(database, live, shop, stop, folds))
    writer.start()
    figures["while_folding_ms"] = shown(searches(live, shop, queries, until=lambda: folds[0] >= 3))
    stop.set()
    writer.join()
    for name, said in figures.items():
        print(f"{name:18} {said}")
    print_json("live", {"rows": arguments.rows}, figures)


def filled(database: Database, place: Path, vectors: NDArray[np.float16]) -> Collection:
    """The collection with all vectors, in segments on disk; made when it is not there."""
    collections = Collections(database)
    if collections.find("shop") is None:
        made = collections.create("shop", is_bank=False, limits={})
        collections.make_external(made.collection_id, vectors.shape[1])
    shop = collections.get("shop")
    if collections.counts(shop.collection_id)[0] < len(vectors):
        started = time.perf_counter()
        for _ in VectorIngest(database).run(items(vectors), shop, source="bench"):
            pass
        print(f"imported in {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
        live = LiveIndex(database, place / "indexes", CONFIG)
        live.view(collections.get("shop"))
        live.fold(shop.collection_id)
        print(f"loaded and folded in {time.perf_counter() - started:.1f} s")
    return collections.get("shop")


def items(vectors: NDArray[np.float16]) -> Iterator[VectorItem]:
    rng = np.random.default_rng(0)
    for i, vector in enumerate(vectors):
        gender, brand = int(rng.integers(4)), int(rng.integers(300))
        price = round(float(rng.gamma(2, 30)), 2)
        words = {"gender": f"g{gender}", "brand": f"b{brand}"}
        yield VectorItem(f"k{i:07}", vector, None, {**words, "price": price, "new": gender == 0})


def fresh(database: Database, live: LiveIndex, shop: Collection, queries: NDArray[np.float32]) -> list[float]:
    ingest, times = VectorIngest(database), []
    rng = np.random.default_rng(1)
    for i in range(FRESH):
        vector = rng.normal(size=(1, queries.shape[1]))[0]
        record, _ = ingest.put(VectorItem(f"fresh{time.time_ns()}-{i}", vector, None, {"price": i}), shop)
        started = time.perf_counter()
        view = live.take_up(Collections(database).get("shop"))
        assert view is not None
        unit: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
        scores, _ = view.images.search(unit[None], 1)
        times.append((time.perf_counter() - started) * 1e3)
        assert scores[0, 0] > 0.99, record.key
    return times


def searches(live, shop, queries, until=lambda: True) -> list[float]:  # type: ignore[no-untyped-def]
    times: list[float] = []
    while True:
        for query in queries:
            started = time.perf_counter()
            view = live.view(shop)
            assert view is not None
            view.images.search(query[None], 10)
            times.append((time.perf_counter() - started) * 1e3)
        if until():
            return times


def write_and_fold(database, live, shop, stop, folds) -> None:  # type: ignore[no-untyped-def]
    """A thousand inserts and a fold, again and again."""
    rng, ingest = np.random.default_rng(2), VectorIngest(database)
    while not stop.is_set():
        rows = rng.normal(size=(1000, shop.generation.embed_dim))
        batch = (VectorItem(f"w{time.time_ns()}-{i}", row, None, {"price": i}) for i, row in enumerate(rows))
        for _ in ingest.run(batch, shop, source="writer"):
            pass
        live.take_up(Collections(database).get("shop"))
        live.fold_due()
        folds[0] += 1


def shown(times: list[float]) -> dict[str, float]:
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    out = {name: round(percentile(times, share), 3) for name, share in shares.items()}
    return {**out, "max": round(max(times), 3), "count": len(times)}


if __name__ == "__main__":
    main()
