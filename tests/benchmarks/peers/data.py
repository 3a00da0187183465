"""Vectors, queries, filters and the exact answers to them, on disk.

Seeded: 1000 centres drawn from N(0, I_32), each point its centre + deviation * N(0, I_32), projected by one random
[32, 256] matrix / sqrt(32), L2-normalised and rounded to float16, as our index keeps them. Queries are further points.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.peers.system import K, Masks, Rows, Vectors

DEVIATIONS = {"apart": 0.5, "overlapping": 1.0}
CLUSTERS, LATENT, DIM = 1000, 32, 256
BATCH, SINGLES = 1000, 200
"""Queries asked all at once, and those asked one at a time."""
SELECTIVITIES = (0.5, 0.1, 0.01, 0.001, 0.0001)
TIES = 32
"""Rows kept of a true answer: the k best and those as good as the last of them, any of which may be found."""
TIE = 1e-6
CHUNK = 50_000


class Data:
    """What `write` left in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        about = json.loads((folder / "data.json").read_text())
        self.rows: int = about["rows"]
        self.filters: list[dict[str, Any]] = about["filters"]
        self._batch: int = about["batch"]

    def vectors(self) -> Vectors:
        rows: NDArray[np.float16] = np.load(self.folder / "vectors.npy")
        return rows.astype(np.float32)

    def passes(self) -> Masks:
        bits = np.load(self.folder / "passes.npy")
        return np.unpackbits(bits, axis=1, count=self.rows).astype(bool)

    def batch(self) -> tuple[Vectors, Rows]:
        queries, truth = np.load(self.folder / "queries.npy"), np.load(self.folder / "truth.npy")
        return queries[: self._batch], truth

    def singles(self) -> Vectors:
        queries: Vectors = np.load(self.folder / "queries.npy")[self._batch :]
        return queries

    def filter_truth(self) -> NDArray[np.int64]:
        truth: NDArray[np.int64] = np.load(self.folder / "filter_truth.npy")
        return truth


def recall(found: Rows, truth: Rows) -> float:
    """Share of the k best that were found, 0..1; rows as good as the last of the k best count as them."""
    right = 0
    for got, true in zip(found, truth, strict=True):
        right += min(K, len(np.intersect1d(got[got >= 0], true[true >= 0])))
    return round(right / (K * len(truth)), 4)


def returned(found: Rows, passes: NDArray[np.bool_]) -> float:
    """Mean number of rows found that pass."""
    return round(float(((found >= 0) & passes[found]).sum(axis=1).mean()), 2)


def drawing(kind: str) -> Callable[[int], tuple[NDArray[np.float16], NDArray[np.int64]]]:
    """Draws so many more vectors of one kind, [n, 256], with the cluster of each."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(CLUSTERS, LATENT)).astype(np.float32)
    projection = rng.normal(size=(LATENT, DIM)).astype(np.float32) / np.float32(np.sqrt(LATENT))

    def draw(count: int) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        of = rng.integers(0, CLUSTERS, count)
        points = np.empty((count, DIM), np.float16)
        for start in range(0, count, CHUNK):
            part = of[start : start + CHUNK]
            noise = rng.normal(size=(len(part), LATENT)).astype(np.float32)
            points[start : start + CHUNK] = stored((centres[part] + DEVIATIONS[kind] * noise) @ projection)
        return points, of

    return draw


def generate(kind: str, rows: int, folder: Path) -> None:
    """Write the vectors of one kind, unless they are there."""
    if (folder / "data.json").exists():
        return
    draw = drawing(kind)
    vectors, clusters = draw(rows)
    queries, _ = draw(BATCH + SINGLES)
    write(folder, vectors, queries, clusters, BATCH)


def stored(vectors: Vectors) -> NDArray[np.float16]:
    rows: NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return rows


def divide(vectors: NDArray[np.float16], folder: Path) -> None:
    """Write real vectors, a seeded part of them as queries; the row nearest of 200 seeded ones is the cluster."""
    rng = np.random.default_rng(1)
    order = rng.permutation(len(vectors))
    held = min(BATCH + SINGLES, len(vectors) // 5)
    queries, rows = vectors[order[:held]], vectors[np.sort(order[held:])]
    seeds = rows[rng.choice(len(rows), min(200, len(rows)), replace=False)].astype(np.float32)
    clusters = np.argmax(rows.astype(np.float32) @ seeds.T, axis=1)
    write(folder, rows, queries, clusters, held * BATCH // (BATCH + SINGLES))


def write(
    folder: Path,
    vectors: NDArray[np.float16],
    queries: NDArray[np.float16],
    clusters: NDArray[np.int64],
    batch: int,
) -> None:
    """Vectors, queries (the first `batch` asked all at once), filters and truth; data.json last."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    filters: list[dict[str, Any]] = []
    passes: list[NDArray[np.bool_]] = []
    makers: dict[str, Callable[[], Iterator[NDArray[np.bool_]]]] = {
        "random": lambda: (_random(rng, len(vectors), share) for share in SELECTIVITIES),
        "correlated": lambda: (_correlated(rng, vectors, clusters, share) for share in SELECTIVITIES),
    }
    for kind, make in makers.items():
        for share, mask in zip(SELECTIVITIES, make(), strict=True):
            filters.append({"selectivity": share, "kind": kind, "passing": int(mask.sum())})
            passes.append(mask)
    asked = queries.astype(np.float32)
    single = asked[batch:]
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", asked)
    np.save(folder / "passes.npy", np.packbits(np.stack(passes), axis=1))
    np.save(folder / "truth.npy", exact(vectors, asked[:batch], np.arange(len(vectors))))
    by_filter = [exact(vectors, single, np.flatnonzero(mask)) for mask in passes]
    np.save(folder / "filter_truth.npy", np.stack(by_filter))
    about = {"rows": len(vectors), "batch": batch, "filters": filters}
    (folder / "data.json").write_text(json.dumps(about))


def _random(rng: np.random.Generator, rows: int, share: float) -> NDArray[np.bool_]:
    """Each row passes with this probability; at least k do."""
    drawn = rng.random(rows)
    mask: NDArray[np.bool_] = drawn <= max(share, np.partition(drawn, K - 1)[K - 1])
    return mask


def _correlated(
    rng: np.random.Generator, vectors: NDArray[np.float16], clusters: NDArray[np.int64], share: float
) -> NDArray[np.bool_]:
    """Whole clusters that hold this share of the rows together; where no cluster is that small, the rows nearest to
    one of them."""
    wanted = max(K, round(share * len(vectors)))
    sizes = np.bincount(clusters)
    order = rng.permutation(len(sizes))
    last = int(np.searchsorted(np.cumsum(sizes[order]), wanted))
    mask: NDArray[np.bool_] = np.isin(clusters, order[:last])
    if last >= 2 and np.count_nonzero(mask) >= K:
        return mask
    centre = vectors[rng.integers(len(vectors))].astype(np.float32)
    scores = np.concatenate([part @ centre for _, part in _chunks(vectors, np.arange(len(vectors)))])
    mask = np.zeros(len(vectors), dtype=bool)
    mask[np.argpartition(-scores, wanted - 1)[:wanted]] = True
    return mask


def exact(vectors: NDArray[np.float16], queries: Vectors, rows: Rows) -> Rows:
    """The best of these rows for each query, [q, TIES]: the k best and their equals, then -1."""
    scores, ids = np.full((len(queries), TIES), -2.0, np.float32), np.full((len(queries), TIES), -1)
    for numbers, part in _chunks(vectors, rows):
        all_scores = np.concatenate([scores, queries @ part.T], axis=1)
        all_ids = np.concatenate([ids, np.broadcast_to(numbers, (len(queries), len(numbers)))], axis=1)
        best = np.argpartition(-all_scores, TIES - 1, axis=1)[:, :TIES]
        scores, ids = np.take_along_axis(all_scores, best, 1), np.take_along_axis(all_ids, best, 1)
    order = np.argsort(-scores, axis=1)
    scores, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
    return np.where(scores >= scores[:, K - 1 : K] - TIE, ids, -1)


def _chunks(vectors: NDArray[np.float16], rows: Rows) -> Iterator[tuple[Rows, Vectors]]:
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        yield part, vectors[part].astype(np.float32)
