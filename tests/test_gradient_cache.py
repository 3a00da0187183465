from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textmm.config import named_model
from textmm.gradient_cache import FeatureLoss, RowLoss
from textmm.losses import captioning_loss, contrastive_loss, next_words
from textmm.model import TextMultiModalModel
from textmm.ranks import Ranks, parts_of

ROWS = 8
Gradients = dict[str, Tensor]


def tiny_model() -> TextMultiModalModel:
    """A small ViT and a causal text tower in training, with dropout in the decoder alone."""
    torch.manual_seed(1)
    return TextMultiModalModel(named_model("tiny")).train()


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    return torch.randn(ROWS, 3, 32, 32, generator=draw), torch.randint(4, 300, (ROWS, 16), generator=draw)


def contrast(model: TextMultiModalModel, dropout: float, *, replay: bool = True) -> FeatureLoss:
    images, tokens = batch()
    chance = torch.Generator().manual_seed(3)

    def features(rows: range) -> tuple[Tensor, Tensor]:
        torch.manual_seed(rows.start if replay else int(torch.randint(1 << 30, (), generator=chance)))
        part = slice(rows.start, rows.stop)
        image = model.encode_image(images[part]).features
        text = model.encode_text((tokens[part],)).features
        return F.dropout(image, dropout), F.dropout(text, dropout)

    def loss(image_features: Tensor, text_features: Tensor) -> Tensor:
        return contrastive_loss(image_features, text_features, model.scale(), torch.eye(ROWS).bool())

    return FeatureLoss(ROWS, features, loss)


def gradients(model: nn.Module, backward: Callable[[], Tensor]) -> tuple[float, Gradients]:
    model.zero_grad(set_to_none=True)
    loss = float(backward().detach())
    return loss, {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}


def by_one_graph(loss: FeatureLoss, micro_batch: int) -> Tensor:
    """The loss of the same parts, with the graphs of all of them kept."""
    made = [loss.features(part) for part in parts_of(range(ROWS), micro_batch)]
    whole = loss.loss(*(torch.cat(kind) for kind in zip(*made, strict=True)))
    whole.backward()  # type: ignore[no-untyped-call]
    return whole


def assert_same(one: tuple[float, Gradients], other: tuple[float, Gradients]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 8, 0])
def test_a_batch_in_parts_has_the_loss_and_the_gradients_of_the_whole(micro_batch: int) -> None:
    model = tiny_model()
    loss = contrast(model, 0.0)
    whole = gradients(model, lambda: by_one_graph(loss, 0))

    in_parts = gradients(model, lambda: loss.backward(Ranks(), micro_batch, 1.0))

    assert_same(in_parts, whole)
    assert "logit_scale" in in_parts[1]
    assert max(float(g.abs().max()) for g in in_parts[1].values()) > 1e-3


@pytest.mark.parametrize("micro_batch", [3, 4])
def test_with_dropout_each_part_is_run_again_with_the_chance_it_had(micro_batch: int) -> None:
    model = tiny_model()
    loss = contrast(model, 0.5)
    kept = gradients(model, lambda: by_one_graph(loss, micro_batch))

    cached = gradients(model, lambda: loss.backward(Ranks(), micro_batch, 1.0))

    assert_same(cached, kept)
    with pytest.raises(AssertionError):  # what a part without its own random state would do
        forgetful = contrast(model, 0.5, replay=False)
        assert_same(gradients(model, lambda: forgetful.backward(Ranks(), micro_batch, 1.0)), kept)


def test_the_weight_is_on_the_gradients_and_not_on_the_loss() -> None:
    model = tiny_model()
    loss = contrast(model, 0.0)
    single = gradients(model, lambda: loss.backward(Ranks(), 4, 1.0))

    double = gradients(model, lambda: loss.backward(Ranks(), 4, 2.0))

    assert_same(double, (single[0], {k: 2 * g for k, g in single[1].items()}))


def test_a_locked_tower_gets_no_gradient_and_the_other_one_its_own() -> None:
    model = tiny_model()
    loss = contrast(model, 0.0)
    whole = gradients(model, lambda: by_one_graph(loss, 0))
    model.image.requires_grad_(False)

    loss_value, found = gradients(model, lambda: loss.backward(Ranks(), 3, 1.0))

    expected = {k: g for k, g in whole[1].items() if not k.startswith("image.")}
    assert_same((loss_value, found), (whole[0], expected))


@pytest.mark.parametrize("micro_batch", [1, 3, 0])
def test_captions_in_parts_have_the_loss_and_the_gradients_of_the_whole(micro_batch: int) -> None:
    model = tiny_model().eval()
    images, words = batch()
    for row in range(ROWS):
        words[row, 3 + row :] = 0  # captions of different lengths
    count = int((words[:, 1:] != 0).sum())
    assert model.decoder is not None

    def share(rows: range) -> Tensor:
        part = slice(rows.start, rows.stop)
        logits = model(images[part], (words[part],), words[part]).caption_logits
        where, right = next_words(words[part], 0)
        return captioning_loss(logits[where], right) * (len(right) / count)

    def whole() -> Tensor:
        where, right = next_words(words, 0)
        loss = captioning_loss(model(images, (words,), words).caption_logits[where], right)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    expected = gradients(model, whole)
    loss = RowLoss(ROWS, share)

    assert_same(gradients(model, lambda: loss.backward(Ranks(), micro_batch, 1.0)), expected)
    assert float(loss.value(micro_batch)) == pytest.approx(expected[0], rel=1e-6)
