"""Answers to questions about a data set, measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textmm.bootstrap import Statistic, Weights
from textmm.calibration import LEAST_TOLD, least_confidence
from textmm.encoder import Encoder
from textmm.evaluate import DataSet
from textmm.figures import Evaluation, Figures, Miss, Misses, measured
from textmm.metrics import answers_right
from textmm.misses import WORST
from textmm.questions import THINGS, Questions

Answer = Callable[[Sequence[Image.Image], Sequence[str]], Sequence[str]]
"""Pictures, and a question to each -> an answer to each."""
QUESTIONS = "questions.toml"
"""Those that training asks."""
YES_NO = "yes_no_"


@dataclass(frozen=True)
class Asked:
    image: int
    """Place of the picture in the data."""
    text: str
    answers: tuple[str, ...]
    """All that are right."""
    kind: str = ""
    """What is asked about, to have a figure of its own."""


def ask(answer: Answer, data: DataSet, questions: Sequence[Asked]) -> Evaluation:
    """Share of questions answered rightly (see `metrics.answers_right`), in all and of each kind.

    Pictures are what is resampled: the questions to one picture stand or fall together.
    """
    if not questions:
        raise ValueError("there are no questions to ask")
    given = answer([data.images[q.image] for q in questions], [q.text for q in questions])
    right = answers_right(given, [q.answers for q in questions])
    images, picture = np.unique([q.image for q in questions], return_inverse=True)
    kinds = np.array([q.kind for q in questions])
    figures: Figures = {"answer_accuracy": (_share(right, picture), len(images))}
    for kind in sorted(set(kinds) - {""}):
        asked = kinds == kind
        figures[f"answer_accuracy_{kind}"] = _share(right[asked], picture[asked]), len(images)
    wrong = [
        Miss(q.image, q.answers, (said,), q.text)
        for q, said, is_right in zip(questions, given, right, strict=True)
        if not is_right
    ]
    return Evaluation(
        "visual_question_answering",
        *measured(figures),
        {"images": len(images), "questions": len(questions)},
        pictures=(Misses("answers", wrong[:WORST]),),
    )


def questions_about(
    data: DataSet, file: str = QUESTIONS, *, language: str = "en", rounds: int = 1, seed: int = 11
) -> list[Asked]:
    """The questions that the data have in columns `question` and `answer`; else `rounds` to each picture, made of its
    attributes or sentences as `file` says (see `Questions`), without those whose right answer is one of many lists of
    things. ValueError for a language that `file` lacks."""
    own = [
        Asked(i, str(item.attributes["question"]), (str(item.attributes["answer"]),))
        for i, item in enumerate(data.items)
        if {"question", "answer"} <= item.attributes.keys()
    ]
    if own:
        return own
    maker, rng = Questions(file, data.items), np.random.default_rng(seed)
    if language not in maker.languages:
        raise ValueError(f"{file} has no questions in {language!r}; it has {', '.join(maker.languages)}")
    made = [
        (i, maker.ask(item, rng, language=language))
        for _ in range(rounds)
        for i, item in enumerate(data.items)
    ]
    return [
        Asked(i, q.text, (q.answer,), q.about if q.yes is None else YES_NO + q.about)
        for i, q in made
        if q is not None and not (q.about == THINGS and q.yes is None)
    ]


def _share(right: NDArray[np.bool_], picture: NDArray[np.int64]) -> Statistic:
    """Share of questions answered rightly, a weight a picture: NaN where no picture has such a question."""

    def share(weights: Weights) -> NDArray[np.float64]:
        asked = weights[:, picture]
        total = asked.sum(axis=1)
        shares: NDArray[np.float64] = np.where(total > 0, asked @ right / np.maximum(total, 1), np.nan)
        return shares

    return share


def least_told(encoder: Encoder, data: DataSet, asked: Sequence[Asked], precision: float) -> float:
    """From which confidence on answers are right in `precision` of the cases, LEAST_TOLD at least; 1 where at none."""
    given = encoder.answer([data.images[q.image] for q in asked], [q.text for q in asked])
    right = answers_right([one.text for one in given], [q.answers for q in asked])
    found = least_confidence(
        np.array([one.confidence for one in given]), np.array(right, dtype=bool), precision
    )
    return 1.0 if found is None else max(LEAST_TOLD, round(found, 3))
