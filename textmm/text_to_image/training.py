"""train(recipe): autoencoder, then its decoder alone, then the flow over its latents; a loop, readable top to bottom.

What is random in a step depends on the seed, the stage and the step alone, so a run that was stopped goes on as if it
had not been.
"""

# b rows of a batch, H W pixels, C channels of a latent, h w places

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from textmm import pretrained, training_log
from textmm.array_file import new_array
from textmm.checkpoint import load_training, save_training
from textmm.efficientnet import EfficientNetLite
from textmm.mean_weights import MeanWeights
from textmm.optimiser import adamw, clip, pace
from textmm.text_to_image import checkpoint
from textmm.text_to_image.autoencoder import Autoencoder
from textmm.text_to_image.catalogue import Catalogue
from textmm.text_to_image.config import FlowConfig
from textmm.text_to_image.discriminator import Discriminator
from textmm.text_to_image.flow import Flow
from textmm.text_to_image.recipe import GeneratorRecipe, GeneratorStage
from textmm.train import LOG, Progress, TrainingFailed, TrainingStopped

STATE = "training.pt"
PERCEPTUAL_TRUNK = "efficientnet-lite0"
NEWTON_SCHULZ_STEPS = 4
"""Of Muon; five are usual, four train as well and cost a fifth less."""


def train(
    recipe: GeneratorRecipe,
    *,
    data: Path,
    trunks: Path,
    out: Path,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Train what `recipe` says on sources below `data`; the checkpoint and training.csv appear in `out`.

    Run again after a stop it goes on from the last save. `stop` is asked after every step: when it says so, the run
    saves and raises TrainingStopped. Raises TrainingFailed when a loss is no number.
    """
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    out.mkdir(parents=True, exist_ok=True)
    catalogue = Catalogue(recipe, data=data, trunks=trunks, cache=out / "cache")
    for what, done, of in catalogue.fill():
        yield Progress(what, done, of)
        if stop():
            raise TrainingStopped(f"stopped at {what}, {done} of {of}")
    autoencoder = Autoencoder(recipe.autoencoder).to(device)
    flow = Flow(_flow_config(recipe, catalogue)).to(device)
    flow.fit_words(_all_words(catalogue, recipe.seed))
    parts = _Parts(recipe, catalogue, autoencoder, flow, trunks, out, torch.device(device))
    state: dict[str, object] = {"stage": 0, "step": 0}
    if (out / STATE).exists():
        state = load_training(out / STATE)
    parts.load(state)
    number, step = cast(int, state["stage"]), cast(int, state["step"])
    names = [stage.name for stage in recipe.stages]
    training_log.forget(out / LOG, names[:number], "".join(names[number : number + 1]), step)
    for later in range(number, len(recipe.stages)):
        yield from _train_stage(parts, later, state if later == number and step else None, stop)
        checkpoint.save(
            out,
            autoencoder,
            flow,
            name=recipe.generator,
            words=recipe.words,
            least_score=recipe.least_score,
        )


def _train_stage(
    parts: _Parts, number: int, state: dict[str, object] | None, stop: Callable[[], bool]
) -> Iterator[Progress]:
    """The steps of a stage, from where `state` was saved, with logging and saving."""
    recipe, stage = parts.recipe, parts.recipe.stages[number]
    task: _Task = _FlowTask(parts, stage) if stage.trains == "flow" else _PictureTask(parts, stage)
    yield from task.prepare()
    run = _Run(task, stage, parts.out)
    step = 0 if state is None else run.load(state)
    started, begun = time.perf_counter(), step
    while step < stage.steps:
        figures = run.step(step, np.random.default_rng([recipe.seed, number, step]))
        step += 1
        over, stopped = step == stage.steps, step < stage.steps and stop()
        if over or stopped or step % recipe.log_every == 0:
            training_log.log(parts.out / LOG, stage.name, step, figures)
            rate = (step - begun) * stage.batch_size / (time.perf_counter() - started)
            yield Progress(stage.name, step, stage.steps, figures, rate)
        if over:
            save_training(parts.out / STATE, parts.state() | {"stage": number + 1, "step": 0})
        elif stopped or step % recipe.save_every == 0:
            save_training(parts.out / STATE, parts.state() | run.state() | {"stage": number, "step": step})
        if stopped:
            raise TrainingStopped(f"stopped at stage {stage.name}, step {step} of {stage.steps}")


class _Run:
    """A stage under way: what it trains, by which optimizers, and the mean of the weights."""

    def __init__(self, task: _Task, stage: GeneratorStage, out: Path) -> None:
        self._task, self._stage, self._out = task, stage, out
        self._optimizers = task.optimizers()
        self._peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self._optimizers]
        self._mean = MeanWeights(task.module)

    def step(self, number: int, rng: np.random.Generator) -> dict[str, float]:
        """Losses by name. Raises TrainingFailed before a weight is spoilt."""
        stage, module = self._stage, self._task.module
        torch.manual_seed(int(rng.integers(2**31)))
        now = pace(number, stage.steps, stage.warmup_steps)
        for optimizer, peaks in zip(self._optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * now
            optimizer.zero_grad(set_to_none=True)
        losses = self._task.losses(rng)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        norm = clip(module, stage.grad_clip_norm)
        figures = {name: float(loss.detach()) for name, loss in losses.items()}
        if not math.isfinite(sum(figures.values()) + norm):
            raise TrainingFailed(
                f"stage {stage.name}, step {number}: losses {figures}, gradient {norm}; {self._out} keeps the "
                "weights of the last save: lower learning_rate"
            )
        for optimizer in self._optimizers:
            optimizer.step()
        self._mean.follow(module, number, stage.steps, stage.average_last)
        return figures

    def state(self) -> dict[str, object]:
        return self._task.state() | {
            "mean": self._mean.state(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def load(self, state: dict[str, object]) -> int:
        """The step to go on with."""
        self._task.load(state)
        self._mean.load(cast(dict[str, Any], state["mean"]))
        kept = cast(list[dict[str, Any]], state["optimizers"])
        for optimizer, one in zip(self._optimizers, kept, strict=True):
            optimizer.load_state_dict(one)
        return cast(int, state["step"])


@dataclass(frozen=True)
class _Parts:
    recipe: GeneratorRecipe
    catalogue: Catalogue
    autoencoder: Autoencoder
    flow: Flow
    trunks: Path
    out: Path
    device: torch.device

    def state(self) -> dict[str, object]:
        return {"autoencoder": self.autoencoder.state_dict(), "flow": self.flow.state_dict()}

    def load(self, state: dict[str, object]) -> None:
        if "flow" in state:
            self.autoencoder.load_state_dict(cast(dict[str, Tensor], state["autoencoder"]))
            self.flow.load_state_dict(cast(dict[str, Tensor], state["flow"]))

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)


class _Task:
    """What a stage trains, and what it minimises."""

    module: nn.Module

    def __init__(self, parts: _Parts, stage: GeneratorStage) -> None:
        self.parts, self.stage = parts, stage

    def prepare(self) -> Iterator[Progress]:
        yield from ()

    def state(self) -> dict[str, object]:
        """What it keeps beside the weights of the generator, to go on from."""
        return {}

    def load(self, state: dict[str, object]) -> None: ...

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.adamw(list(self.module.parameters()))]

    def adamw(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return adamw(parameters, self.stage.learning_rate, self.stage.weight_decay)

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        raise NotImplementedError


class _PictureTask(_Task):
    """Pictures come back as they went in: pixel by pixel, and as the first stages of a pretrained trunk see them."""

    def __init__(self, parts: _Parts, stage: GeneratorStage) -> None:
        super().__init__(parts, stage)
        self.whole = stage.trains == "autoencoder"
        self.module = parts.autoencoder if self.whole else parts.autoencoder.decoder
        parts.autoencoder.requires_grad_(self.whole).train(self.whole)
        self.module.requires_grad_().train()
        parts.autoencoder.to(memory_format=torch.channels_last)
        self.trunk = EfficientNetLite()
        if stage.perceptual_weight:
            pretrained.load_efficientnet(self.trunk, PERCEPTUAL_TRUNK, parts.trunks)
        self.trunk.requires_grad_(False).to(parts.device).to(memory_format=torch.channels_last)
        self.discriminator: Discriminator | None = None
        if stage.adversarial_weight:
            torch.manual_seed(parts.recipe.seed)
            widths = self.trunk.stage_widths[: stage.perceptual_stages + 1]
            self.discriminator = Discriminator(widths).to(parts.device)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        found = super().optimizers()
        if self.discriminator is not None:
            found.append(self.adamw(list(self.discriminator.parameters())))
        return found

    def state(self) -> dict[str, object]:
        return {} if self.discriminator is None else {"discriminator": self.discriminator.state_dict()}

    def load(self, state: dict[str, object]) -> None:
        if self.discriminator is not None:
            self.discriminator.load_state_dict(cast(dict[str, Tensor], state["discriminator"]))

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        parts, stage = self.parts, self.stage
        rows = parts.catalogue.draw(stage.batch_size, rng, sharp_only=stage.sharp_only)
        pictures = parts.catalogue.pictures(rows, rng.random(len(rows)) < 0.5).to(parts.device)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with parts.autocast():
            if self.whole:
                back = parts.autoencoder(pictures)
            else:
                with torch.no_grad():
                    latents = parts.autoencoder.encode(pictures)
                back = parts.autoencoder.decode(parts.autoencoder.noisy(latents))
        out = {"pixels": F.l1_loss(back, pictures) + F.mse_loss(back, pictures)}
        if stage.perceptual_weight:
            with parts.autocast():
                with torch.no_grad():
                    wanted = self.trunk.first(pictures, stage.perceptual_stages)
                got = self.trunk.first(back, stage.perceptual_stages)
                out["perceptual"] = stage.perceptual_weight * maps_differ(got, wanted)
                if self.discriminator is not None:
                    out["fooling"] = stage.adversarial_weight * self.discriminator.fooling_loss(got)
                    out["telling"] = self.discriminator.telling_loss(wanted, got)
        return out


class _FlowTask(_Task):
    """The velocity from noise to latents, which stay on disk once the encoder is finished."""

    def __init__(self, parts: _Parts, stage: GeneratorStage) -> None:
        super().__init__(parts, stage)
        self.module = parts.flow
        parts.autoencoder.eval()
        parts.flow.requires_grad_().train()
        if stage.compiled:
            parts.flow.compile()

    def prepare(self) -> Iterator[Progress]:
        encoder = hashlib.sha256()
        for name, tensor in sorted(self.parts.autoencoder.encoder.state_dict().items()):
            encoder.update(name.encode() + tensor.cpu().numpy().tobytes())
        path = self.parts.out / "cache" / f"{encoder.hexdigest()[:16]}.latents.npy"
        if not path.exists():
            yield from self._fill(path)
        self.latents: NDArray[np.float16] = np.load(path, mmap_mode="r")  # [n, C, h, w]

    def _fill(self, path: Path) -> Iterator[Progress]:
        parts, config, count = self.parts, self.parts.recipe.autoencoder, len(self.parts.catalogue)
        with new_array(path, (count, config.channels, *config.places), np.float16) as out:
            for start in range(0, count, 64):
                rows = np.arange(start, min(start + 64, count))
                with torch.inference_mode(), parts.autocast():
                    latents = parts.autoencoder.encode(parts.catalogue.pictures(rows).to(parts.device))
                out[rows] = latents.half().cpu().numpy()
                yield Progress("latents", int(rows[-1]) + 1, count)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        blocks = cast(nn.Module, self.parts.flow.blocks)
        matrices = [
            p
            for name, p in blocks.named_parameters()
            if p.ndim == 2 and ".steer." not in name and self.stage.matrix_learning_rate
        ]
        chosen = {id(p) for p in matrices}
        rest = [p for p in self.parts.flow.parameters() if id(p) not in chosen]
        found = [self.adamw(rest)]
        if matrices:
            found.append(
                torch.optim.Muon(
                    matrices,
                    lr=self.stage.matrix_learning_rate,
                    weight_decay=self.stage.weight_decay,
                    ns_steps=NEWTON_SCHULZ_STEPS,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        return found

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        parts, stage, count = self.parts, self.stage, self.stage.batch_size
        rows = parts.catalogue.draw(count, rng)
        latents = torch.from_numpy(self.latents[rows].astype(np.float32)).to(parts.device)
        words, present = parts.catalogue.words(rows, rng)
        present = _left_out(present, stage, rng).to(parts.device)
        sharp = torch.from_numpy(parts.catalogue.sharp[rows]).to(parts.device)
        times = torch.sigmoid(torch.randn(count, device=parts.device))
        noise = torch.randn_like(latents)
        along = times[:, None, None, None]
        with parts.autocast():
            velocity = parts.flow(
                along * latents + (1 - along) * noise, times, words.to(parts.device), present, sharp
            )
        return {"velocity": F.mse_loss(velocity, latents - noise)}


def maps_differ(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """How maps [b, C, h, w] differ: mean over maps, each map's channels by their own size (after LPIPS, Zhang et al.
    2018)."""
    each = [
        ((g.float() - w.float()).abs().mean((0, 2, 3)) / _size(w)).mean()
        for g, w in zip(got, wanted, strict=True)
    ]
    return torch.stack(each).mean()


def _left_out(present: Tensor, stage: GeneratorStage, rng: np.random.Generator) -> Tensor:
    """Which trunks read the words [b, trunks] once one is now and then left out, and all where there are no words."""
    present = present.clone()
    if present.shape[1] > 1:
        row, which = (
            rng.random(len(present)) < stage.leave_out,
            rng.integers(present.shape[1], size=len(present)),
        )
        both = present.all(1).numpy()
        at = np.flatnonzero(row & both)
        present[at, which[at]] = False
    present[rng.random(len(present)) < stage.blank_share] = False
    return present


def _flow_config(recipe: GeneratorRecipe, catalogue: Catalogue) -> FlowConfig:
    shape = recipe.autoencoder
    return FlowConfig(
        channels=shape.channels, places=shape.places, words_widths=catalogue.words_widths, **recipe.flow
    )


def _all_words(catalogue: Catalogue, seed: int) -> Tensor:
    """Of some phrases that every trunk could read, to standardise by."""
    rng = np.random.default_rng([seed, 99])
    words, present = catalogue.words(catalogue.draw(4000, rng), rng)
    return words[present.all(1)]


def _size(maps: Tensor) -> Tensor:
    """Of each channel, its mean absolute value [C]."""
    return maps.float().abs().mean((0, 2, 3)).clamp_min(1e-2)
