"""What a run needs to go on after a stop: training.pt, and best.pt where a stage is validated."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from textmm.checkpoint import load_training, save_training, trained_state
from textmm.mean_weights import MeanWeights
from textmm.model import TextMultiModalModel
from textmm.recipe import Stage, TrainConfig

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
    config: TrainConfig,
) -> None:
    """Write training.pt whole."""
    state: dict[str, object] = {
        "begins": _beginning(config),
        "stages": _lengths(config),
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


def check(out: Path, config: TrainConfig) -> None:
    """ValueError when what `out` keeps is of another recipe. How a stage learns may change on the way, and stages may
    be added: what a run begins with may not, nor what is done already."""
    if not saved(out):
        return
    state = load_training(out / STATE)
    if "begins" not in state:  # written before this was noted
        return
    elsewhere = f"give --out another folder; start = {str(out)!r} there goes on from what this one holds"
    if state["begins"] != _beginning(config):
        raise ValueError(
            f"{out} holds a run of another recipe (model, start, seed, sources, phrases or questions): {elsewhere}"
        )
    stage, step = cast(int, state["stage"]), cast(int, state["step"])
    before, now = cast(list[list[object]], state["stages"]), _lengths(config)
    for number in range(stage + bool(step)):
        name, steps = before[number]
        fits = number < len(now) and now[number][0] == name
        if not fits or (now[number][1] != steps if number < stage else cast(int, now[number][1]) <= step):
            raise ValueError(
                f"{out} has done stage {name} with {steps} steps, the recipe says otherwise: {elsewhere}"
            )


def _beginning(config: TrainConfig) -> str:
    said = (config.model, config.start, config.seed, config.sources, config.phrases, config.questions)
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _lengths(config: TrainConfig) -> list[list[object]]:
    return [[stage.name, stage.steps] for stage in config.stages]


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
