"""Which parameters of a model a stage trains, by what optimiser, at which rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from textmm.checkpoint import LOCKED
from textmm.model import TextMultiModalModel
from textmm.recipe import Stage


def trained_by(model: TextMultiModalModel, trains: Sequence[str], *, pretrained: bool) -> list[str]:
    """Names of the parameters that `trains` names, whole parts of a name at a time.

    With `pretrained` trunks, a parameter of a trunk is named only by a prefix that reaches into the trunk. Raises
    ValueError for a prefix that names nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    chosen: set[str] = set()
    for prefix in trains:
        meant = [name for name in names if _below(name, prefix)]
        if not meant:
            parts = ", ".join(sorted({name.split(".")[0] for name in names}))
            raise ValueError(f"trains = {prefix!r} names no part of the model; its parts begin with {parts}")
        into_trunk = f"{prefix}.".startswith(LOCKED)
        chosen.update(n for n in meant if into_trunk or not (pretrained and n.startswith(LOCKED)))
    return [name for name in names if name in chosen]


def make_optimizer(model: TextMultiModalModel, stage: Stage, *, pretrained: bool) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) over what the stage trains; gains, biases and the temperature do not
    decay. The rest of the model is locked.
    """
    chosen = set(trained_by(model, stage.trains, pretrained=pretrained))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in chosen
    learning = [p for p in model.parameters() if p.requires_grad]
    return adamw(learning, stage.learning_rate, stage.weight_decay)


def adamw(parameters: Sequence[nn.Parameter], rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW over these, of which gains and biases do not decay."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-6)


def pace(step: int, steps: int, warmup_steps: int) -> float:
    """Of the learning rate at a step of so many, 0..1: linear warm-up, then a cosine to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    along = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * along))


def clip(model: nn.Module, most: float) -> float:
    """Scale the gradients to a norm of at most `most`; the norm they had, which may be inf or nan."""
    return float(nn.utils.clip_grad_norm_(model.parameters(), most))


def _below(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}.")
