"""The mean of weights over the last steps of a stage (Izmailov et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class MeanWeights:
    """The mean of the weights that learn, over the steps it was added at."""

    def __init__(self, model: nn.Module) -> None:
        learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._sums = {name: torch.zeros_like(p) for name, p in learning.items()}
        self._count = 0

    def follow(self, model: nn.Module, step: int, steps: int, last: float) -> None:
        """After a step of so many, the mean being over the `last` share of them; after the last the model has it."""
        if step >= steps * (1 - last):
            self._add(model)
        if step + 1 == steps and self._count:
            self._give(model)

    @torch.no_grad()
    def _add(self, model: nn.Module) -> None:
        self._count += 1
        for name, parameter in model.named_parameters():
            if name in self._sums:
                self._sums[name].add_(parameter.detach())

    @torch.no_grad()
    def _give(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if name in self._sums:
                parameter.copy_(self._sums[name] / self._count)

    def state(self) -> dict[str, Any]:
        return {"sums": self._sums, "count": self._count} if self._count else {}

    def load(self, state: Mapping[str, Any]) -> None:
        if state:
            saved = state["sums"]  # read on the CPU, wherever the model learns
            self._sums = {name: saved[name].to(sums.device) for name, sums in self._sums.items()}
            self._count = int(state["count"])
