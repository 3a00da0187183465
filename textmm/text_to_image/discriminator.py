"""Discriminator: what tells drawn pictures from real ones, place by place, for a sharper decoder.

Small heads over the maps of a locked, pretrained trunk (Projected GANs, Sauer et al. 2021), trained by the hinge loss
beside the decoder, and thrown away when that is done.
"""

# b pictures, C channels of a map, h w places

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

WIDTH = 64


class Discriminator(nn.Module):
    """Maps [b, C, h, w] of pictures -> [b, 1, h, w] for each of them: how real each place looks."""

    def __init__(self, widths: Sequence[int]) -> None:
        """`widths`: C of each map."""
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, width, affine=False),
                nn.Conv2d(width, WIDTH, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(WIDTH, 1, 1),
            )
            for width in widths
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [head(one) for head, one in zip(self.heads, maps, strict=True)]

    def telling_loss(self, real: Sequence[Tensor], drawn: Sequence[Tensor]) -> Tensor:
        """What the discriminator minimises: real places above 1, drawn ones below -1. The maps learn nothing."""
        pairs = zip(self([one.detach() for one in real]), self([one.detach() for one in drawn]), strict=True)
        return torch.stack(
            [F.relu(1 - r.float()).mean() + F.relu(1 + d.float()).mean() for r, d in pairs]
        ).mean()

    def fooling_loss(self, drawn: Sequence[Tensor]) -> Tensor:
        """What the decoder minimises: its places shall look real. The discriminator learns nothing."""
        locked = {name: value.detach() for name, value in self.state_dict().items()}
        scores = functional_call(self, locked, (drawn,))
        return torch.stack([-one.float().mean() for one in scores]).mean()
