import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from textmm.bootstrap import Statistic, intervals, mean_of, median_of, sums_by, value

RNG = np.random.default_rng(3)
VALUES = RNG.normal(size=40).round(1)  # with ties
WEIGHTS = RNG.multinomial(40, [1 / 40] * 40, size=25).astype(np.float64)


@pytest.mark.parametrize(("statistic", "plain"), [(mean_of(VALUES), np.mean), (median_of(VALUES), np.median)])
def test_weights_are_how_often_a_unit_is_there(statistic: Statistic, plain: object) -> None:
    assert callable(plain)

    by_repeating = [plain(np.repeat(VALUES, weights.astype(int))) for weights in WEIGHTS]

    assert statistic(WEIGHTS) == pytest.approx(np.array(by_repeating))
    assert float(value(statistic, 40)) == pytest.approx(plain(VALUES))


@pytest.mark.parametrize("units", [1, 2, 3, 4])
def test_the_median_of_few_is_the_middle_one_or_between_two(units: int) -> None:
    values = np.array([4.0, 1.0, 8.0, 2.0])[:units]

    assert float(value(median_of(values), units)) == np.median(values)


def test_weights_are_added_up_by_group_and_an_empty_group_has_none() -> None:
    groups = RNG.integers(5, size=40)
    groups[groups == 3] = 4

    sums = sums_by(WEIGHTS, groups, 6)

    assert sums.tolist() == [np.bincount(groups, weights=row, minlength=6).tolist() for row in WEIGHTS]
    assert sums[:, [3, 5]].tolist() == [[0, 0]] * 25


@pytest.mark.parametrize(("statistic", "plain"), [(mean_of(VALUES), np.mean), (median_of(VALUES), np.median)])
def test_intervals_are_those_of_scipys_percentile_bootstrap(statistic: Statistic, plain: object) -> None:
    theirs = stats.bootstrap(
        (VALUES,), plain, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval

    ours = intervals({"it": statistic}, 40, resamples=20_000)["it"]

    assert ours == pytest.approx(np.array(theirs), abs=0.03)


def test_an_interval_is_the_percentiles_of_what_one_resample_after_another_gives() -> None:
    seen: list[NDArray[np.float64]] = []
    values = RNG.normal(size=50_000)  # too many for all resamples to be held at a time

    def mean(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        assert set(weights.sum(axis=1)) == {50_000}
        seen.append(weights[:, :3].copy())
        return mean_of(values)(weights) + weights[:, 0]

    ends = intervals({"mean": mean, "first": lambda weights: weights[:, 0]}, 50_000, resamples=101)

    assert len(seen) > 1
    first = np.concatenate(seen)[:, 0]
    assert first.shape == (101,)
    assert ends["first"] == pytest.approx(np.percentile(first, [2.5, 97.5]))
    assert ends["mean"] == pytest.approx(ends["first"], abs=0.05)


def test_the_same_seed_gives_the_same_and_all_figures_share_their_resamples() -> None:
    both = {"one": mean_of(VALUES), "other": mean_of(VALUES + 1)}

    first, again, another = (intervals(both, 40, seed=seed) for seed in (7, 7, 8))

    assert first["one"].tolist() == again["one"].tolist() != another["one"].tolist()
    assert first["other"] == pytest.approx(first["one"] + 1)


def test_several_figures_come_at_once_and_one_without_a_value_is_left_out() -> None:
    def several(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        nowhere = np.full(len(weights), np.nan)
        first = np.where(weights[:, 0] > 0, 5.0, np.nan)
        return np.stack([mean_of(VALUES)(weights), first, nowhere], axis=1)

    ends = intervals({"all": several, "mean": mean_of(VALUES)}, 40)

    assert ends["all"][0].tolist() == ends["mean"].tolist()
    assert ends["all"][1].tolist() == [5.0, 5.0]
    assert np.isnan(ends["all"][2]).all()


@pytest.mark.parametrize(("units", "resamples"), [(0, 10), (10, 0)])
def test_nothing_cannot_be_resampled(units: int, resamples: int) -> None:
    with pytest.raises(ValueError, match="need at least one unit and one resample"):
        intervals({"mean": mean_of(VALUES)}, units, resamples=resamples)
