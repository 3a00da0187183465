"""Quality figures of retrieval, classification, calibration and answers: pure functions, numpy in, float out.

In the retrieval metrics row i of `scores` is a query, column j an item, higher is closer; `relevant` is a
bool matrix of the same shape saying which items are right for a query, at least one for each. Ties count in
the query's favour: of items with equal scores the right ones come first. So a model that gives all items one
score looks perfect: when a figure is too good, look at the spread of the scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textmm.caption_metrics import caption_words

CALIBRATION_BINS = 15
_ARTICLES = {"a", "an", "the"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)}


@dataclass(frozen=True)
class ClassScores:
    """A value a class each, float64 [..., n_classes], 0..1, or NaN."""

    precision: NDArray[np.float64]
    """0 for a class that was true and never given."""
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationBins:
    """Answers by confidence, in bins of equal width over 0..1; float64 [..., bins] each."""

    count: NDArray[np.float64]
    confidence: NDArray[np.float64]
    """Sum of the confidences."""
    right: NDArray[np.float64]
    """How many are right."""


def recall_at_k(scores: NDArray[np.floating], relevant: NDArray[np.bool_], k: int) -> float:
    """Share of queries with at least one right item among their k best, 0..1.

    Raises ValueError if shapes differ, a score is NaN, a query has no right item or k is not in 1..n_items.
    """
    _check_k(k, scores)
    return float(np.mean(first_right_ranks(scores, relevant) <= k))


def precision_at_k(scores: NDArray[np.floating], relevant: NDArray[np.bool_], k: int) -> float:
    """Share of right items among the k best, mean over the queries, 0..1.

    A query with fewer than k right items cannot reach 1. Raises ValueError as `recall_at_k`.
    """
    return float(np.mean(precisions_at_k(scores, relevant, k)))


def median_rank(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> float:
    """Median over the queries of the rank of the best right item; 1 is the best, half ranks are possible.

    Raises ValueError if the shapes differ, a score is NaN or a query has no right item.
    """
    return float(np.median(first_right_ranks(scores, relevant)))


def mean_rank(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> float:
    """Mean over the queries of the rank of the best right item; 1 is the best.

    Raises ValueError as `median_rank`.
    """
    return float(np.mean(first_right_ranks(scores, relevant)))


def ndcg_at_k(scores: NDArray[np.floating], relevant: NDArray[np.bool_], k: int) -> float:
    """Normalised discounted cumulative gain of the k best, mean over the queries, 0..1; see `ndcgs_at_k`."""
    return float(np.mean(ndcgs_at_k(scores, relevant, k)))


def first_right_ranks(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rank, from 1, of each query's best right item: [n_queries, n_items] -> [n_queries].

    Raises ValueError if the shapes differ, a score is NaN or a query has no right item.
    """
    _check_relevant(scores, relevant)
    best = np.where(relevant, scores, -np.inf).max(axis=1)
    ranks: NDArray[np.int64] = 1 + np.count_nonzero(scores > best[:, None], axis=1)
    return ranks


def precisions_at_k(scores: NDArray[np.floating], relevant: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Share of right items among the k best of each query, [n_queries]. Raises ValueError as `recall_at_k`."""
    shares: NDArray[np.float64] = _right_among_best(scores, relevant, k).mean(axis=1)
    return shares


def ndcgs_at_k(scores: NDArray[np.floating], relevant: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain of the k best of each query, [n_queries], 0..1.

    A right item at rank r gains 1 / log2(r + 1), a wrong one nothing; the sum is divided by the best one
    possible, that of all right items first (Järvelin and Kekäläinen 2002). Raises ValueError as
    `recall_at_k`.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains = _right_among_best(scores, relevant, k) @ discounts
    right_items = np.minimum(relevant.sum(axis=1), k)
    shares: NDArray[np.float64] = gains / np.cumsum(discounts)[right_items - 1]
    return shares


def zero_shot_accuracy(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Share of pictures whose highest score is that of their own label, 0..1.

    `scores` is [n, n_labels], `labels` [n] holds column numbers. A picture gets one answer, so here ties do
    not help: of equal scores the first counts.
    Raises ValueError if the shapes do not fit, a score is NaN, n is 0 or a label is not in 0..n_labels - 1.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"need scores [n, n_labels], labels [n]; got {list(scores.shape)}, {list(labels.shape)}"
        )
    if labels.size == 0 or labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"labels must be one or more numbers in 0..{scores.shape[1] - 1}, got {labels[:10]}")
    _check_numbers(scores)
    return float(np.mean(scores.argmax(axis=1) == labels))


def class_scores(
    hits: NDArray[np.float64], given: NDArray[np.float64], truth: NDArray[np.float64]
) -> ClassScores:
    """Precision, recall and F1 of each class, from how often it was given and right, given, and true: [..., n_classes].

    NaN is what a class does not have: recall one that was never true, the others one that was never given either.
    """
    known = (truth > 0) | (given > 0)
    return ClassScores(
        precision=np.where(known, _ratio(hits, given), np.nan),
        recall=np.where(truth > 0, _ratio(hits, truth), np.nan),
        f1=np.where(known, _ratio(2 * hits, given + truth), np.nan),
    )


def confusion_matrix(
    truth: NDArray[np.integer], given: NDArray[np.integer], classes: int
) -> NDArray[np.int64]:
    """How many pictures of class i were given class j: two [n] -> [classes, classes]."""
    counts: NDArray[np.int64] = np.bincount(truth * classes + given, minlength=classes * classes)
    return counts.reshape(classes, classes)


def probabilities(scores: NDArray[np.floating], logit_scale: float) -> NDArray[np.float64]:
    """Softmax over the columns of cosines times the model's `logit_scale`, as CLIP's; rows sum to 1."""
    _check_numbers(scores)
    logits = logit_scale * scores.astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
    return shares


def expected_calibration_error(
    confidences: NDArray[np.floating], right: NDArray[np.bool_], *, bins: int = CALIBRATION_BINS
) -> float:
    """How far confidence and accuracy lie apart, mean over the answers by bins of confidence, 0..1.

    0: of the answers given with confidence p a share p is right (Guo et al. 2017, equation 3). It grows a little
    with fewer answers a bin. Raises ValueError if there is no answer or a confidence is not in 0..1.
    """
    numbers = calibration_bins_of(confidences, bins)
    counted = CalibrationBins(
        np.bincount(numbers, minlength=bins).astype(np.float64),
        np.bincount(numbers, weights=confidences, minlength=bins).astype(np.float64),
        np.bincount(numbers, weights=right, minlength=bins).astype(np.float64),
    )
    return float(calibration_error(counted))


def calibration_bins_of(confidences: NDArray[np.floating], bins: int = CALIBRATION_BINS) -> NDArray[np.int64]:
    """The bin of each confidence, 0..bins - 1; bin i holds i / bins < p <= (i + 1) / bins, the first one also 0."""
    if confidences.size == 0 or not ((confidences >= 0) & (confidences <= 1)).all():
        raise ValueError(f"confidences must be one or more numbers in 0..1, got {confidences[:10]}")
    numbers: NDArray[np.int64] = np.digitize(confidences, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    return numbers


def calibration_error(counted: CalibrationBins) -> NDArray[np.float64]:
    """The expected calibration error of answers sorted into bins: [..., bins] -> [...]."""
    apart: NDArray[np.float64] = np.abs(counted.confidence - counted.right).sum(axis=-1)
    total: NDArray[np.float64] = counted.count.sum(axis=-1)
    return apart / total


def answers_right(given: Sequence[str], right: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
    """Whether each answer is one of its question's right ones, [n].

    Compared are `caption_words` without articles, with zero to ten as digits, as VQA's evaluation does (Antol et al.
    2015): "The Two!" is "2". Raises ValueError if there is no answer, or not one non-empty list of right ones for
    each.
    """
    if not given or len(given) != len(right):
        raise ValueError(f"need a list of right answers an answer, got {len(right)} for {len(given)}")
    for i, own in enumerate(right):
        if not own:
            raise ValueError(f"question {i} has no right answer")
    return np.array(
        [_answer(said) in {_answer(one) for one in own} for said, own in zip(given, right, strict=True)]
    )


def answer_accuracy(given: Sequence[str], right: Sequence[Sequence[str]]) -> float:
    """Share of questions answered rightly, 0..1; see `answers_right`."""
    return float(np.mean(answers_right(given, right)))


def _answer(text: str) -> tuple[str, ...]:
    return tuple(_DIGITS.get(word, word) for word in caption_words(text) if word not in _ARTICLES)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """part / whole, 0 where whole is."""
    shares: NDArray[np.float64] = np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0)
    return shares


def _right_among_best(scores: NDArray[np.floating], relevant: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    """Whether the item at each of the ranks 1..k is a right one: [n_queries, n_items] -> [n_queries, k]."""
    _check_k(k, scores)
    _check_relevant(scores, relevant)
    order = np.lexsort((~relevant, -scores), axis=1)[:, :k]
    return np.take_along_axis(relevant, order, axis=1)


def _check_k(k: int, scores: NDArray[np.floating]) -> None:
    if scores.ndim != 2 or not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k must be in 1..n_items, got {k} for scores {list(scores.shape)}")


def _check_relevant(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> None:
    if scores.ndim != 2 or scores.size == 0 or relevant.shape != scores.shape:
        raise ValueError(
            "scores and relevant must both be [n_queries, n_items] and not empty, "
            f"got {list(scores.shape)} and {list(relevant.shape)}"
        )
    if relevant.dtype != np.bool_:
        raise ValueError(f"relevant must be a bool matrix, got {relevant.dtype}")
    answerable = relevant.any(axis=1)
    if not answerable.all():
        raise ValueError(f"query {int(answerable.argmin())} has no right item; leave such queries out")
    _check_numbers(scores)


def _check_numbers(scores: NDArray[np.floating]) -> None:
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN; was a picture or a text encoded to zero or NaN?")
