"""Percentile bootstrap intervals (Efron 1979): how far a figure would move with another sample of the same kind.

A figure is given as a function of weights: how often each unit (query, picture, caption) is in a resample. So a
thousand resamples are a few products of matrices, and the figure itself is the value at weights of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
"""[b, n_units]: row i is resample i, its sum n_units."""
Statistic = Callable[[Weights], NDArray[np.float64]]
"""Weights -> the figure of each resample, [b], or several figures at once, [b, m]. NaN: it has none there."""
Interval = tuple[float, float]

RESAMPLES = 1000
LEVEL = 0.95
_NUMBERS_AT_ONCE = 4_000_000  # weights held at a time, 32 MB


def intervals(
    statistics: Mapping[str, Statistic], units: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """The 95 % percentile interval of each statistic: float64 [2], or [m, 2] of one with m figures.

    All are over the same resamples of `units` units, so figures of one evaluation may be compared. A figure that
    has no value in a resample leaves that one out; NaN when it has none in any. Raises ValueError if units or
    resamples are under 1.
    """
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in statistics}
    for weights in _resampled(units, resamples, seed):
        for name, statistic in statistics.items():
            parts[name].append(statistic(weights))
    return {name: _percentiles(np.concatenate(values)) for name, values in parts.items()}


def value(statistic: Statistic, units: int) -> NDArray[np.float64]:
    """The figure over the units as they are: 0-d, or [m]."""
    figure: NDArray[np.float64] = statistic(np.ones((1, units)))[0]
    return figure


def mean_of(values: NDArray[np.generic]) -> Statistic:
    """The mean of one value a unit, [n_units]."""
    numbers = values.astype(np.float64)
    return lambda weights: weights @ numbers / weights.sum(axis=1)


def median_of(values: NDArray[np.generic]) -> Statistic:
    """The median of one value a unit, [n_units]; of an even number the mean of the middle two."""
    order = np.argsort(values, kind="stable")
    ordered = values[order].astype(np.float64)

    def median(weights: Weights) -> NDArray[np.float64]:
        through = np.cumsum(weights[:, order], axis=1)
        half = through[:, -1:] / 2
        low, high = (through < half).sum(axis=1), (through <= half).sum(axis=1)
        middle: NDArray[np.float64] = (ordered[low] + ordered[high]) / 2
        return middle

    return median


def sums_by(weights: Weights, groups: NDArray[np.integer], count: int) -> NDArray[np.float64]:
    """Sum of the weights of each group's units: [b, n_units] -> [b, count]; `groups` [n_units] in 0..count - 1."""
    order = np.argsort(groups, kind="stable")
    present, starts = np.unique(groups[order], return_index=True)
    sums = np.zeros((len(weights), count))
    if len(present):
        sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums


def _resampled(units: int, resamples: int, seed: int) -> Iterator[Weights]:
    if units < 1 or resamples < 1:
        raise ValueError(f"need at least one unit and one resample, got {units} and {resamples}")
    rng = np.random.default_rng(seed)
    rows = max(1, _NUMBERS_AT_ONCE // units)
    for start in range(0, resamples, rows):
        b = min(rows, resamples - start)
        drawn = rng.integers(units, size=(b, units)) + np.arange(b)[:, None] * units
        yield np.bincount(drawn.ravel(), minlength=b * units).reshape(b, units).astype(np.float64)


def _percentiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[resamples] -> [2]; [resamples, m] -> [m, 2]."""
    tail = 100 * (1 - LEVEL) / 2
    table = values.reshape(len(values), -1)
    ends = np.full((table.shape[1], 2), np.nan)
    for column, end in zip(table.T, ends, strict=True):
        if (known := column[~np.isnan(column)]).size:
            end[:] = np.percentile(known, [tail, 100 - tail])
    return ends.reshape(*values.shape[1:], 2)
