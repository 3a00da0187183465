import math

import pytest
import torch

from textmm.config import named_model
from textmm.model import TextMultiModalModel
from textmm.optimiser import clip, make_optimizer, pace, trained_by
from textmm.recipe import Stage

STAGE = Stage(name="s", steps=110, batch_size=4, learning_rate=2.0, warmup_steps=10, weight_decay=0.3)


@pytest.fixture(scope="module")
def tiny_model() -> TextMultiModalModel:
    return TextMultiModalModel(named_model("tiny"))


@pytest.fixture(scope="module")
def mini_model() -> TextMultiModalModel:
    return TextMultiModalModel(named_model("mini"))


def test_the_rate_warms_up_linearly_and_falls_along_a_cosine_to_nothing() -> None:
    rates = [STAGE.learning_rate * pace(step, STAGE.steps, STAGE.warmup_steps) for step in range(110)]

    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)  # half of the way
    assert rates[35] == pytest.approx(1 + math.cos(math.pi / 4))
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_gradients_are_scaled_to_the_norm_that_is_allowed_and_short_ones_are_left_alone() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, 4.0]])

    assert clip(layer, 10.0) == pytest.approx(5.0)
    assert layer.weight.grad.tolist() == [[3.0, 4.0]]
    assert clip(layer, 1.0) == pytest.approx(5.0)
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[0.6, 0.8]]), rtol=1e-5, atol=0)


def test_only_matrices_decay(tiny_model: TextMultiModalModel) -> None:
    decaying, others = make_optimizer(tiny_model, STAGE, pretrained=False).param_groups

    assert (decaying["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim > 1 for p in decaying["params"]} == {True}
    assert any(p is tiny_model.logit_scale for p in others["params"])
    assert len(decaying["params"]) + len(others["params"]) == len(list(tiny_model.parameters()))


def test_a_prefix_names_whole_parts_of_a_name(tiny_model: TextMultiModalModel) -> None:
    assert trained_by(tiny_model, ("image.projection",), pretrained=False) == ["image.projection.weight"]
    assert trained_by(tiny_model, ("logit_scale",), pretrained=False) == ["logit_scale"]
    with pytest.raises(
        ValueError, match=r"trains = 'image\.proj' names no part of the model; .* decoder, image"
    ):
        trained_by(tiny_model, ("image.proj",), pretrained=False)


@pytest.mark.parametrize("trains", [("",), ("image", "text")])
def test_pretrained_trunks_stay_locked_unless_they_are_named(
    mini_model: TextMultiModalModel, trains: tuple[str, ...]
) -> None:
    chosen = trained_by(mini_model, trains, pretrained=True)

    assert not [name for name in chosen if name.startswith(("image.features.", "text.trunks."))]
    assert "text.projection.fc.weight" in chosen


def test_a_part_of_a_trunk_learns_when_it_is_named(mini_model: TextMultiModalModel) -> None:
    trains = ("text.trunks.0.layers.5", "text.projection")
    make_optimizer(
        mini_model, Stage(name="s", steps=1, batch_size=2, learning_rate=1, trains=trains), pretrained=True
    )

    learning = {name for name, p in mini_model.named_parameters() if p.requires_grad}
    assert {name.rsplit(".", 2)[0] for name in learning if "trunks" in name} >= {"text.trunks.0.layers.5.mlp"}
    assert all(name.startswith(trains) for name in learning)
    assert "text.trunks.0.layers.4.norm1.weight" not in learning
    whole = trained_by(mini_model, ("image.features",), pretrained=True)
    assert whole == [name for name, _ in mini_model.named_parameters() if name.startswith("image.features.")]
