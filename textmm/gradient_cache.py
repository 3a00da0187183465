"""The loss of a batch and its gradients when only a part of the batch fits through the model at once, or when
each of several processes has a part of it.
"""

# n rows of the batch, over all processes; E embed_dim

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from textmm.ranks import Ranks, parts_of


class BatchLoss(Protocol):
    """A loss over the rows of a batch."""

    def backward(self, ranks: Ranks, micro_batch: int, weight: float) -> Tensor:
        """The loss, a detached scalar; adds this process's part of `weight` times its gradients. Summed over the
        processes they are those of the whole batch.
        """

    def value(self, micro_batch: int) -> Tensor:
        """The loss over all rows in this process, without gradients."""


@dataclass(frozen=True)
class FeatureLoss:
    """A loss that compares each row with all others, through their features.

    Gradient caching (Gao et al. 2021, GradCache): features of all rows without a graph, the loss on them, its
    gradients by the features; then each part once more with a graph, which takes its rows of those gradients.
    Parts must come out the same both times: `features` sets the random state by the part that it is given.
    """

    rows: int
    features: Callable[[range], tuple[Tensor, ...]]
    """Rows of the batch -> their features of each kind, [len(part), E]."""
    loss: Callable[..., Tensor]
    """Features of each kind [n, E] -> the loss. It may have parameters of its own."""

    def backward(self, ranks: Ranks, micro_batch: int, weight: float) -> Tensor:
        share = ranks.share(self.rows)
        parts = parts_of(share, micro_batch)
        again = len(parts) > 1
        with torch.set_grad_enabled(not again):
            made = [self.features(part) for part in parts]
        leaves = [ranks.gather(x, self.rows).requires_grad_() for x in _joined(made)]
        loss = self.loss(*leaves)
        if ranks.rank == 0:  # what the loss itself learns (temperature, bias) counts once
            (weight * loss).backward()  # type: ignore[no-untyped-call]
            by_features = [leaf.grad for leaf in leaves]
        else:
            by_features = list(torch.autograd.grad(weight * loss, leaves))
        for part, features in zip(parts, made, strict=True):
            mine = [x[part.start : part.stop] for x in by_features if x is not None]
            _follow(self.features(part) if again else features, mine)
        return loss.detach()

    @torch.no_grad()
    def value(self, micro_batch: int) -> Tensor:
        return self.loss(*_joined([self.features(part) for part in parts_of(range(self.rows), micro_batch)]))


@dataclass(frozen=True)
class RowLoss:
    """A mean over what the rows hold, to which each part adds its share."""

    rows: int
    loss: Callable[[range], Tensor]
    """Rows of the batch -> their share of the loss: their sum over the count of the whole batch."""

    def backward(self, ranks: Ranks, micro_batch: int, weight: float) -> Tensor:
        total = torch.zeros((), device=ranks.device)
        for part in parts_of(ranks.share(self.rows), micro_batch):
            loss = self.loss(part)
            if loss.requires_grad:
                (weight * loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return ranks.total(total)

    @torch.no_grad()
    def value(self, micro_batch: int) -> Tensor:
        return torch.stack([self.loss(part) for part in parts_of(range(self.rows), micro_batch)]).sum()


def _joined(made: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.cat(kind) for kind in zip(*made, strict=True)]


def _follow(features: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Send the gradients on into the model; a locked tower has no use for them."""
    both = [(x, g) for x, g in zip(features, gradients, strict=True) if x.requires_grad]
    if both:
        torch.autograd.backward([x for x, _ in both], [g for _, g in both])
