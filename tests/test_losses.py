import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from textmm.config import named_model
from textmm.losses import captioning_loss, contrastive_loss, next_words, sigmoid_loss
from textmm.model import TextMultiModalModel

PAD = 0


def features(rows: int, width: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def cross_entropy_by_loop(logits: Tensor, positives: Tensor, left_out: Tensor) -> float:
    """Mean over the rows of -sum over the positives of log p / count, written out."""
    total = 0.0
    for i in range(logits.shape[0]):
        there = [j for j in range(logits.shape[1]) if positives[i, j] or not left_out[i, j]]
        denominator = sum(math.exp(logits[i, j].item()) for j in there)
        right = [j for j in there if positives[i, j]]
        total -= sum(math.log(math.exp(logits[i, j].item()) / denominator) for j in right) / len(right)
    return total / logits.shape[0]


def both_ways_by_loop(
    image_features: Tensor, text_features: Tensor, scale: float, positives: Tensor, left_out: Tensor
) -> float:
    logits = scale * image_features.double() @ text_features.double().T
    rows = cross_entropy_by_loop(logits, positives, left_out)
    return (rows + cross_entropy_by_loop(logits.T, positives.T, left_out.T)) / 2


def test_contrastive_loss_is_the_double_loop_with_several_right_answers_and_ignored_pairs() -> None:
    image_features, text_features = features(7, 5, seed=1), features(7, 5, seed=2)
    positives = torch.eye(7, dtype=torch.bool)
    positives[0, 3] = positives[3, 0] = positives[2, 5] = positives[2, 6] = True
    ignored = torch.zeros(7, 7, dtype=torch.bool)
    ignored[1, :3] = ignored[:3, 4] = ignored[0, 3] = True  # [0, 3] and [1, 1] are right all the same

    loss = contrastive_loss(image_features, text_features, torch.tensor(9.0), positives, ignored=ignored)

    expected = both_ways_by_loop(image_features, text_features, 9.0, positives, ignored)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_contrastive_loss_of_a_7_by_5_case_is_the_double_loop() -> None:
    image_features, text_features = features(7, 6, seed=3), features(5, 6, seed=4)
    positives = torch.arange(7)[:, None] % 5 == torch.arange(5)[None, :]
    nothing = torch.zeros(7, 5, dtype=torch.bool)

    loss = contrastive_loss(image_features, text_features, torch.tensor(4.0), positives)

    expected = both_ways_by_loop(image_features, text_features, 4.0, positives, nothing)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_contrastive_loss_of_random_features_is_about_ln_n() -> None:
    image_features, text_features = features(200, 256, seed=5), features(200, 256, seed=6)

    loss = contrastive_loss(image_features, text_features, torch.tensor(1.0), torch.eye(200).bool())

    assert loss.item() == pytest.approx(math.log(200), abs=0.02)


def test_sigmoid_loss_is_the_double_loop_with_several_right_answers_and_ignored_pairs() -> None:
    image_features, text_features = features(6, 5, seed=21), features(6, 5, seed=22)
    positives = torch.eye(6, dtype=torch.bool)
    positives[0, 3] = positives[3, 0] = True
    ignored = torch.zeros(6, 6, dtype=torch.bool)
    ignored[1, :3] = ignored[0, 3] = True  # [0, 3] and [1, 1] are right all the same
    total = 0.0
    for i in range(6):
        for j in range(6):
            z = 7.0 * float(image_features[i].double() @ text_features[j].double()) - 2.5
            if positives[i, j]:
                total += math.log(1 + math.exp(-z))
            elif not ignored[i, j]:
                total += math.log(1 + math.exp(z))

    loss = sigmoid_loss(
        image_features, text_features, torch.tensor(7.0), torch.tensor(-2.5), positives, ignored=ignored
    )

    assert loss.item() == pytest.approx(total / 6, rel=1e-5)


def test_an_ignored_pair_has_no_say_in_the_loss() -> None:
    image_features, text_features = features(4, 8, seed=7), features(4, 8, seed=8)
    ignored = torch.zeros(4, 4, dtype=torch.bool)
    ignored[0, 1:] = ignored[1:, 0] = True
    moved = text_features.clone()
    moved[0] = image_features[2]  # only its own picture sees text 0, and there it is the only answer

    one = contrastive_loss(
        image_features, text_features, torch.tensor(10.0), torch.eye(4).bool(), ignored=ignored
    )
    other = contrastive_loss(image_features, moved, torch.tensor(10.0), torch.eye(4).bool(), ignored=ignored)

    assert one.item() == pytest.approx(other.item(), rel=1e-6)


def test_a_text_that_two_pictures_share_is_drawn_to_both_and_not_pushed_from_one() -> None:
    images = torch.eye(3)
    texts = torch.stack([images[0], images[0], images[2]])
    text_ids = torch.tensor([7, 7, 9])

    def push_from_the_other_picture(positives: Tensor) -> float:
        moving = texts.clone().requires_grad_()
        loss = contrastive_loss(images, moving, torch.tensor(5.0), positives)
        (gradient,) = torch.autograd.grad(loss, moving)
        return float(gradient[0] @ images[1])

    assert push_from_the_other_picture(torch.eye(3, dtype=torch.bool)) > 0
    assert push_from_the_other_picture(text_ids[:, None] == text_ids[None, :]) < 0


def test_the_factor_on_cosines_never_exceeds_what_it_is_clamped_at() -> None:
    model = TextMultiModalModel(named_model("tiny"))

    assert model.scale().item() == pytest.approx(1 / 0.07)
    model.logit_scale.data.fill_(math.log(5000.0))
    assert model.scale().item() == pytest.approx(100.0)
    assert model.scale(math.log(50.0)).item() == pytest.approx(50.0)


def test_next_words_are_those_that_follow_a_word_row_by_row() -> None:
    words = torch.tensor([[1, 8, 9, 2], [1, 7, 2, PAD], [1, 2, PAD, PAD]])
    expected_where = [[False] * 4 for _ in words]
    expected = []
    for row in range(3):
        for at in range(3):
            if words[row, at + 1] != PAD:
                expected_where[row][at] = True
                expected.append(int(words[row, at + 1]))

    where, following = next_words(words, PAD)

    assert where.tolist() == expected_where
    assert following.tolist() == expected == [8, 9, 2, 7, 2, 2]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_captioning_loss_is_the_mean_over_real_words_only(smoothing: float) -> None:
    words = torch.tensor([[1, 8, 9, 2], [1, 7, 2, PAD]])
    logits = torch.randn(2, 4, 10, generator=torch.Generator().manual_seed(12))
    losses = []
    for row in range(2):
        for at in range(3):
            word = int(words[row, at + 1])
            if word != PAD:
                exps = [math.exp(x) for x in logits[row, at].tolist()]
                log_p = np.log(np.array(exps) / sum(exps))
                losses.append(-(1 - smoothing) * log_p[word] - smoothing * log_p.mean())

    where, following = next_words(words, PAD)
    loss = captioning_loss(logits[where], following, label_smoothing=smoothing)

    assert loss.item() == pytest.approx(float(np.mean(losses)), rel=1e-5)


def test_captioning_loss_of_an_undecided_decoder_is_ln_of_the_vocabulary() -> None:
    assert captioning_loss(torch.zeros(5, 300), torch.arange(5)).item() == pytest.approx(math.log(300))
