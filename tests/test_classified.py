import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from textmm.classified import Classified
from textmm.metrics import expected_calibration_error

RNG = np.random.default_rng(11)
TRUTH = RNG.integers(4, size=120)
GIVEN = np.where(RNG.random(120) < 0.7, TRUTH, RNG.integers(4, size=120))
CONFIDENCE = RNG.uniform(0.3, 1, size=120)
ANSWERED = Classified(TRUTH, GIVEN, CONFIDENCE, 4)


def test_figures_over_all_pictures_are_scikit_learns_and_lie_in_their_intervals() -> None:
    metrics, ends = ANSWERED.metrics()

    assert metrics == pytest.approx(
        {
            "acc1": (TRUTH == GIVEN).mean(),
            "mean_per_class_recall": recall_score(TRUTH, GIVEN, average="macro"),
            "macro_precision": precision_score(TRUTH, GIVEN, average="macro"),
            "macro_f1": f1_score(TRUTH, GIVEN, average="macro"),
            "expected_calibration_error": expected_calibration_error(CONFIDENCE, TRUTH == GIVEN),
        }
    )
    assert all(ends[name][0] < metrics[name] < ends[name][1] for name in metrics)


def test_a_resample_gives_what_scikit_learn_gives_on_its_pictures() -> None:
    weights = RNG.multinomial(120, [1 / 120] * 120, size=6).astype(np.float64)

    figures = ANSWERED._overall(weights)

    for row, (accuracy, recall, precision, f1, error) in zip(weights, figures, strict=True):
        drawn = np.repeat(np.arange(120), row.astype(int))
        truth, given = TRUTH[drawn], GIVEN[drawn]
        assert accuracy == pytest.approx((truth == given).mean())
        assert recall == pytest.approx(recall_score(truth, given, average="macro"))
        assert precision == pytest.approx(precision_score(truth, given, average="macro"))
        assert f1 == pytest.approx(f1_score(truth, given, average="macro"))
        assert error == pytest.approx(expected_calibration_error(CONFIDENCE[drawn], truth == given))


def test_each_label_has_its_own_figures() -> None:
    labels = ["a", "b", "c", "d"]

    found = ANSWERED.per_class(labels)

    assert list(found) == labels
    assert [of.recall for of in found.values()] == pytest.approx(recall_score(TRUTH, GIVEN, average=None))
    assert [of.f1 for of in found.values()] == pytest.approx(f1_score(TRUTH, GIVEN, average=None))
    assert [of.support for of in found.values()] == np.bincount(TRUTH).tolist()
    assert all(of.intervals["f1"][0] < of.f1 < of.intervals["f1"][1] for of in found.values())
