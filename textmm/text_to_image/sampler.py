"""Sampler: latents out of noise along a flow, by Euler steps with guidance."""

# B batch, C channels of a latent, h w places, P width of what text trunks make of words

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from textmm.text_to_image.config import FlowConfig
from textmm.text_to_image.flow import Flow


@dataclass(frozen=True)
class Sampling:
    steps: int = 10
    guidance: float = 4.0
    """How far beyond the velocity without words the one with words is followed (Ho & Salimans 2022)."""
    guided: tuple[float, float] = (0.15, 0.75)
    """Between these times, 0 noise and 1 latents; before and after it the words alone lead, which keeps pictures apart
    from each other and takes half the work (Kynkäänniemi et al. 2024)."""


def noise(config: FlowConfig, seeds: Sequence[int]) -> Tensor:
    """[B, C, h, w] float32: row i depends on seed i alone, whatever the batch."""
    shape = (config.channels, *config.places)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def sample(
    flow: Flow,
    words: Tensor,
    present: Tensor,
    start: Tensor,
    how: Sampling,
    *,
    latents: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """Words [B, P] and which trunks read them [B, trunks], noise [B, C, h, w] -> latents [B, C, h, w].

    With `latents` of pictures it begins part of the way: `strength` 1 is noise alone, near 0 the pictures (SDEdit,
    Meng et al. 2022). The flow is in evaluation mode.
    """
    begin = 0.0 if latents is None else 1.0 - strength
    x = start if latents is None else begin * latents + strength * start
    steps = max(1, round(how.steps * (1.0 - begin)))
    times = torch.linspace(begin, 1.0, steps + 1)
    both_words = torch.cat([words, words])
    both_present = torch.cat([present, torch.zeros_like(present)])
    sharp = torch.ones(2 * len(x), dtype=torch.bool, device=x.device)
    for now, then in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        at = torch.full((2 * len(x),), now, device=x.device)
        if how.guided[0] <= now < how.guided[1]:
            with_words, without = flow(torch.cat([x, x]), at, both_words, both_present, sharp).chunk(2)
            velocity = without + how.guidance * (with_words - without)
        else:
            velocity = flow(x, at[: len(x)], words, present, sharp[: len(x)])
        x = x + (then - now) * velocity
    return x
