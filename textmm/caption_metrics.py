"""How close captions are to references: BLEU-4, ROUGE-L and CIDEr-D, as pycocoevalcap computes them.

Words are those of `caption_words`; published figures use Penn Treebank tokens and so differ a little.
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
_ROUGE_BETA = 1.2
_TINY, _SMALL = 1e-15, 1e-9  # pycocoevalcap's; they keep captions without words from dividing by zero

Ngram = tuple[str, ...]


def bleu_4(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU-4 (Papineni et al. 2002), 0..1, of one caption a picture against the references it has.

    The brevity penalty takes the closest reference length, the shorter one of two equally close, and without any
    4-gram in common the result is nearly 0, not 0.
    Raises ValueError if there is no candidate, or not one non-empty list of references for each.
    """
    return float(bleu_of(bleu_counts(candidates, references).sum(axis=0)))


def bleu_counts(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """What BLEU-4 adds up over a corpus, a row a caption, float64 [n, 10].

    n-grams of length 1..4 that a reference has, n-grams of length 1..4, words, words of the closest reference.
    """
    _check_captions(candidates, references)
    rows = np.zeros((len(candidates), 2 * _LONGEST_NGRAM + 2))
    for row, candidate, own_references in zip(rows, candidates, references, strict=True):
        words = caption_words(candidate)
        reference_words = [caption_words(reference) for reference in own_references]
        for i in range(_LONGEST_NGRAM):
            counts = _ngrams(words, i + 1)
            allowed: Counter[Ngram] = Counter()
            for other in reference_words:
                allowed |= _ngrams(other, i + 1)  # the most that any one reference has
            row[i] = (counts & allowed).total()
            row[_LONGEST_NGRAM + i] = counts.total()
        row[-2:] = len(words), min((abs(len(w) - len(words)), len(w)) for w in reference_words)[1]
    return rows


def bleu_of(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """BLEU-4 of corpora whose rows of `bleu_counts` add up to these: [..., 10] -> [...]."""
    correct, guessed = totals[..., :_LONGEST_NGRAM], totals[..., _LONGEST_NGRAM:-2]
    precision = np.prod((correct + _TINY) / (guessed + _SMALL), axis=-1) ** (1 / _LONGEST_NGRAM)
    length_ratio = (totals[..., -2] + _TINY) / (totals[..., -1] + _SMALL)
    score: NDArray[np.float64] = precision * np.exp(np.minimum(0.0, 1 - 1 / length_ratio))
    return score


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L (Lin 2004), 0..1, mean of one caption a picture against the references it has; see `rouge_ls`."""
    return float(np.mean(rouge_ls(candidates, references)))


def rouge_ls(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """ROUGE-L of each caption, float64 [n]: F with beta 1.2 of the longest common subsequence of words.

    Precision and recall are the best over the references, each for itself.
    Raises ValueError if there is no candidate, or not one non-empty list of references for each.
    """
    _check_captions(candidates, references)
    scores = np.zeros(len(candidates))
    for i, (candidate, own_references) in enumerate(zip(candidates, references, strict=True)):
        words = caption_words(candidate)
        in_common = [(_subsequence(words, other), len(other)) for other in map(caption_words, own_references)]
        precision = max(common for common, _ in in_common) / max(1, len(words))
        recall = max(common / max(1, length) for common, length in in_common)
        if precision > 0:
            weight = _ROUGE_BETA**2
            scores[i] = (1 + weight) * precision * recall / (recall + weight * precision)
    return scores


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """CIDEr-D (Vedantam et al. 2015), 0..10, mean of one caption a picture against the references it has.

    On the scale of pycocoevalcap's `Cider`: what papers print as 1.2 or, times 100, as 120. An n-gram weighs
    log(pictures / pictures with it in a reference), so the figure depends on the whole corpus and is 0 for a
    single picture. Lengths are compared in 2-grams, as there. Words are those of `caption_words`, see
    `bleu_4`.
    Raises ValueError if there is no candidate, or not one non-empty list of references for each.
    """
    return float(np.mean(cider_ds(candidates, references)))


def cider_ds(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """CIDEr-D of each caption, float64 [n]; see `cider_d`."""
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
    return np.array(scores)


def caption_words(text: str) -> list[str]:
    """Lower-case words in order: punctuation and symbols removed, the rest split on white space.

    "A red T-shirt!" gives ["a", "red", "tshirt"].
    """
    return "".join(c for c in text.lower() if unicodedata.category(c)[0] not in "PS").split()


def _check_captions(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not candidates or len(candidates) != len(references):
        raise ValueError(
            f"need a list of references a candidate, got {len(references)} for {len(candidates)}"
        )
    for i, own_references in enumerate(references):
        if not own_references:
            raise ValueError(f"candidate {i} has no reference")


def _subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    before = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for j, candidate in enumerate(other):
            row.append(before[j] + 1 if word == candidate else max(row[j], before[j + 1]))
        before = row
    return before[-1]


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
