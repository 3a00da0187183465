"""What might raise `mini`'s recall, tried in short runs: heads alone over cached features, 400 steps of 1,024 pairs.

Recall@10, mean of both directions, of val photos and their sentences, of val products and their titles, and of 1,000
photos of training and theirs, which tells how much is learning by heart. Recipe and cache are those of a run of mini's
(`--run`; `--sources` written as that run had it); a row takes some two minutes on two cores. `--model`: weights whose
trunk made that cache, where it is not the published one.

    python -m tests.benchmarks.bench_levers --run data/train/mini --sources ../shared/data
    python -m tests.benchmarks.bench_levers --run data/train/mini --sources ../shared/data --rows "left out"
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import textmm.train
from tests.benchmarks.measure import print_json
from textmm import checkpoint, trunk_cache, validation
from textmm.config import named_model
from textmm.image import CNN
from textmm.losses import contrastive_loss
from textmm.model import TextMultiModalModel
from textmm.optimiser import adamw, clip, pace
from textmm.pairs import Pairs
from textmm.pretrained import load_tokenizer
from textmm.recipe import TrainConfig, Validation
from textmm.stage_inputs import leave_out
from textmm.text import PretrainedText
from textmm.trunk_cache import CachedInputs

RECIPE = Path(textmm.train.__file__).parent / "recipes" / "mini.toml"
SETS = {
    "photos": "flickr8k/val-*.tar",
    "titles": "fashion/val-*.tar",
    "learnt photos": "flickr8k/train-0000.tar",
}
BATCH, HARDNESS = 1024, 0.3
"""Of the second, how much more a negative counts by its logit (Robinson et al. 2021)."""
LEFT_OUT = ((0.2, 0.2), (0.4, 0.4), (0.65, 0.3), (0.65, 0.6), (0.8, 0.3))
"""Shares of the features of pictures and of texts that heads do not see in training."""
Loss = Callable[..., Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="of mini's recipe, whose cache is used")
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--trunks", type=Path, default=Path("data/trunks"))
    parser.add_argument("--out", type=Path, default=Path("data/levers"), help="for features of val")
    parser.add_argument("--model", default="", help="a folder of weights")
    parser.add_argument("--rows", default="", help="only those with this in their name")
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    trial = Trial(arguments)
    figures: dict[str, dict[str, float]] = {}
    print(f"{'':36}" + "".join(f"{name:>16}" for name in SETS))
    for name, row in rows_of(trial, arguments.steps).items():
        if arguments.rows in name:
            figures[name] = trial.recall(row())
            values = "".join(f"{value:16.3f}" for value in figures[name].values())
            print(f"{name:36}{values}", flush=True)
    print_json("levers", {"steps": arguments.steps, "batch": BATCH}, figures)


def rows_of(trial: Trial, steps: int) -> dict[str, Callable[[], list[TextMultiModalModel]]]:
    """What is tried, by name: models whose vectors are put side by side."""

    @cache
    def once(seed: int) -> TextMultiModalModel:
        return trial.trained(trial.fresh(seed), seed, steps)

    @cache
    def branches() -> list[TextMultiModalModel]:
        return [trial.trained(copy.deepcopy(once(0)), seed, steps // 2, rate=0.3) for seed in (11, 12, 13)]

    def left_out(share: tuple[float, float]) -> list[TextMultiModalModel]:
        return [trial.trained(trial.fresh(0), 0, steps, left_out=share)]

    rows: dict[str, Callable[[], list[TextMultiModalModel]]] = {
        f"left out {image:g} of pictures, {text:g} of texts": partial(left_out, (image, text))
        for image, text in LEFT_OUT
    }
    return rows | {
        "once, left out as in the recipe": lambda: [once(0)],
        "three, their vectors side by side": lambda: [once(seed) for seed in range(3)],
        "half as long again": lambda: branches()[:1],
        "three such, averaged in weights": lambda: [averaged(branches())],
        "hard negatives count more": lambda: [trial.trained(trial.fresh(0), 0, steps, loss=hard_loss)],
        "twice as long": lambda: [trial.trained(trial.fresh(0), 0, 2 * steps)],
    }


class Trial:
    """Short runs of the recipe's first stage, and recall of what came of them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._config = TrainConfig.read(RECIPE)
        self._stage = self._config.stages[0]
        self._architecture = named_model(self._config.model)
        self._trunks, self._model = arguments.trunks, arguments.model
        (cache,) = {path.parent for path in (arguments.run / "cache").glob("*/*.texts.present.npy")}
        self._pairs = Pairs(
            self._config.sources,
            self._config.phrases,
            data=arguments.sources,
            drawings=arguments.run / "cache",
            seed=self._config.seed,
            questions=self._config.questions,
        )
        self._inputs = CachedInputs(cache, self._pairs)
        self._sets = {name: self._read(arguments, source) for name, source in SETS.items()}

    def _read(self, arguments: argparse.Namespace, source: str) -> tuple[Pairs, CachedInputs]:
        """Whole pictures and texts of a source, and what the trunks make of them."""
        pairs = validation.read_pairs(
            Validation(source=source), self._stage, data=arguments.sources, drawings=arguments.out, seed=1
        )
        model = self.fresh(0).eval()
        assert isinstance(model.image, CNN)
        model.image.features = model.image.features.to(torch.bfloat16).to(memory_format=torch.channels_last)
        tokenizer = load_tokenizer(self._architecture.text_cfg, self._trunks)
        for what, done, of in (
            *trunk_cache.fill_pictures(arguments.out, model, pairs),
            *trunk_cache.fill_texts(arguments.out, model, pairs, tokenizer),
        ):
            print(f"{what}: {done}/{of}", end="\r")
        return pairs, CachedInputs(arguments.out, pairs)

    def fresh(self, seed: int) -> TextMultiModalModel:
        """Untrained heads over the trunks."""
        torch.manual_seed(seed)
        model = checkpoint.build(self._architecture, self._trunks)
        if self._model:
            trained = checkpoint.load(self._model, self._trunks).model.image
            assert isinstance(model.image, CNN) and isinstance(trained, CNN)
            model.image.features.load_state_dict(trained.features.state_dict())
        images, texts = trunk_cache.sample(self._inputs, self._pairs, np.random.default_rng(6), 20_000)
        assert isinstance(model.image, CNN) and isinstance(model.text, PretrainedText)
        model.image.projection.fit(images)
        model.text.projection.fit(texts)
        model.logit_scale.data.fill_(math.log(self._stage.scale_start))
        return model

    def trained(
        self,
        model: TextMultiModalModel,
        seed: int,
        steps: int,
        *,
        rate: float = 1.0,
        loss: Loss = contrastive_loss,
        left_out: tuple[float, float] | None = None,
    ) -> TextMultiModalModel:
        """The heads after so many steps; batches depend on the seed, `rate` is times the recipe's."""
        stage, model = self._stage, model.train()
        if left_out:
            image, text = left_out
            stage = replace(stage, image_feature_dropout=image, text_feature_dropout=text)
        learning = [p for name, p in model.named_parameters() if name.startswith(tuple(stage.trains))]
        optimizer = adamw(learning, stage.learning_rate * rate, stage.weight_decay)
        peaks = [group["lr"] for group in optimizer.param_groups]
        for step in range(steps):
            torch.manual_seed(seed * 100_000 + step)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * pace(step, steps, stage.warmup_steps)
            draw = self._pairs.draw(BATCH, stage=seed, step=step)
            rngs = [np.random.default_rng([seed, step, row]) for row in range(len(draw.picture_ids))]
            leave_out(stage, model, self._pairs, draw.picture_ids)
            with torch.autocast("cpu", torch.bfloat16):
                images = model.image.project(self._inputs.pictures(draw.picture_ids, rngs, memory=False))
                texts = model.text.project(self._inputs.texts(draw.text_ids))
            positives, ignored = map(
                torch.from_numpy, (self._pairs.positives(draw), self._pairs.ignored(draw))
            )
            scale = model.scale(math.log(stage.scale_max))
            optimizer.zero_grad(set_to_none=True)
            loss(images, texts, scale, positives, ignored=ignored).backward()  # type: ignore[no-untyped-call]
            clip(model, stage.grad_clip_norm)
            optimizer.step()
        return model.eval()

    def recall(self, models: Sequence[TextMultiModalModel]) -> dict[str, float]:
        """Of the models' vectors side by side."""
        model = models[0] if len(models) == 1 else SideBySide(models)
        return {
            name: round(validation.recall_at_10(model, inputs, pairs), 4)  # type: ignore[arg-type]
            for name, (pairs, inputs) in self._sets.items()
        }


class SideBySide:
    """Several models as one, as far as recall_at_10 asks: scores are the means of theirs."""

    def __init__(self, models: Sequence[TextMultiModalModel]) -> None:
        self.image = Projections([model.image for model in models])
        self.text = Projections([model.text for model in models])


class Projections:
    def __init__(self, towers: Sequence[Any]) -> None:
        self._towers = towers

    def project(self, made: Any) -> Tensor:
        return torch.cat([tower.project(made) for tower in self._towers], dim=1)


def averaged(models: Sequence[TextMultiModalModel]) -> TextMultiModalModel:
    """One with the mean of their weights."""
    mean = copy.deepcopy(models[0])
    with torch.no_grad():
        for parameters in zip(*(model.parameters() for model in (mean, *models)), strict=True):
            parameters[0].copy_(torch.stack(parameters[1:]).mean(0))
    return mean


def hard_loss(
    images: Tensor, texts: Tensor, scale: Tensor, positives: Tensor, *, ignored: Tensor | None = None
) -> Tensor:
    """contrastive_loss whose negatives count the more the nearer they are; their mean weight is 1."""
    logits = (scale * images @ texts.T).float()
    out = ignored & ~positives if ignored is not None else torch.zeros_like(positives)
    parts = []
    for rows, right, gone in ((logits, positives, out), (logits.T, positives.T, out.T)):
        others = ~(right | gone)
        pull = (HARDNESS * rows.detach()).masked_fill(~others, -torch.inf)
        weights = torch.log_softmax(pull, 1) + others.sum(1, keepdim=True).log()
        weighed = torch.where(others, rows + weights, rows).masked_fill(gone, -1e4)
        target = right.float() / right.sum(1, keepdim=True)
        parts.append(-(target * torch.log_softmax(weighed, 1)).sum(1).mean())
    return torch.stack(parts).mean()


if __name__ == "__main__":
    main()
