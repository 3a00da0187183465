import pytest
import torch
from torch import Tensor

from textmm.colour import BINS, COLOUR_WIDTH, colour_features, rgb_to_lab

RED, BLUE, WHITE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)
PER_HISTOGRAM = BINS[0] * BINS[1] * BINS[2]


def plain(*colours: tuple[float, float, float], side: int = 64) -> Tensor:
    return torch.tensor(colours)[:, :, None, None].expand(-1, -1, side, side).contiguous()


def on_white(colour: tuple[float, float, float], half: int) -> Tensor:
    """A square of 2 * half pixels in the middle of a white picture."""
    image = plain(WHITE)
    image[0, :, 32 - half : 32 + half, 32 - half : 32 + half] = torch.tensor(colour)[:, None, None]
    return image


@pytest.mark.parametrize(
    ("rgb", "lab"),  # published CIE Lab values of sRGB, D65
    [
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 1.0, 0.0), (87.73, -86.18, 83.18)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
        ((128 / 255, 128 / 255, 128 / 255), (53.59, 0.0, 0.0)),
    ],
)
def test_known_colours_have_their_published_lab_values(
    rgb: tuple[float, float, float], lab: tuple[float, float, float]
) -> None:
    assert rgb_to_lab(plain(rgb, side=1)).flatten().tolist() == pytest.approx(lab, abs=0.15)


def test_there_is_a_row_a_picture_and_each_row_depends_on_its_own_picture() -> None:
    images = torch.rand(5, 3, 48, 80, generator=torch.Generator().manual_seed(1))

    rows = colour_features(images)

    assert rows.shape == (5, COLOUR_WIDTH) == (5, 496)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.cat([colour_features(image[None]) for image in images]))


def test_each_histogram_squared_sums_to_1() -> None:
    rows = colour_features(torch.rand(4, 3, 50, 50, generator=torch.Generator().manual_seed(2)))

    whole, foreground = rows.square()[:, :-6].chunk(2, dim=1)
    torch.testing.assert_close(whole.sum(1), torch.ones(4))
    torch.testing.assert_close(foreground.sum(1), torch.ones(4))


def test_red_and_blue_share_no_bin_and_red_is_itself_at_any_size() -> None:
    red, blue = colour_features(plain(RED, BLUE))
    small = colour_features(plain(RED, side=32))[0]

    overlap = (red * blue)[: 2 * PER_HISTOGRAM].sum().item()
    assert overlap < 0.2  # 2 for a picture with itself
    torch.testing.assert_close(red, small)


def test_mean_colours_are_those_of_the_picture_over_50() -> None:
    image = plain((0.2, 0.5, 0.7))

    means = colour_features(image)[0, -6:]

    expected = rgb_to_lab(image[:, :, :1, :1]).flatten() / 50
    torch.testing.assert_close(means, torch.cat([expected, expected]))


def test_a_small_thing_on_white_weighs_more_in_the_foreground_than_in_the_whole() -> None:
    thing = rgb_to_lab(plain(RED, side=1)).flatten() / 50
    ground = rgb_to_lab(plain(WHITE, side=1)).flatten() / 50

    row = colour_features(on_white(RED, half=8))[0]

    whole, foreground = row[-6:].chunk(2)
    share = 16 * 16 / (64 * 64)
    torch.testing.assert_close(whole, share * thing + (1 - share) * ground)
    assert (foreground - thing).norm() < 0.35 * (ground - thing).norm()
