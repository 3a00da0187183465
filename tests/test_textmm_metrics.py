import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    ndcg_score,
    precision_recall_fscore_support,
)
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from torchmetrics import Metric
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG, RetrievalPrecision

from textmm.bootstrap import sums_by
from textmm.metrics import (
    answer_accuracy,
    answers_right,
    calibration_bins_of,
    class_scores,
    confusion_matrix,
    expected_calibration_error,
    first_right_ranks,
    mean_rank,
    median_rank,
    ndcg_at_k,
    ndcgs_at_k,
    precision_at_k,
    precisions_at_k,
    probabilities,
    recall_at_k,
    zero_shot_accuracy,
)

Matrix = NDArray[np.float64]
Right = NDArray[np.bool_]


def asked(seed: int, *, ties: bool) -> tuple[Matrix, Right]:
    """Scores [12, 20], rounded so that many are equal if there shall be ties, and one to five right items each."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(12, 20))
    relevant = np.zeros((12, 20), dtype=bool)
    for row in relevant:
        row[rng.choice(20, size=int(rng.integers(1, 6)), replace=False)] = True
    return scores.round(0) if ties else scores, relevant


# Retrieval


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_and_shares_are_those_of_sorting_each_query_with_right_items_first(ties: bool) -> None:
    scores, relevant = asked(1, ties=ties)
    ordered = [
        [right for _, right in sorted(zip(-row, ~own, strict=True))]
        for row, own in zip(scores, relevant, strict=True)
    ]
    ranks = [row.index(False) + 1 for row in ordered]

    assert first_right_ranks(scores, relevant).tolist() == ranks
    assert median_rank(scores, relevant) == np.median(ranks)
    assert mean_rank(scores, relevant) == np.mean(ranks)
    for k in (1, 5, 10, 20):
        assert recall_at_k(scores, relevant, k) == np.mean([rank <= k for rank in ranks])
        shares = [row[:k].count(False) / k for row in ordered]
        assert precisions_at_k(scores, relevant, k) == pytest.approx(shares)
        assert precision_at_k(scores, relevant, k) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_shares_and_gains_of_retrieval_are_those_of_torchmetrics(k: int) -> None:
    scores, relevant = asked(4, ties=False)
    query = torch.arange(len(scores))[:, None].expand(scores.shape).flatten()
    given = (
        torch.tensor(scores).exp().flatten(),
        torch.tensor(relevant).flatten(),
    )  # it leaves negative ones out

    def theirs(metric: Metric) -> float:
        return float(metric(*given, indexes=query))

    assert recall_at_k(scores, relevant, k) == pytest.approx(theirs(RetrievalHitRate(top_k=k)))
    assert precision_at_k(scores, relevant, k) == pytest.approx(theirs(RetrievalPrecision(top_k=k)))
    assert ndcg_at_k(scores, relevant, k) == pytest.approx(theirs(RetrievalNormalizedDCG(top_k=k)))


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_gain_is_that_of_scikit_learn(k: int) -> None:
    scores, relevant = asked(2, ties=False)

    assert ndcg_at_k(scores, relevant, k) == pytest.approx(ndcg_score(relevant, scores, k=k))
    for i, gain in enumerate(ndcgs_at_k(scores, relevant, k)):
        assert gain == pytest.approx(ndcg_score(relevant[i : i + 1], scores[i : i + 1], k=k))


def test_of_equal_scores_the_right_ones_come_first() -> None:
    scores, relevant = np.zeros((1, 20)), asked(3, ties=False)[1][:1]

    assert (ndcg_at_k(scores, relevant, 10), recall_at_k(scores, relevant, 1)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("scores", "relevant", "k", "said"),
    [
        (np.zeros((2, 3)), np.ones((2, 3), dtype=bool), 4, r"k must be in 1\.\.n_items, got 4"),
        (np.zeros((2, 3)), np.ones((3, 2), dtype=bool), 1, r"got \[2, 3\] and \[3, 2\]"),
        (np.zeros((2, 3)), np.ones((2, 3)), 1, "must be a bool matrix"),
        (
            np.zeros((2, 3)),
            np.eye(2, 3, dtype=bool)[[0, 0]] & [[True], [False]],
            1,
            "query 1 has no right item",
        ),
        (np.full((2, 3), np.nan), np.ones((2, 3), dtype=bool), 1, "scores hold NaN"),
    ],
)
def test_retrieval_that_cannot_be_measured_is_refused(
    scores: Matrix, relevant: Right, k: int, said: str
) -> None:
    for metric in (recall_at_k, precision_at_k, ndcg_at_k):
        with pytest.raises(ValueError, match=said):
            metric(scores, relevant, k)


# Classification


def labelled(seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Matrix]:
    """Truth, answers and scores of 200 pictures with six labels, of which the last is never given."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(6, size=200)
    scores = rng.normal(size=(200, 6)) + 1.5 * np.eye(6)[truth]
    scores[:, 5] = -9
    return truth, scores.argmax(axis=1), scores


def test_precision_recall_and_f1_of_each_label_are_those_of_scikit_learn() -> None:
    truth, given, scores = labelled(4)
    one = np.ones((1, 200))

    found = class_scores(
        sums_by(one * (truth == given), truth, 6), sums_by(one, given, 6), sums_by(one, truth, 6)
    )

    theirs = precision_recall_fscore_support(truth, given, zero_division=0)
    assert found.precision[0] == pytest.approx(theirs[0])
    assert found.recall[0] == pytest.approx(theirs[1])
    assert found.f1[0] == pytest.approx(theirs[2])
    assert found.recall.mean() == pytest.approx(balanced_accuracy_score(truth, given))
    assert zero_shot_accuracy(scores, truth) == accuracy_score(truth, given)
    assert (confusion_matrix(truth, given, 6) == sklearn_confusion_matrix(truth, given)).all()


def test_a_label_that_is_neither_there_nor_given_has_no_scores() -> None:
    found = class_scores(np.array([2.0, 0, 0]), np.array([2.0, 1, 0]), np.array([3.0, 0, 0]))

    assert found.precision.tolist()[:2] == [1.0, 0.0]
    assert found.recall.tolist()[:1] == pytest.approx([2 / 3])
    assert found.f1.tolist()[:2] == pytest.approx([0.8, 0.0])
    assert np.isnan([found.precision[2], found.recall[1], found.recall[2], found.f1[2]]).all()


# Calibration


def test_shares_of_labels_are_torchs_softmax() -> None:
    scores = np.random.default_rng(5).uniform(-1, 1, size=(9, 4)).astype(np.float32)

    theirs = torch.softmax(100 * torch.from_numpy(scores).double(), dim=1)

    assert probabilities(scores, 100.0) == pytest.approx(theirs.numpy())
    with pytest.raises(ValueError, match="scores hold NaN"):
        probabilities(np.full((1, 2), np.nan), 1.0)


@pytest.mark.parametrize("bins", [5, 15])
def test_calibration_error_is_that_of_scikit_learns_curve(bins: int) -> None:
    rng = np.random.default_rng(6)
    confidences = rng.uniform(0.2, 1, size=300)
    right = rng.random(300) < confidences**2

    accuracy, confidence = calibration_curve(right, confidences, n_bins=bins, strategy="uniform")

    counts, _ = np.histogram(confidences, bins=bins, range=(0, 1))
    by_hand = np.abs(accuracy - confidence) @ counts[counts > 0] / 300
    assert expected_calibration_error(confidences, right, bins=bins) == pytest.approx(by_hand)
    assert by_hand > 0.1


def test_a_sure_and_right_model_is_calibrated_and_a_sure_and_wrong_one_is_not() -> None:
    sure = np.ones(4)

    assert expected_calibration_error(sure, np.array([True] * 4)) == 0.0
    assert expected_calibration_error(sure, np.array([True, False] * 2)) == 0.5
    assert calibration_bins_of(np.array([0.0, 0.1, 0.2, 0.21, 1.0]), 5).tolist() == [0, 0, 0, 1, 4]
    for wrong in (np.array([]), np.array([1.1]), np.array([np.nan])):
        with pytest.raises(ValueError, match=r"confidences must be one or more numbers in 0\.\.1"):
            expected_calibration_error(wrong, wrong > 0)


# Answers


@pytest.mark.parametrize(
    ("given", "right", "is_right"),
    [
        ("red", ["red"], True),
        ("Red.", ["blue", "red"], True),
        ("a red shirt", ["the red shirt"], True),
        ("two", ["2"], True),
        ("no", ["yes"], False),
        ("navy blue", ["blue"], False),
        ("T-shirt", ["tshirt"], True),
        ("红色", ["红色"], True),
        ("", ["red"], False),
    ],
)
def test_an_answer_is_right_but_for_case_punctuation_articles_and_digits(
    given: str, right: list[str], is_right: bool
) -> None:
    assert answers_right([given], [right]).tolist() == [is_right]


def test_answer_accuracy_is_the_share_of_right_ones_and_each_question_has_one() -> None:
    assert answer_accuracy(["yes", "no", "red"], [["yes"], ["yes"], ["red", "blue"]]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="need a list of right answers an answer, got 1 for 2"):
        answer_accuracy(["yes", "no"], [["yes"]])
    with pytest.raises(ValueError, match="question 1 has no right answer"):
        answer_accuracy(["yes", "no"], [["yes"], []])
