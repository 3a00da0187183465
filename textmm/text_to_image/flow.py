"""Flow: the velocity of latents on their way from noise to a picture, given words (rectified flow, Liu et al. 2023).

A Transformer over the places of a latent whose MLPs look at neighbours too (3x3), steered by time and words through
adaptive norms (DiT, Peebles & Xie 2023). Reads bottom-up: `Modulated`, `Attention`, `ConvMLP`, `FlowBlock`, `Flow`.
"""

# B batch, N places (h x w), D width, C channels of a latent, P width of what text trunks make of words

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textmm.text_to_image.config import FlowConfig


class Attention(nn.Module):
    """x [B, N, D] -> [B, N, D]; queries and keys are normed, which keeps bfloat16 steady (Dehghani et al. 2023).

    Plain products in place of the fused kernel: on a CPU its backward pass took a quarter of a step.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        weights = torch.softmax(q @ k.mT * self.scale.exp().to(q.dtype), dim=-1)  # [B, heads, N, N]
        y: Tensor = self.out((weights @ v).transpose(1, 2).reshape(b, n, d))
        return y


class ConvMLP(nn.Module):
    """x [B, N, D] -> [B, N, D]: a 3x3 convolution to `hidden` channels, then 1x1 back.

    The weights are matrices, as the optimiser of matrices (Muon) wants them.
    """

    def __init__(self, width: int, hidden: int, places: tuple[int, int]) -> None:
        super().__init__()
        self.width, self.places = width, places
        self.mix = nn.Linear(9 * width, hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        b, _n, d = x.shape
        grid = x.transpose(1, 2).reshape(b, d, *self.places)
        weight = self.mix.weight.view(-1, d, 3, 3)
        y = F.silu(F.conv2d(grid, weight, self.mix.bias, padding=1))
        out: Tensor = self.out(y.flatten(2).transpose(1, 2))
        return out


class FlowBlock(nn.Module):
    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads)
        self.mlp = ConvMLP(config.width, config.hidden, config.places)
        self.steer = nn.Linear(config.width, 6 * config.width)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [B, N, D], condition [B, D]"""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.steer(condition)[:, None].chunk(6, dim=-1)
        x = x + gate1 * self.attention(_normed(x) * (1 + scale1) + shift1)
        y: Tensor = x + gate2 * self.mlp(_normed(x) * (1 + scale2) + shift2)
        return y


class Flow(nn.Module):
    """Latents [B, C, h, w] at times [B] in 0..1 (0 noise, 1 picture) and words -> velocities [B, C, h, w].

    Words [B, P] are what the text trunks of a model make of them, side by side, and `present` [B, trunks] bool which of
    these can read them; where none can, there are no words, as guidance wants it (Ho & Salimans 2022). `sharp` [B] bool
    says whether a picture is one of full size or enlarged from a small one: most of a catalogue may be small, and only
    full ones are asked for.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        width, read = config.width, sum(config.words_widths)
        self.register_buffer("mean", torch.zeros(read))
        self.register_buffer("std", torch.ones(read))
        self.enter = nn.Linear(config.channels, width)
        self.places = nn.Parameter(torch.randn(config.places[0] * config.places[1], width) * 0.02)
        self.words = nn.Sequential(nn.Linear(read, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        self.no_words = nn.Parameter(torch.zeros(width))
        self.time = nn.Sequential(nn.Linear(TIME_WIDTH, width), nn.SiLU(), nn.Linear(width, width))
        self.sharp = nn.Embedding(2, width)
        self.blocks = nn.ModuleList(FlowBlock(config) for _ in range(config.layers))
        self.steer = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, config.channels)
        for layer in (self.steer, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.sharp.weight)

    def fit_words(self, words: Tensor) -> None:
        """Take mean and deviation from words [n, P] that every trunk could read."""
        self.mean.copy_(words.mean(0))
        self.std.copy_(words.std(0).clamp_min(1e-4))

    def condition(self, words: Tensor, present: Tensor) -> Tensor:
        """[B, P], [B, trunks] -> [B, D]"""
        widths = torch.tensor(self.config.words_widths, device=words.device)
        kept = (present * widths).sum(1, keepdim=True).clamp_min(1)
        mask = present.repeat_interleave(widths, dim=1) * (widths.sum() / kept).sqrt()
        known = self.words(((words - self.mean) / self.std).clamp(-6, 6) * mask)
        return torch.where(present.any(1, keepdim=True), known, self.no_words.to(known.dtype))

    def forward(
        self, latents: Tensor, times: Tensor, words: Tensor, present: Tensor, sharp: Tensor
    ) -> Tensor:
        steered = self.condition(words, present) + self.time(_waves(times)) + self.sharp(sharp.long())
        condition = F.silu(steered)
        x = self.enter(latents.flatten(2).transpose(1, 2)) + self.places
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.steer(condition)[:, None].chunk(2, dim=-1)
        y: Tensor = self.leave(_normed(x) * (1 + scale) + shift)
        return y.transpose(1, 2).reshape(latents.shape).float()


TIME_WIDTH = 128


def _waves(times: Tensor) -> Tensor:
    """[B] -> [B, TIME_WIDTH]: sines and cosines, from once to a thousand times over 0..1."""
    rates = torch.exp(torch.linspace(0, math.log(1000.0), TIME_WIDTH // 2, device=times.device))
    angles = times[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])
