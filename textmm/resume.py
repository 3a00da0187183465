"""What a run needs to go on after a stop: training.pt, and best.pt where a stage is validated."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from textmm.checkpoint import load_training, save_training, trained_state
from textmm.mean_weights import MeanWeights
from textmm.model import TextMultiModalModel
from textmm.recipe import Stage

STATE, BEST = "training.pt", "best.pt"


@dataclass(frozen=True)
class Position:
    """Where a run stands: `step` steps of a stage done, and what its validation has seen."""

    stage: int = 0
    step: int = 0
    best: float | None = None
    """The best figure of this stage; None before the first look."""
    looks: int = 0
    """Looks since then that were no better."""

    def is_patience_over(self, stage: Stage) -> bool:
        """Whether validation has looked in vain as often as the stage allows."""
        return stage.validate is not None and self.looks >= stage.validate.patience


def save(
    out: Path,
    at: Position,
    model: TextMultiModalModel,
    unlocked: Collection[str],
    optimizer: torch.optim.Optimizer,
    mean: MeanWeights,
) -> None:
    """Write training.pt whole."""
    state: dict[str, object] = {
        "stage": at.stage,
        "step": at.step,
        "best": at.best,
        "looks": at.looks,
        "model": trained_state(model, unlocked),
        "optimizer": optimizer.state_dict(),
        "mean": mean.state(),
    }
    save_training(out / STATE, state)


def saved(out: Path) -> bool:
    return (out / STATE).exists()


def kept(out: Path, names: Sequence[str]) -> str:
    """In words, which weights `out` keeps; `names` are those of the stages."""
    if not saved(out):
        return "nothing was saved yet"
    state = load_training(out / STATE)
    stage, step = cast(int, state["stage"]), cast(int, state["step"])
    return f"{out} keeps the weights of stage {names[stage] if step else names[stage - 1]}, " + (
        f"step {step}" if step else "its end"
    )


def load(out: Path, model: TextMultiModalModel) -> tuple[Position, dict[str, object] | None]:
    """Give `model` the saved weights -> where to go on, and when that is within a stage the state, of which
    `optimizer` and `mean` are still to be loaded.
    """
    if not saved(out):
        return Position(), None
    state = load_training(out / STATE)
    model.load_state_dict(cast(dict[str, Tensor], state["model"]), strict=False)
    at = Position(
        cast(int, state["stage"]),
        cast(int, state["step"]),
        cast(float | None, state.get("best")),
        cast(int, state.get("looks", 0)),
    )
    return at, state if at.step else None


def save_best(out: Path, model: TextMultiModalModel, unlocked: Collection[str]) -> None:
    """Write best.pt whole: the weights in full precision, however the checkpoint stores them."""
    save_training(out / BEST, {"model": trained_state(model, unlocked)})


def load_best(out: Path, model: TextMultiModalModel) -> None:
    state = load_training(out / BEST)
    model.load_state_dict(cast(dict[str, Tensor], state["model"]), strict=False)
