import pytest
import torch
from torch import nn

from textmm.mean_weights import MeanWeights


def mean_after(steps: int, *, last: float, cycles: int = 1, stop: int = 0) -> float:
    """Of a weight that is the number of the step, going on from what was saved after step `stop`."""
    model = nn.Linear(1, 1, bias=False)
    mean = MeanWeights(model)
    for step in range(steps):
        model.weight.data.fill_(float(step))
        mean.follow(model, step, steps, last, cycles)
        if step == stop:
            kept, mean = mean.state(), MeanWeights(model)
            mean.load(kept)
    return model.weight.item()


@pytest.mark.parametrize(
    ("last", "cycles", "steps_in_the_mean"),
    [
        (0.0, 1, [11]),
        (0.25, 1, [9, 10, 11]),
        (0.25, 3, [3, 7, 11]),
        (0.5, 2, [3, 4, 5, 9, 10, 11]),
    ],
)
def test_the_mean_is_over_the_last_part_of_every_cycle(
    last: float, cycles: int, steps_in_the_mean: list[int]
) -> None:
    expected = sum(steps_in_the_mean) / len(steps_in_the_mean)

    assert mean_after(12, last=last, cycles=cycles) == pytest.approx(expected)
    assert mean_after(12, last=last, cycles=cycles, stop=10) == pytest.approx(expected)


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
