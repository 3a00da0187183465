"""Pictures with the labels they have and were given: figures over them and by label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textmm.bootstrap import Interval, Weights, intervals, mean_of, sums_by, value
from textmm.figures import ClassFigures, as_interval
from textmm.metrics import (
    CALIBRATION_BINS,
    CalibrationBins,
    ClassScores,
    calibration_bins_of,
    calibration_error,
    class_scores,
)


def binned(confidence: NDArray[np.float64], right: NDArray[np.bool_], weights: Weights) -> CalibrationBins:
    """Answers [n] by confidence, each counted as its weights [..., n] say."""
    bins = calibration_bins_of(confidence)
    parts = (weights, weights * confidence, weights * right)
    return CalibrationBins(*(sums_by(part, bins, CALIBRATION_BINS) for part in parts))


@dataclass(frozen=True)
class Classified:
    """Which label each picture has, which it was given, and how surely."""

    truth: NDArray[np.int64]
    given: NDArray[np.int64]
    confidence: NDArray[np.float64]
    classes: int

    def metrics(self) -> tuple[dict[str, float], dict[str, Interval]]:
        names = ("acc1", "mean_per_class_recall", "macro_precision", "macro_f1", "expected_calibration_error")
        ends = intervals({"all": self._overall}, len(self.truth))["all"]
        at = value(self._overall, len(self.truth))
        return (
            dict(zip(names, at.tolist(), strict=True)),
            {name: as_interval(pair) for name, pair in zip(names, ends, strict=True)},
        )

    def per_class(self, labels: Sequence[str]) -> dict[str, ClassFigures]:
        ends = intervals({"all": self._each}, len(self.truth))["all"].reshape(3, self.classes, 2)
        at = value(self._each, len(self.truth)).reshape(3, self.classes)
        support = np.bincount(self.truth, minlength=self.classes)
        return {
            label: ClassFigures(
                precision=float(at[0, i]),
                recall=float(at[1, i]),
                f1=float(at[2, i]),
                support=int(support[i]),
                intervals={
                    name: as_interval(ends[row, i]) for row, name in enumerate(("precision", "recall", "f1"))
                },
            )
            for i, label in enumerate(labels)
        }

    def binned(self, weights: Weights) -> CalibrationBins:
        return binned(self.confidence, self.given == self.truth, weights)

    def _overall(self, weights: Weights) -> NDArray[np.float64]:
        scores = self._scores(weights)
        return np.stack(
            [
                mean_of(self.given == self.truth)(weights),
                np.nanmean(scores.recall, axis=1),
                np.nanmean(scores.precision, axis=1),
                np.nanmean(scores.f1, axis=1),
                calibration_error(self.binned(weights)),
            ],
            axis=1,
        )

    def _each(self, weights: Weights) -> NDArray[np.float64]:
        scores = self._scores(weights)
        return np.concatenate([scores.precision, scores.recall, scores.f1], axis=1)

    def _scores(self, weights: Weights) -> ClassScores:
        return class_scores(
            sums_by(weights * (self.given == self.truth), self.truth, self.classes),
            sums_by(weights, self.given, self.classes),
            sums_by(weights, self.truth, self.classes),
        )
