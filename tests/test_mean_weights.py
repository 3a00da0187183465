import pytest
import torch
from torch import nn

from textmm.mean_weights import MeanWeights


def mean_after(steps: int, *, last: float, stop: int = -1) -> float:
    """Of a weight that is the number of the step, going on from what was saved after step `stop`."""
    model = nn.Linear(1, 1, bias=False)
    mean = MeanWeights(model)
    for step in range(steps):
        model.weight.data.fill_(float(step))
        mean.follow(model, step, steps, last)
        if step == stop:
            kept, mean = mean.state(), MeanWeights(model)
            mean.load(kept)
    return model.weight.item()


@pytest.mark.parametrize(
    ("last", "steps_in_the_mean"),
    [(0.0, [11]), (0.25, [9, 10, 11]), (1.0, list(range(12)))],
)
def test_the_mean_is_over_the_last_part_also_after_a_stop(last: float, steps_in_the_mean: list[int]) -> None:
    expected = sum(steps_in_the_mean) / len(steps_in_the_mean)

    assert mean_after(12, last=last) == pytest.approx(expected)
    assert mean_after(12, last=last, stop=10) == pytest.approx(expected)


def test_the_mean_of_a_run_that_goes_on_is_where_the_weights_are() -> None:
    with torch.device("meta"):  # as a GPU: elsewhere than what was read from disk
        mean = MeanWeights(nn.Linear(1, 1))

    mean.load({"sums": {"weight": torch.ones(1, 1), "bias": torch.ones(1)}, "count": 1})

    assert {sums.device.type for sums in mean.state()["sums"].values()} == {"meta"}


def test_locked_weights_are_left_alone() -> None:
    model = nn.Linear(1, 1)
    model.bias.requires_grad = False
    mean = MeanWeights(model)
    for step in range(4):
        with torch.no_grad():
            model.weight.fill_(float(step))
            model.bias.fill_(float(step))
        mean.follow(model, step, 4, 0.5)

    assert (model.weight.item(), model.bias.item()) == (2.5, 3.0)
