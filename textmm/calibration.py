"""Temperatures that make a model's probabilities mean what they say, fitted on labelled pictures.

calibration.json beside a model's weights. It is no part of the model_id: no vector depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textmm.classify import check_template, probabilities

FILE = "calibration.json"
TEMPLATES = ("{}",)
"""Prompts of a model that has no calibration."""
LEAST_TOLD = 0.75
"""Labelled data know a part only of what may be asked: what they say nothing of gets answers of less confidence."""
SCALES = (1.0, 1000.0)
"""1 / temperature is sought between these."""


@dataclass(frozen=True)
class AttributeCalibration:
    values: tuple[str, ...]
    """As they are shown; they are asked for in lower case."""
    temperature: float
    at_least: float | None
    """A value with less probability is not told; None: no probability is enough, a caption has to say the same. So it
    is where none was, and where captions speak of the attribute anyway: if they name none of its values, it is another.
    """

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)
        if len(self.values) < 2:
            raise ValueError(f"an attribute needs two values, got {list(self.values)}")
        if self.at_least is not None and not 0 <= self.at_least <= 1:
            raise ValueError(f"at_least must be 0..1 or null, got {self.at_least}")


@dataclass(frozen=True)
class Calibration:
    temperature: float
    """Of any label set: cosines are divided by it before the softmax."""
    templates: tuple[str, ...] = TEMPLATES
    """Prompts that it was fitted with; `{}` is the label."""
    attributes: Mapping[str, AttributeCalibration] = field(default_factory=dict)
    answer_at_least: float = LEAST_TOLD
    """A less probable answer to a question is not given."""
    fitted_on: str = ""
    """In words, for whoever reads the file."""
    choices_at_least: float = 0.0
    """Choices that together are less probable than this, among all that could be said, are none that the model would
    say: it does not know."""

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)
        if not self.templates:
            raise ValueError("templates are empty: give at least one, such as {}")
        for template in self.templates:
            check_template(template)


def read(folder: Path) -> Calibration | None:
    """Of the model in this folder; None when it has none. ValueError names the file that does not fit."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        attributes = {
            name: AttributeCalibration(**{**one, "values": tuple(one["values"])})
            for name, one in stored.pop("attributes").items()
        }
        return Calibration(**{**stored, "templates": tuple(stored["templates"]), "attributes": attributes})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no calibration: {error}; make it with `textmm calibrate`") from error


def to_json(calibration: Calibration) -> str:
    return json.dumps(asdict(calibration), ensure_ascii=False, indent=1) + "\n"


def fit_temperature(sets: Sequence[tuple[NDArray[np.floating], NDArray[np.integer]]]) -> float:
    """The temperature with the least negative log likelihood (Guo et al. 2017), of one or more label sets alike.

    Each set: cosines [n, L] and the right label of each row [n]. The likelihood is convex in 1 / temperature, so a
    golden section search finds it. Raises ValueError without rows.
    """
    if not sets or any(len(labels) == 0 for _, labels in sets):
        raise ValueError("a temperature cannot be fitted without pictures")

    def loss(log_scale: float) -> float:
        return float(np.mean([_surprise(*one, float(np.exp(-log_scale))) for one in sets]))

    low, high = np.log(SCALES[0]), np.log(SCALES[1])
    golden = (np.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return float(np.exp(-(low + high) / 2))


def least_probability(
    guessed: NDArray[np.floating], labels: NDArray[np.integer], precision: float
) -> float | None:
    """From which probability on the best guess is right in `precision` of the cases; None: at none.

    `guessed`: probabilities [n, L]. The bound that lets most guesses through is taken.
    """
    return least_confidence(guessed.max(1), guessed.argmax(1) == labels, precision)


def least_confidence(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], precision: float
) -> float | None:
    """From which confidence [n] on what is said is right in `precision` of the cases; None: at none."""
    order = np.argsort(-confidence, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(right) + 1)
    good = np.flatnonzero(share >= precision)
    return float(confidence[order][good[-1]]) if good.size else None


def _surprise(scores: NDArray[np.floating], labels: NDArray[np.integer], temperature: float) -> float:
    right = probabilities(scores, temperature)[np.arange(len(labels)), labels]
    return float(-np.log(right.clip(1e-300)).mean())


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be more than 0, got {temperature}")
