import math
import random
import statistics

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

from textmm.metrics import (
    bleu_4,
    caption_words,
    cider_d,
    mean_rank,
    median_rank,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
    zero_shot_accuracy,
)

Scores = NDArray[np.floating]
Relevant = NDArray[np.bool_]


# Retrieval


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_recall_at_k_is_the_share_of_queries_with_a_right_item_in_the_sorted_list(
    scores: Scores, relevant: Relevant, k: int
) -> None:
    expected = [any(row[:k]) for row in sorted_rows(scores, relevant)]

    assert recall_at_k(scores, relevant, k) == pytest.approx(statistics.fmean(expected))


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_precision_at_k_is_the_share_of_right_items_in_the_sorted_list(
    scores: Scores, relevant: Relevant, k: int
) -> None:
    expected = [sum(row[:k]) / k for row in sorted_rows(scores, relevant)]

    assert precision_at_k(scores, relevant, k) == pytest.approx(statistics.fmean(expected))


def test_ranks_are_those_of_the_first_right_item_in_the_sorted_list(
    scores: Scores, relevant: Relevant
) -> None:
    expected = [row.index(True) + 1 for row in sorted_rows(scores, relevant)]

    assert median_rank(scores, relevant) == statistics.median(expected)
    assert mean_rank(scores, relevant) == pytest.approx(statistics.fmean(expected))


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_ndcg_at_k_is_the_gain_of_the_sorted_list_over_that_of_the_best_list(
    scores: Scores, relevant: Relevant, k: int
) -> None:
    rows = sorted_rows(scores, relevant)
    expected = [gain(row[:k]) / gain(sorted(row, reverse=True)[:k]) for row in rows]

    assert ndcg_at_k(scores, relevant, k) == pytest.approx(statistics.fmean(expected))


def test_retrieval_figures_of_a_case_worked_out_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4]])
    relevant = np.array([[True, False, True, False], [False, True, False, False]])

    assert recall_at_k(scores, relevant, 1) == 0.5
    assert recall_at_k(scores, relevant, 3) == 1.0
    assert precision_at_k(scores, relevant, 3) == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert median_rank(scores, relevant) == 2.0
    assert mean_rank(scores, relevant) == 2.0
    assert ndcg_at_k(scores, relevant, 3) == pytest.approx((1.5 / (1 + 1 / math.log2(3)) + 0.5) / 2)


def test_ties_count_in_the_querys_favour() -> None:
    scores = np.zeros((1, 4), np.float32)
    relevant = np.array([[False, False, True, True]])

    assert recall_at_k(scores, relevant, 1) == 1.0
    assert precision_at_k(scores, relevant, 2) == 1.0
    assert mean_rank(scores, relevant) == 1.0
    assert ndcg_at_k(scores, relevant, 4) == 1.0


def test_recall_of_random_scores_is_near_chance() -> None:
    scores = np.random.default_rng(2).normal(size=(2000, 50))
    relevant = np.eye(2000, 50, dtype=bool) | (np.arange(50) == np.arange(2000)[:, None] % 50)

    assert recall_at_k(scores, relevant, 5) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("k", [0, -1, 10])
def test_a_k_outside_the_items_is_refused(scores: Scores, relevant: Relevant, k: int) -> None:
    for metric in (recall_at_k, precision_at_k, ndcg_at_k):
        with pytest.raises(ValueError, match=rf"k must be in 1\.\.n_items, got {k}"):
            metric(scores, relevant, k)


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        (np.zeros((2, 3)), np.ones((3, 2), bool), r"got \[2, 3\] and \[3, 2\]"),
        (np.zeros((0, 3)), np.ones((0, 3), bool), "not empty"),
        (np.zeros((2, 3)), np.ones((2, 3), int), "must be a bool matrix, got int64"),
        (np.zeros((2, 3)), np.array([[True, False, False], [False] * 3]), "query 1 has no right item"),
        (np.array([[0.1, math.nan]]), np.array([[True, False]]), "NaN"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(scores: Scores, relevant: Relevant, message: str) -> None:
    for metric in (median_rank, mean_rank):
        with pytest.raises(ValueError, match=message):
            metric(scores, relevant)
    for metric_at_k in (recall_at_k, precision_at_k, ndcg_at_k):
        with pytest.raises(ValueError, match=message):
            metric_at_k(scores, relevant, 1)


# Classification


def test_zero_shot_accuracy_is_the_share_of_pictures_whose_best_label_is_theirs() -> None:
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 4, (200, 6)) / 4, rng.integers(0, 6, 200)
    expected = [
        row.index(max(row)) == label for row, label in zip(scores.tolist(), labels.tolist(), strict=True)
    ]

    assert zero_shot_accuracy(scores, labels) == pytest.approx(statistics.fmean(expected))


def test_a_model_that_scores_all_labels_alike_is_not_accurate() -> None:
    assert zero_shot_accuracy(np.zeros((4, 4)), np.arange(4)) == 0.25


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((2, 3)), np.array([0]), r"got \[2, 3\], \[1\]"),
        (np.zeros((2, 3)), np.array([0, 3]), r"0\.\.2, got \[0 3\]"),
        (np.zeros((2, 3)), np.array([-1, 0]), r"0\.\.2, got \[-1  0\]"),
        (np.zeros((0, 3)), np.array([], int), "one or more"),
        (np.array([[math.nan, 0.0]]), np.array([0]), "NaN"),
    ],
)
def test_labels_that_do_not_fit_are_refused(scores: Scores, labels: NDArray[np.int64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        zero_shot_accuracy(scores, labels)


# Captions


@pytest.mark.parametrize("seed", range(20))
def test_caption_figures_are_those_of_pycocoevalcap(seed: int) -> None:
    candidates, references = random_captions(random.Random(seed))
    result = {i: [candidate] for i, candidate in enumerate(candidates)}
    truth = dict(enumerate(references))

    assert bleu_4(candidates, references) == pytest.approx(
        Bleu(4).compute_score(truth, result, verbose=0)[0][3]
    )
    assert cider_d(candidates, references) == pytest.approx(Cider().compute_score(truth, result)[0])


def test_bleu_4_of_nltks_documented_corpus() -> None:
    candidates = [
        "It is a guide to action which ensures that the military always obeys the commands of the party",
        "he read the book because he was interested in world history",
    ]
    references = [
        [
            "It is a guide to action that ensures that the military will forever heed Party commands",
            "It is the guiding principle which guarantees the military forces always being under the command "
            "of the Party",
            "It is the practical guide for the army always to heed the directions of the party",
        ],
        ["he was interested in world history because he read the book"],
    ]

    # nltk.translate.bleu_score's docstrings, which print four digits without rounding
    assert bleu_4(candidates, references) == pytest.approx(0.5920, abs=1e-4)
    assert bleu_4(candidates[:1], references[:1]) == pytest.approx(0.5045, abs=1e-4)


def test_captions_equal_to_their_references_get_the_highest_figures() -> None:
    captions = ["a red circle on grey", "two blue squares above it", "no green triangle at all"]
    references = [[caption] for caption in captions]

    assert bleu_4(captions, references) == pytest.approx(1.0)
    assert cider_d(captions, references) == pytest.approx(10.0)


def test_captions_with_no_word_in_common_get_nothing() -> None:
    assert bleu_4(["x y z w", "q r s t"], [["a b c d"], ["e f g h"]]) == pytest.approx(0.0, abs=1e-12)
    assert cider_d(["x y z w", "q r s t"], [["a b c d"], ["e f g h"]]) == 0.0


def test_captions_without_words_get_nothing() -> None:
    assert bleu_4(["", "..."], [["a b c d"], ["!"]]) == 0.0
    assert cider_d(["", "..."], [["a b c d"], ["!"]]) == 0.0


def test_capitals_and_punctuation_do_not_count() -> None:
    references = [["A red circle, on grey."], ["Two blue squares; above it!"]]

    assert cider_d(["a RED circle on grey", "two blue squares above it"], references) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog's T-shirt, on  a\tbench.", ["a", "dogs", "tshirt", "on", "a", "bench"]),
        ("«Žluťoučký» kůň… 3 €", ["žluťoučký", "kůň", "3"]),
        ("लाल घेरा", ["लाल", "घेरा"]),
        ("🙂 !?", []),
    ],
)
def test_caption_words_are_lower_case_and_without_punctuation(text: str, words: list[str]) -> None:
    assert caption_words(text) == words


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ([], [], "got 0 for 0"),
        (["a"], [["a"], ["b"]], "got 2 for 1"),
        (["a", "b"], [["a"], []], "candidate 1 has no reference"),
    ],
)
def test_captions_without_references_are_refused(
    candidates: list[str], references: list[list[str]], message: str
) -> None:
    for metric in (bleu_4, cider_d):
        with pytest.raises(ValueError, match=message):
            metric(candidates, references)


# The simpler ways, and what they are tried on


@pytest.fixture(params=[np.float32, np.float64])
def scores(request: pytest.FixtureRequest) -> Scores:
    """[60, 9] with many ties."""
    rounded: Scores = np.random.default_rng(0).integers(-5, 5, (60, 9)).astype(request.param) / 5
    return rounded


@pytest.fixture
def relevant() -> Relevant:
    """[60, 9], one to all items right."""
    rng = np.random.default_rng(1)
    matrix: Relevant = rng.random((60, 9)) < rng.random((60, 1))
    matrix[np.arange(60), rng.integers(0, 9, 60)] = True
    return matrix


def sorted_rows(scores: Scores, relevant: Relevant) -> list[list[bool]]:
    """Whether each item is right, best first, right ones first among equals."""
    rows = []
    for score_row, relevant_row in zip(scores.tolist(), relevant.tolist(), strict=True):
        pairs = sorted(zip(score_row, relevant_row, strict=True), reverse=True)
        rows.append([is_right for _, is_right in pairs])
    return rows


def gain(row: list[bool]) -> float:
    return sum(is_right / math.log2(rank + 1) for rank, is_right in enumerate(row, start=1))


def random_captions(source: random.Random) -> tuple[list[str], list[list[str]]]:
    """References of 1 to 12 words of a small vocabulary; a candidate is one of them, cut and changed."""
    vocabulary = ["a", "the", "red", "blue", "big", "small", "dog", "cat", "runs", "sits", "on", "grass"]
    references = [
        [" ".join(source.choices(vocabulary, k=source.randint(1, 12))) for _ in range(source.randint(1, 5))]
        for _ in range(source.randint(1, 30))
    ]
    candidates = []
    for own in references:
        words = source.choice(own).split()[: source.randint(0, 12)]
        candidates.append(
            " ".join(source.choice(vocabulary) if source.random() < 0.2 else word for word in words)
        )
    return candidates, references
