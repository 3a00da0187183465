"""Quality figures of retrieval, classification and captions: pure functions, numpy in, float out.

In the retrieval metrics row i of `scores` is a query, column j an item, higher is closer; `relevant` is a
bool matrix of the same shape saying which items are right for a query, at least one for each. Ties count in
the query's favour: of items with equal scores the right ones come first. So a model that gives all items one
score looks perfect: when a figure is too good, look at the spread of the scores.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LONGEST_NGRAM = 4
_CIDER_SIGMA = 6.0
_CIDER_SCALE = 10.0
_TINY, _SMALL = 1e-15, 1e-9  # pycocoevalcap's; they keep captions without words from dividing by zero

Ngram = tuple[str, ...]


def recall_at_k(scores: NDArray[np.floating], relevant: NDArray[np.bool_], k: int) -> float:
    """Share of queries with at least one right item among their k best, 0..1.

    Raises ValueError if shapes differ, a score is NaN, a query has no right item or k is not in 1..n_items.
    """
    _check_k(k, scores)
    return float(np.mean(_best_ranks(scores, relevant) <= k))


def precision_at_k(scores: NDArray[np.floating], relevant: NDArray[np.bool_], k: int) -> float:
    """Share of right items among the k best, mean over the queries, 0..1.

    A query with fewer than k right items cannot reach 1. Raises ValueError as `recall_at_k`.
    """
    _check_k(k, scores)
    return float(np.mean(_right_by_rank(scores, relevant)[:, :k]))


def median_rank(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> float:
    """Median over the queries of the rank of the best right item; 1 is the best, half ranks are possible.

    Raises ValueError if the shapes differ, a score is NaN or a query has no right item.
    """
    return float(np.median(_best_ranks(scores, relevant)))


def mean_rank(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> float:
    """Mean over the queries of the rank of the best right item; 1 is the best.

    Raises ValueError as `median_rank`.
    """
    return float(np.mean(_best_ranks(scores, relevant)))


def ndcg_at_k(scores: NDArray[np.floating], relevant: NDArray[np.bool_], k: int) -> float:
    """Normalised discounted cumulative gain of the k best, mean over the queries, 0..1.

    A right item at rank r gains 1 / log2(r + 1), a wrong one nothing; the sum is divided by the best one
    possible, that of all right items first (Järvelin and Kekäläinen 2002). Raises ValueError as
    `recall_at_k`.
    """
    _check_k(k, scores)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains = _right_by_rank(scores, relevant)[:, :k] @ discounts
    right_items = np.minimum(relevant.sum(axis=1), k)
    return float(np.mean(gains / np.cumsum(discounts)[right_items - 1]))


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


def bleu_4(candidates: list[str], references: list[list[str]]) -> float:
    """Corpus BLEU-4 (Papineni et al. 2002), 0..1, of one caption a picture against the references it has.

    As pycocoevalcap computes it: the brevity penalty takes the closest reference length, the shorter one of
    two equally close, and without any 4-gram in common the result is nearly 0, not 0. Words are those of
    `caption_words`; published figures use Penn Treebank tokens and so differ a little.
    Raises ValueError if there is no candidate, or not one non-empty list of references for each.
    """
    _check_captions(candidates, references)
    correct, guessed = np.zeros(_LONGEST_NGRAM), np.zeros(_LONGEST_NGRAM)
    candidate_length = reference_length = 0
    for candidate, own_references in zip(candidates, references, strict=True):
        words = caption_words(candidate)
        reference_words = [caption_words(reference) for reference in own_references]
        candidate_length += len(words)
        reference_length += min((abs(len(w) - len(words)), len(w)) for w in reference_words)[1]
        for i in range(_LONGEST_NGRAM):
            counts = _ngrams(words, i + 1)
            allowed: Counter[Ngram] = Counter()
            for other in reference_words:
                allowed |= _ngrams(other, i + 1)  # the most that any one reference has
            correct[i] += (counts & allowed).total()
            guessed[i] += counts.total()

    precision = float(np.prod((correct + _TINY) / (guessed + _SMALL)) ** (1 / _LONGEST_NGRAM))
    length_ratio = (candidate_length + _TINY) / (reference_length + _SMALL)
    return precision * math.exp(min(0.0, 1 - 1 / length_ratio))


def cider_d(candidates: list[str], references: list[list[str]]) -> float:
    """CIDEr-D (Vedantam et al. 2015), 0..10, mean of one caption a picture against the references it has.

    On the scale of pycocoevalcap's `Cider`: what papers print as 1.2 or, times 100, as 120. An n-gram weighs
    log(pictures / pictures with it in a reference), so the figure depends on the whole corpus and is 0 for a
    single picture. Lengths are compared in 2-grams, as there. Words are those of `caption_words`, see
    `bleu_4`.
    Raises ValueError if there is no candidate, or not one non-empty list of references for each.
    """
    _check_captions(candidates, references)
    references_ngrams = [[_all_ngrams(reference) for reference in own] for own in references]
    pictures_with: Counter[Ngram] = Counter()
    for own_references in references_ngrams:
        pictures_with.update(set().union(*own_references))

    scores = []
    for candidate, own_references in zip(candidates, references_ngrams, strict=True):
        ngrams = _all_ngrams(candidate)
        total = sum(_cider_similarity(ngrams, own, pictures_with, len(candidates)) for own in own_references)
        scores.append(_CIDER_SCALE * total / len(own_references))
    return sum(scores) / len(scores)


def caption_words(text: str) -> list[str]:
    """Lower-case words in order: punctuation and symbols removed, the rest split on white space.

    "A red T-shirt!" gives ["a", "red", "tshirt"].
    """
    return "".join(c for c in text.lower() if unicodedata.category(c)[0] not in "PS").split()


def _best_ranks(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rank, from 1, of each query's best right item: [n_queries, n_items] -> [n_queries]."""
    _check_relevant(scores, relevant)
    best = np.where(relevant, scores, -np.inf).max(axis=1)
    ranks: NDArray[np.int64] = 1 + np.count_nonzero(scores > best[:, None], axis=1)
    return ranks


def _right_by_rank(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the item at each rank is a right one, best rank first: [n_queries, n_items] -> the same."""
    _check_relevant(scores, relevant)
    order = np.lexsort((~relevant, -scores), axis=1)
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


def _check_captions(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not candidates or len(candidates) != len(references):
        raise ValueError(
            f"need a list of references a candidate, got {len(references)} for {len(candidates)}"
        )
    for i, own_references in enumerate(references):
        if not own_references:
            raise ValueError(f"candidate {i} has no reference")


def _ngrams(words: Sequence[str], n: int) -> Counter[Ngram]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _all_ngrams(text: str) -> Counter[Ngram]:
    words = caption_words(text)
    counts: Counter[Ngram] = Counter()
    for n in range(1, _LONGEST_NGRAM + 1):
        counts.update(_ngrams(words, n))
    return counts


def _cider_similarity(
    candidate: Counter[Ngram], reference: Counter[Ngram], pictures_with: Counter[Ngram], pictures: int
) -> float:
    """Mean over n of the clipped cosines of tf-idf vectors, times a Gaussian of the length difference."""
    dots, candidate_squares, reference_squares = (np.zeros(_LONGEST_NGRAM) for _ in range(3))
    for ngram in candidate.keys() | reference.keys():
        n = len(ngram) - 1
        weight = math.log(pictures / max(1, pictures_with[ngram]))
        in_candidate, in_reference = candidate[ngram] * weight, reference[ngram] * weight
        dots[n] += min(in_candidate, in_reference) * in_reference
        candidate_squares[n] += in_candidate**2
        reference_squares[n] += in_reference**2
    norms = np.sqrt(candidate_squares * reference_squares)
    cosines = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    difference = _length_in_2_grams(candidate) - _length_in_2_grams(reference)
    return float(cosines.mean()) * math.exp(-(difference**2) / (2 * _CIDER_SIGMA**2))


def _length_in_2_grams(ngrams: Counter[Ngram]) -> int:
    return sum(count for ngram, count in ngrams.items() if len(ngram) == 2)
