"""What an evaluation gives: figures with their intervals, and what its pictures are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from textmm.bootstrap import Interval, Statistic, intervals, value
from textmm.metrics import CalibrationBins

Shown = str | int
"""A text, or a picture by its place in the data."""


Figures = dict[str, tuple[Statistic, int]]
"""Of each metric, how it comes from weights of units, and how many units there are."""


@dataclass(frozen=True)
class Evaluation:
    task: str
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    """95 % bootstrap interval of each metric."""
    counts: dict[str, int]
    """How many pictures, queries, labels … the figures are over."""
    per_class: dict[str, ClassFigures] = field(default_factory=dict)
    """Classification alone: of each label."""
    pictures: tuple[Picture, ...] = ()
    """What charts.py draws, in no order."""


@dataclass(frozen=True)
class ClassFigures:
    precision: float
    recall: float
    f1: float
    support: int
    """Pictures of this label."""
    intervals: dict[str, Interval]
    """95 % bootstrap intervals of precision, recall and f1."""


@dataclass(frozen=True)
class RecallCurve:
    """recall@k for k = 1, 2, … of each way to ask."""

    ways: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Confusion:
    labels: list[str]
    counts: NDArray[np.int64]
    """[labels, labels]: pictures of label i that were given label j."""


@dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence."""

    bins: CalibrationBins


@dataclass(frozen=True)
class Miss:
    asked: Shown
    right: tuple[Shown, ...]
    came: tuple[Shown, ...]
    """Best first."""
    note: str
    """How bad it is, in a few words."""


@dataclass(frozen=True)
class Misses:
    """The worst first; empty when there was none."""

    name: str
    """What went wrong, as a part of a file's name."""
    misses: list[Miss]


Picture = RecallCurve | Confusion | Reliability | Misses


def measured(figures: Figures) -> tuple[dict[str, float], dict[str, Interval]]:
    """Values and intervals; a figure over no unit is NaN. Figures over as many units share their resamples."""
    metrics, ends = {}, {}
    for units in {units for _, units in figures.values()}:
        same = {name: statistic for name, (statistic, n) in figures.items() if n == units}
        found = intervals(same, units) if units else dict.fromkeys(same, np.full(2, np.nan))
        for name, statistic in same.items():
            metrics[name] = float(value(statistic, units)) if units else float("nan")
            ends[name] = as_interval(found[name])
    return {name: metrics[name] for name in figures}, {name: ends[name] for name in figures}


def as_interval(ends: NDArray[np.float64]) -> Interval:
    return float(ends[0]), float(ends[1])
