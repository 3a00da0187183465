"""The answers that went wrong most, to be looked at: the worst first, at most WORST."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textmm.figures import Miss, Shown
from textmm.metrics import first_right_ranks

WORST = 12
CAME = 5
"""Best answers that are shown with a miss."""
RIGHT = 2
"""Right answers that are shown with a miss."""


def last_ranked(
    scores: NDArray[np.floating],
    relevant: NDArray[np.bool_],
    asked: Sequence[Shown],
    items: Sequence[Shown],
) -> list[Miss]:
    """The queries whose best right item ranks last, if it is not first."""
    ranks = first_right_ranks(scores, relevant)
    misses = []
    for query in np.argsort(-ranks, kind="stable")[:WORST]:
        if ranks[query] > 1:
            order = np.argsort(-scores[query], kind="stable")
            right = order[relevant[query, order]][:RIGHT]
            note = f"right one at {ranks[query]}"
            misses.append(Miss(asked[query], *_items(items, right, order[:CAME]), note))
    return misses


def fewest_right(
    scores: NDArray[np.floating],
    relevant: NDArray[np.bool_],
    asked: Sequence[Shown],
    precisions: NDArray[np.float64],
) -> list[Miss]:
    """The queries with the fewest right pictures among the first ten."""
    misses = []
    for query in np.argsort(precisions, kind="stable")[:WORST]:
        if precisions[query] < 1:
            order = np.argsort(-scores[query], kind="stable")
            wrong, right = order[~relevant[query, order]][:CAME], order[relevant[query, order]][:RIGHT]
            note = f"precision@10 {precisions[query]:.1f}"
            misses.append(Miss(asked[query], *_items(range(scores.shape[1]), right, wrong), note))
    return misses


def surest_mistakes(
    scores: NDArray[np.floating],
    shares: NDArray[np.float64],
    truth: NDArray[np.int64],
    labels: Sequence[str],
    images: Sequence[int],
) -> list[Miss]:
    """The wrong labels given with most confidence."""
    given = scores.argmax(1)
    wrong = np.flatnonzero(given != truth)
    worst = wrong[np.argsort(-shares[wrong].max(axis=1), kind="stable")[:WORST]]
    return [
        Miss(images[i], (labels[truth[i]],), (labels[given[i]],), f"confidence {shares[i].max():.2f}")
        for i in worst
    ]


def _items(
    items: Sequence[Shown], right: NDArray[np.int64], came: NDArray[np.int64]
) -> tuple[tuple[Shown, ...], tuple[Shown, ...]]:
    return tuple(items[i] for i in right.tolist()), tuple(items[i] for i in came.tolist())
