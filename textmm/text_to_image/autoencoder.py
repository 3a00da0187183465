"""Autoencoder: pictures [B, 3, 128, 96] to latents [B, 32, 8, 6] and back; convolutions without norms.

Reads bottom-up: `Residual`, `Encoder`, `Decoder`, `Autoencoder`.
"""

# B batch, C channels of a latent, H W pixels

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textmm.text_to_image.config import AutoencoderConfig


class Residual(nn.Module):
    """x [B, D, h, w] -> the same shape: two 3x3 convolutions beside it, the second 0 at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return y


class Encoder(nn.Module):
    """Pictures -> [B, C, H / 16, W / 16]: half the sides first by moving pixels into channels, then three times by
    strided convolutions."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.widths
        self.fold = nn.PixelUnshuffle(2)
        layers: list[nn.Module] = [nn.Conv2d(12, widths[0], 3, padding=1)]
        for i, (width, blocks) in enumerate(zip(widths, config.encoder_blocks, strict=True)):
            if i:
                layers.append(nn.Conv2d(widths[i - 1], width, 3, stride=2, padding=1))
            layers += [Residual(width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(widths[-1], config.channels, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.layers(self.fold(pictures))
        return out


class Decoder(nn.Module):
    """[B, C, h, w] -> pictures [B, 3, 16 h, 16 w]; the mirror image of the encoder."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        layers: list[nn.Module] = [nn.Conv2d(config.channels, widths[0], 3, padding=1)]
        for i, (width, blocks) in enumerate(zip(widths, config.decoder_blocks[::-1], strict=True)):
            if i:
                layers += [nn.Conv2d(widths[i - 1], 4 * width, 1), nn.PixelShuffle(2)]
            layers += [Residual(width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(widths[-1], 12, 3, padding=1))
        self.unfold = nn.PixelShuffle(2)

    def forward(self, latents: Tensor) -> Tensor:
        out: Tensor = self.unfold(self.layers(latents))
        return out


class Autoencoder(nn.Module):
    """Pictures [B, 3, H, W] in -1..1 <-> latents [B, C, H / 16, W / 16], each channel of mean 0 and deviation 1.

    The channels are made so by a batch norm without gains, and a little noise in training makes decoding forgive what a
    flow gets slightly wrong.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.whiten = nn.BatchNorm2d(config.channels, affine=False, momentum=0.02)
        self.decoder = Decoder(config)

    def encode(self, pictures: Tensor) -> Tensor:
        latents: Tensor = self.whiten(self.encoder(pictures).float())
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        pictures: Tensor = self.decoder(latents).float()
        return pictures

    def noisy(self, latents: Tensor) -> Tensor:
        """As the decoder sees them in training."""
        return latents + self.config.noise * torch.randn_like(latents)

    def forward(self, pictures: Tensor) -> Tensor:
        """The pictures as they come back; in training with noise on the latents."""
        latents = self.encode(pictures)
        return self.decode(self.noisy(latents) if self.training else latents)
