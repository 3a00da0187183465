"""Answers to questions about a data set, measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textmm.bootstrap import Statistic, Weights
from textmm.calibration import LEAST_TOLD, least_confidence
from textmm.classified import binned
from textmm.encoder import Answer, Encoder
from textmm.evaluate import DataSet
from textmm.figures import Evaluation, Figures, Miss, Misses, Reliability, measured
from textmm.metrics import CalibrationBins, answers_right, calibration_error
from textmm.misses import WORST
from textmm.questions import THINGS, USUAL, Questions
from textmm.sources import listed

Answering = Callable[[Sequence[Image.Image], Sequence[str]], Sequence[Answer]]
"""Pictures, and a question to each -> an answer to each."""
YES_NO = "yes_no_"
CHOICES = 4
"""Answers to choose among, where it is measured when one of them may be given."""


@dataclass(frozen=True)
class Asked:
    image: int
    """Place of the picture in the data."""
    text: str
    answers: tuple[str, ...]
    """All that are right."""
    kind: str = ""
    """What is asked about, to have a figure of its own."""


def ask(
    answer: Answering, data: DataSet, questions: Sequence[Asked], *, at_least: float = LEAST_TOLD
) -> Evaluation:
    """Share of questions answered rightly (see `metrics.answers_right`), in all and of each kind; of those that are
    told, with a confidence of `at_least`; and how far confidences are from what they say.

    Pictures are what is resampled: the questions to one picture stand or fall together.
    """
    if not questions:
        raise ValueError("there are no questions to ask")
    answers = answer([data.images[q.image] for q in questions], [q.text for q in questions])
    given, confidence = [one.text for one in answers], np.array([one.confidence for one in answers])
    right = answers_right(given, [q.answers for q in questions])
    images, picture = np.unique([q.image for q in questions], return_inverse=True)
    kinds, told = np.array([q.kind for q in questions]), confidence >= at_least

    def bins(weights: Weights) -> CalibrationBins:
        return binned(confidence, right, weights[:, picture])

    figures: Figures = {
        "answer_accuracy": (_share(right, picture), len(images)),
        "answers_told": (_share(told, picture), len(images)),
        "answer_accuracy_told": (_share(right[told], picture[told]), len(images)),
        "expected_calibration_error": (lambda weights: calibration_error(bins(weights)), len(images)),
    }
    for kind in sorted(set(kinds) - {""}):
        asked = kinds == kind
        figures[f"answer_accuracy_{kind}"] = _share(right[asked], picture[asked]), len(images)
    surest = np.argsort(-np.where(right, -1.0, confidence), kind="stable")[: min(WORST, int((~right).sum()))]
    wrong = [
        Miss(
            questions[i].image,
            questions[i].answers,
            (given[i],),
            f"{questions[i].text} ({confidence[i]:.2f})",
        )
        for i in surest.tolist()
    ]
    return Evaluation(
        "visual_question_answering",
        *measured(figures),
        {"images": len(images), "questions": len(questions)},
        pictures=(Reliability(bins(np.ones((1, len(images))))), Misses("answers", wrong)),
    )


def questions_about(
    data: DataSet, file: str = USUAL, *, language: str = "en", rounds: int = 1, seed: int = 11
) -> list[Asked]:
    """The questions that the data have in columns `question` and `answer`; else `rounds` to each picture, made of its
    attributes or sentences as `file` says (see `Questions`), without those whose right answer is one of many lists of
    things. ValueError for a language that `file` lacks."""
    own = [
        Asked(i, str(item.attributes["question"]), listed(item, "answer"))
        for i, item in enumerate(data.items)
        if "question" in item.attributes and listed(item, "answer")
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
    """Share of questions of which it is so, a weight a picture: NaN where no picture has such a question."""

    def share(weights: Weights) -> NDArray[np.float64]:
        asked = weights[:, picture]
        total = asked.sum(axis=1)
        shares: NDArray[np.float64] = np.where(total > 0, asked @ right / np.maximum(total, 1), np.nan)
        return shares

    return share


def least_of_choices(
    encoder: Encoder, data: DataSet, asked: Sequence[Asked], at_least: float, precision: float
) -> float:
    """How probable choices must be together, among all that could be said, so that a best one of confidence `at_least`
    is right in `precision` of the cases where half of the questions come without a right choice. 0 where no kind of
    question has answers enough to choose among.
    """
    rng = np.random.default_rng(17)
    of_kind: dict[str, list[str]] = {}
    for q in asked:
        of_kind.setdefault(q.kind, []).extend(q.answers)
    rows, choices = [], []
    for q in asked:
        others = sorted(set(of_kind[q.kind]) - set(q.answers))
        if len(others) >= CHOICES:
            given = [str(one) for one in rng.choice(others, CHOICES, replace=False)]
            rows.append(q)
            choices.append([q.answers[0], *given[1:]] if rng.random() < 0.5 else given)
    if not rows:
        return 0.0
    ranked = encoder.rank_answers([data.images[q.image] for q in rows], [q.text for q in rows], choices)
    sure = [i for i, one in enumerate(ranked) if one[0].confidence >= at_least]
    mass = np.array([sum(one.free for one in ranked[i]) for i in sure])
    right = np.array([ranked[i][0].text in rows[i].answers for i in sure], dtype=bool)
    found = least_confidence(mass, right, precision)
    return 1.0 if found is None else float(f"{found:.3g}")


def least_told(encoder: Encoder, data: DataSet, asked: Sequence[Asked], precision: float) -> float:
    """From which confidence on answers are right in `precision` of the cases, LEAST_TOLD at least; 1 where at none."""
    given = encoder.answer([data.images[q.image] for q in asked], [q.text for q in asked])
    right = answers_right([one.text for one in given], [q.answers for q in asked])
    found = least_confidence(
        np.array([one.confidence for one in given]), np.array(right, dtype=bool), precision
    )
    return 1.0 if found is None else max(LEAST_TOLD, round(found, 3))
