from collections.abc import Callable, Sequence

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from textmm.bootstrap import value
from textmm.caption_metrics import (
    bleu_4,
    bleu_counts,
    bleu_of,
    caption_words,
    cider_d,
    cider_ds,
    rouge_l,
    rouge_ls,
)

WORDS = "a the red blue dog cat runs sits on in grass snow two men".split()  # noqa: SIM905


def corpus(seed: int, pictures: int) -> tuple[list[str], list[list[str]]]:
    """Captions and one to five references each, some nearly the same."""
    rng = np.random.default_rng(seed)
    candidates, references = [], []
    for _ in range(pictures):
        said = rng.choice(WORDS, size=int(rng.integers(1, 12))).tolist()
        own = []
        for _ in range(int(rng.integers(1, 6))):
            changed = [str(rng.choice(WORDS)) if rng.random() < 0.4 else word for word in said]
            own.append(" ".join(changed + rng.choice(WORDS, size=int(rng.integers(0, 4))).tolist()))
        candidates.append(" ".join(said))
        references.append(own)
    return candidates, references


def theirs(
    scorer: object, candidates: Sequence[str], references: Sequence[list[str]]
) -> tuple[object, object]:
    """Score and scores of a pycocoevalcap scorer."""
    assert isinstance(scorer, Bleu | Cider | Rouge)
    more = {"verbose": 0} if isinstance(scorer, Bleu) else {}
    score, scores = scorer.compute_score(
        dict(enumerate(references)), {i: [said] for i, said in enumerate(candidates)}, **more
    )
    return score, scores


@pytest.mark.parametrize("seed", range(3))
def test_captions_score_as_in_pycocoevalcap(seed: int) -> None:
    candidates, references = corpus(seed, 30)

    bleu, _ = theirs(Bleu(4), candidates, references)
    cider, ciders = theirs(Cider(), candidates, references)
    rouge, rouges = theirs(Rouge(), candidates, references)

    assert isinstance(bleu, list)
    assert bleu_4(candidates, references) == pytest.approx(bleu[3])
    assert cider_d(candidates, references) == pytest.approx(cider)
    assert cider_ds(candidates, references) == pytest.approx(ciders)
    assert rouge_l(candidates, references) == pytest.approx(rouge)
    assert rouge_ls(candidates, references) == pytest.approx(rouges)


def test_bleu_of_a_resample_is_that_of_its_captions() -> None:
    candidates, references = corpus(5, 20)
    counts = bleu_counts(candidates, references)
    weights = np.random.default_rng(5).multinomial(20, [1 / 20] * 20, size=8)

    for row, found in zip(weights, bleu_of(weights @ counts), strict=True):
        drawn = np.repeat(np.arange(20), row)
        resample = [candidates[i] for i in drawn], [references[i] for i in drawn]
        assert found == pytest.approx(bleu_4(*resample))
    assert float(value(lambda w: bleu_of(w @ counts), 20)) == pytest.approx(bleu_4(candidates, references))


def test_the_caption_that_is_a_reference_is_perfect_and_one_without_a_word_in_common_is_nothing() -> None:
    references = [["a red dog on the grass", "dog"], ["two men sit in snow"]]
    right, wrong = ["A red dog, on the grass!", "Two men sit in snow."], ["blue", ""]

    assert (bleu_4(right, references), rouge_l(right, references)) == pytest.approx((1.0, 1.0))
    assert cider_d(
        ["a red dog on the grass", "two men sit in snow"], [r[:1] for r in references]
    ) == pytest.approx(10)
    assert (rouge_l(wrong, references), cider_d(wrong, references)) == (0.0, 0.0)
    assert bleu_4(wrong, references) < 1e-3


def test_words_are_lower_case_without_punctuation() -> None:
    assert caption_words("A red  T-shirt!") == ["a", "red", "tshirt"]
    assert caption_words("…") == []


@pytest.mark.parametrize("metric", [bleu_4, rouge_l, cider_d])
def test_captions_without_references_are_refused(
    metric: Callable[[Sequence[str], Sequence[Sequence[str]]], float],
) -> None:
    with pytest.raises(ValueError, match="need a list of references a candidate, got 0 for 0"):
        metric([], [])
    with pytest.raises(ValueError, match="need a list of references a candidate, got 1 for 2"):
        metric(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="candidate 1 has no reference"):
        metric(["a", "b"], [["a"], []])
