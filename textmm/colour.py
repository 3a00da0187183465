"""Colour features: what a locked ImageNet trunk sees worst.

A soft 5 x 7 x 7 histogram in CIE Lab of the whole picture and again of its foreground, and both mean colours.
"""

# B batch, P pixels

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = (5, 7, 7)
COLOUR_WIDTH = 2 * 5 * 7 * 7 + 6
SIDE = 32
"""The features are taken from a SIDE x SIDE mean-pooled picture."""
LOW, HIGH = (0.0, -60.0, -60.0), (100.0, 60.0, 60.0)
"""Ends of the L, a and b axes in Lab units; beyond them the last bin counts."""
FOREGROUND_DISTANCE = 12.0
"""Lab distance from the border colour at which a pixel is mostly foreground."""


def colour_features(images: Tensor) -> Tensor:
    """RGB images [B, 3, H, W] on a scale of 0..1 -> [B, 496] float32: histograms (square roots), mean Labs."""
    lab = rgb_to_lab(F.adaptive_avg_pool2d(images.float(), SIDE))  # [B, 3, 32, 32]
    weight = _foreground(lab)  # [B, P]
    lab = lab.flatten(2).transpose(1, 2)  # [B, P, 3]
    even = torch.full_like(weight, 1.0 / weight.shape[1])
    soft = [_soft_bins(lab[..., i], LOW[i], HIGH[i], BINS[i]) for i in range(3)]
    joint = (soft[1].unsqueeze(-1) * soft[2].unsqueeze(-2)).flatten(2)  # [B, P, 49]
    weights = torch.stack([even, weight], dim=1)  # [B, 2, P]
    rows = (weights.unsqueeze(-2) * soft[0].transpose(1, 2).unsqueeze(1)).flatten(1, 2)  # [B, 10, P]
    histograms = (rows @ joint).flatten(1)  # [B, 490]
    means = (weights @ lab).flatten(1) / 50.0  # [B, 6]
    return torch.cat([histograms.clamp_min(0).sqrt(), means], dim=1)


def rgb_to_lab(images: Tensor) -> Tensor:
    """sRGB [B, 3, H, W] on a scale of 0..1 -> CIE Lab (D65) [B, 3, H, W]."""
    linear = torch.where(images > 0.04045, ((images.clamp_min(0) + 0.055) / 1.055) ** 2.4, images / 12.92)
    to_xyz = images.new_tensor(
        [[0.4339, 0.3763, 0.1899], [0.2126, 0.7152, 0.0722], [0.0178, 0.1095, 0.8727]]
    )  # rows divided by the white point
    xyz = torch.einsum("ij,bjhw->bihw", to_xyz, linear)
    f = torch.where(xyz > 0.008856, xyz.clamp_min(1e-8) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _foreground(lab: Tensor) -> Tensor:
    """Weight of each pixel, summing to 1: far from the median border colour, near the centre. -> [B, P]."""
    border = torch.cat(
        [lab[:, :, 0], lab[:, :, -1], lab[:, :, :, 0], lab[:, :, :, -1]], dim=2
    )  # [B, 3, 4 SIDE]
    background = border.median(dim=2).values[:, :, None, None]
    distance = (lab - background).square().sum(1)  # [B, H, W]
    weight = 1 - torch.exp(-distance / (2 * FOREGROUND_DISTANCE**2)) + 0.02
    at = torch.linspace(-1, 1, lab.shape[-1], device=lab.device)
    centre = torch.exp(-(at[:, None].square() + at[None, :].square()))
    weight = (weight * centre).flatten(1)
    return weight / weight.sum(1, keepdim=True)


def _soft_bins(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Values [B, P] -> share in each of `bins` evenly spaced bins, linear between neighbours. [B, P, bins]."""
    place = ((x - low) / (high - low)).clamp(0, 1) * (bins - 1)
    centres = torch.arange(bins, device=x.device, dtype=x.dtype)
    return (1 - (place.unsqueeze(-1) - centres).abs()).clamp_min(0)
