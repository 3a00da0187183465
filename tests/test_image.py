from dataclasses import replace

import pytest
import torch
from torch import Tensor

from textmm.colour import COLOUR_WIDTH, colour_features
from textmm.config import ImageConfig, named_model
from textmm.image import CNN, ImageEncoder, TrunkOutput, ViT, image_encoder
from textmm.layers import FeatureDropout, set_feature_dropout

VIT = ImageConfig(kind="vit", image_size=32, patch_size=8, width=24, layers=2, heads=3)
LITE = replace(named_model("mini").vision_cfg, summary_tokens=False)
POOLED_WIDTH = 6240


@pytest.fixture(scope="module")
def cnn() -> CNN:
    tower = CNN(LITE, 16).eval()
    for parameter in tower.features.parameters():
        if parameter.ndim > 1:  # PyTorch's own start would let a picture fade out over fifty layers
            torch.nn.init.kaiming_normal_(parameter, generator=torch.Generator().manual_seed(2))
    return tower


@pytest.fixture(scope="module")
def cnn_out(cnn: CNN) -> TrunkOutput:
    with torch.inference_mode():
        return cnn.trunk(pictures(3, 224))


def pictures(count: int, side: int) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("config", "kind"), [(VIT, ViT), (LITE, CNN)])
def test_the_kind_of_a_config_picks_the_tower(config: ImageConfig, kind: type[ImageEncoder]) -> None:
    assert type(image_encoder(config, 16)) is kind


@torch.inference_mode()
def test_a_vit_gives_normalised_features_and_a_token_a_patch_and_one_of_the_whole() -> None:
    tower = ViT(VIT, 16).eval()

    features, tokens = tower(pictures(5, 32))

    assert features.shape == (5, 16)
    assert tokens.shape == (5, 1 + (32 // 8) ** 2, tower.token_width) == (5, 17, 24)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(5))


@torch.inference_mode()
def test_a_vit_reads_patches_row_by_row_and_knows_their_places() -> None:
    tower = ViT(VIT, 16).eval()
    image = pictures(1, 32)
    weight = tower.patches.weight.flatten(1)  # [D, 3 P P]
    by_loop = [
        weight @ image[0, :, y : y + 8, x : x + 8].flatten() for y in range(0, 32, 8) for x in range(0, 32, 8)
    ]
    x = torch.stack([tower.class_token, *by_loop])[None] + tower.positions
    expected = tower.norm_post(tower.blocks(tower.norm_pre(x)))

    out = tower.trunk(image)

    torch.testing.assert_close(out.memory, expected)
    torch.testing.assert_close(out.pooled, expected[:, 0])


@torch.inference_mode()
@pytest.mark.parametrize("config", [VIT, LITE])
def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch(config: ImageConfig) -> None:
    tower = image_encoder(config, 16).eval()
    images = pictures(3, config.image_size)

    together = tower(images)
    alone = [tower(image[None]) for image in images]

    torch.testing.assert_close(
        together.features, torch.cat([a.features for a in alone]), atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(together.tokens, torch.cat([a.tokens for a in alone]), atol=1e-3, rtol=1e-3)


def test_a_cnn_pools_6240_numbers_and_17_tokens_a_picture(cnn: CNN, cnn_out: TrunkOutput) -> None:
    assert cnn_out.pooled.shape == (3, POOLED_WIDTH)
    assert cnn.pooled_width == POOLED_WIDTH
    assert cnn_out.memory.shape == (3, 17, 1280)
    assert cnn_out.present.tolist() == [[True]] * 3
    assert float((cnn_out.pooled[0] - cnn_out.pooled[1]).abs().mean()) > 0.01


@torch.inference_mode()
def test_a_cnn_pools_means_and_deviations_of_every_stage_means_of_9_cells_of_the_last_and_the_colours(
    cnn: CNN, cnn_out: TrunkOutput
) -> None:
    images = pictures(3, 224)
    stages, top = cnn.features(images)
    parts = [top.mean((2, 3)), stages[0].mean((2, 3)), stages[1].mean((2, 3))]
    for stage in stages[2:]:
        parts += [stage.mean((2, 3)), stage.flatten(2).std(2, unbiased=False)]
    ends = [(0, 3), (2, 5), (4, 7)]  # of 3 bins over 7
    cells = torch.stack([stages[-1][:, :, a:b, c:d].mean((2, 3)) for a, b in ends for c, d in ends], dim=2)
    parts += [cells.flatten(1), colour_features((images * 128 + 127) / 255)]

    torch.testing.assert_close(cnn_out.pooled, torch.cat(parts, dim=1), atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_the_tokens_of_a_cnn_are_the_mean_of_its_last_map_and_a_4_by_4_average(
    cnn: CNN, cnn_out: TrunkOutput
) -> None:
    _, top = cnn.features(pictures(3, 224))  # [3, 1280, 7, 7]
    ends = [(0, 2), (1, 4), (3, 6), (5, 7)]  # of 4 bins over 7: floor and ceiling of 7 i / 4
    grid = [top[:, :, a:b, c:d].mean((2, 3)) for a, b in ends for c, d in ends]

    torch.testing.assert_close(
        cnn_out.memory, torch.stack([top.mean((2, 3)), *grid], dim=1), atol=1e-3, rtol=1e-3
    )


@torch.inference_mode()
def test_colour_reaches_the_first_token_of_a_cnn_and_no_other(cnn: CNN, cnn_out: TrunkOutput) -> None:
    other = cnn_out.pooled.clone()
    other[:, -COLOUR_WIDTH:] += 1

    one, changed = cnn.tokens(cnn_out), cnn.tokens(cnn_out._replace(pooled=other))

    assert one.shape == (3, 17, LITE.token_width)
    assert not torch.allclose(one[:, 0], changed[:, 0])
    assert torch.equal(one[:, 1:], changed[:, 1:])


@torch.inference_mode()
def test_the_features_of_a_cnn_are_normalised(cnn: CNN, cnn_out: TrunkOutput) -> None:
    torch.testing.assert_close(cnn.project(cnn_out).norm(dim=1), torch.ones(3))


@torch.inference_mode()
def test_summary_tokens_are_two_more_of_the_pooled_features_and_of_the_place_in_the_space(
    cnn_out: TrunkOutput,
) -> None:
    torch.manual_seed(2)
    tower = image_encoder(replace(LITE, summary_tokens=True), 16).eval()
    other = cnn_out.pooled.clone()
    other[:, 0] += 3

    one, changed = tower.tokens(cnn_out), tower.tokens(cnn_out._replace(pooled=other))

    assert one.shape == (3, 19, LITE.token_width)
    assert torch.equal(one[:, :17], changed[:, :17])
    assert not torch.allclose(one[:, 17], changed[:, 17]) and not torch.allclose(one[:, 18], changed[:, 18])


def test_each_row_leaves_out_its_own_share_of_features_in_training_and_keeps_their_mean() -> None:
    dropout = FeatureDropout().train()
    dropout.shares = torch.tensor([0.0, 0.25, 0.8])
    x = torch.ones(3, 20_000)

    y = dropout(x)

    torch.testing.assert_close((y == 0).float().mean(1), dropout.shares, atol=0.02, rtol=0)
    torch.testing.assert_close(y.mean(1), torch.ones(3), atol=0.05, rtol=0)
    assert dropout.eval()(x) is x


@torch.inference_mode()
def test_in_training_a_feature_is_left_out_of_all_tokens_of_a_picture_and_in_use_of_none(
    cnn: CNN, cnn_out: TrunkOutput
) -> None:
    tower = CNN(LITE, 16)
    tower.load_state_dict(cnn.state_dict())
    same = cnn_out._replace(memory=torch.ones_like(cnn_out.memory))
    set_feature_dropout(tower, 0.9)
    torch.manual_seed(3)

    training = tower.train().tokens(same)

    torch.testing.assert_close(training[:, 1:], training[:, 1:2].expand(-1, 16, -1))
    assert not torch.allclose(training[0, 1], training[1, 1])
    assert torch.equal(tower.eval().tokens(cnn_out), cnn.tokens(cnn_out))
