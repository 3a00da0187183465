"""train(config): the loop, readable top to bottom."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from textmm import checkpoint, trunk_cache
from textmm.config import ModelConfig, from_mapping, named_model
from textmm.image import CNN
from textmm.losses import captioning_loss, contrastive_loss, next_words, shortened
from textmm.model import TextMultiModalModel
from textmm.pairs import CaptionPhrase, Pairs, PairSource, Phrases
from textmm.pretrained import load_tokenizer, trunks_of
from textmm.reinforce import CiderReward, reinforced_loss, sample_words
from textmm.text import PretrainedText
from textmm.tokenizers import BytePair, Tokenizer
from textmm.trunk_cache import CachedInputs, LiveInputs, TrunkInputs


class TrainingFailed(RuntimeError):
    """The loss is no number any more; the message says where."""


LENGTH_GROUPS = 4
"""Parts of a captioning batch, by length: each is padded to its own longest caption. Halves the time of a step."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    name: str
    steps: int
    batch_size: int
    learning_rate: float
    trains: tuple[str, ...] = ("",)
    """Prefixes of the parameters that learn; pretrained trunks never do."""
    warmup_steps: int = 20
    weight_decay: float = 0.1
    grad_clip_norm: float = 1.0
    contrastive_loss_weight: float = 1.0
    caption_loss_weight: float = 0.0
    question_loss_weight: float = 0.0
    reward_weight: float = 0.0
    """Of captions sampled and rewarded by CIDEr-D (`reinforce.py`)."""
    reward_style: str = "photo"
    reward_batch_size: int = 48
    reward_samples: int = 5
    short_dims: tuple[int, ...] = ()
    """Vectors cut to these sizes must do as well: the contrastive loss is the mean of that of the whole and, in each
    step, of one of them (Kusupati et al. 2022, Matryoshka)."""
    average_last: float = 0.0
    """Weights become their mean over the last part of the stage, 0..1 (Izmailov et al. 2018)."""
    label_smoothing: float = 0.0
    scale_start: float = 0.0
    """The factor on cosines that the stage starts from; 0 keeps what is there."""
    scale_max: float = 100.0
    bfloat16: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2:
            raise ValueError(f"stage {self.name}: steps must be at least 1 and batch_size at least 2")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    model: str
    """Architecture: a name in textmm/models."""
    sources: tuple[PairSource, ...]
    stages: tuple[Stage, ...]
    phrases: tuple[Phrases, ...] = ()
    questions: str = ""
    """A TOML file of questions (`questions.py`): a name in textmm/recipes, or a path."""
    seed: int = 1
    half: bool = False
    """Store the weights as float16."""
    log_every: int = 20
    save_every: int = 200
    threads: int = 2

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """A recipe in TOML. ValueError names an unknown key."""
        with path.open("rb") as file:
            data = tomllib.load(file)
        data["sources"] = [_source(d) for d in data.get("sources", [])]
        parts = {"stages": Stage, "phrases": Phrases}
        for name, kind in parts.items():
            data[name] = [from_mapping(kind, d, where=f"{name}.") for d in data.get(name, [])]
        return from_mapping(cls, data)


def _source(data: Mapping[str, Any]) -> PairSource:
    said = [
        from_mapping(CaptionPhrase, d, where="sources.caption_phrases.")
        for d in data.get("caption_phrases", [])
    ]
    return from_mapping(PairSource, {**data, "caption_phrases": said}, where="sources.")


@dataclass(frozen=True)
class Progress:
    """What a run is doing; the last one of a stage has done == of."""

    what: str
    done: int
    of: int
    losses: dict[str, float] = field(default_factory=dict)
    samples_per_s: float = 0.0


def train(config: TrainConfig, *, data: Path, trunks: Path, out: Path) -> Iterator[Progress]:
    """Train the model of `config` on sources below `data`; the checkpoint and training.csv appear in `out`.

    Run again after a stop, it goes on from the last save with the batches it would have had.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    cache = out / "cache"
    pairs = Pairs(
        config.sources,
        config.phrases,
        data=data,
        drawings=cache,
        seed=config.seed,
        questions=config.questions,
    )

    architecture = named_model(config.model)
    model = checkpoint.build(architecture, trunks)
    vocabulary = _vocabulary(model, pairs, out)
    locked = bool(trunks_of(architecture))
    inputs: TrunkInputs
    if locked:
        tokenizer = load_tokenizer(architecture.text_cfg, trunks)
        features = cache / _trunks_digest(architecture)
        yield from _fill_cache(features, model, pairs, tokenizer)
        inputs = cached = CachedInputs(features, pairs)
        _fit_heads(model, cached, config.seed)
    else:
        assert vocabulary is not None
        words = BytePair(vocabulary.vocabulary, context_length=architecture.text_cfg.context_length)
        inputs = LiveInputs(model, pairs, words)

    run = _Run(config, model, vocabulary, pairs, inputs)
    first_stage, first_step, state = _resume(out, model)
    _forget_log(out / "training.csv", config.stages[:first_stage], first_step)
    for number, stage in enumerate(config.stages):
        if number < first_stage:
            continue
        if first_step == 0 and stage.scale_start:
            model.logit_scale.data.fill_(math.log(stage.scale_start))
        optimizer = _optimizer(model, stage, locked=locked)
        mean = MeanWeights(model)
        if state is not None:
            optimizer.load_state_dict(state["optimizer"])
            mean.load(state["mean"])
        model.train()
        started, seen = time.perf_counter(), 0
        for step in range(first_step, stage.steps):
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(stage, step)
            losses = run.step(stage, number, step, optimizer)
            seen += stage.batch_size
            last = step + 1 == stage.steps
            mean.follow(model, stage, step)
            if last or (step + 1) % config.log_every == 0:
                rate = seen / (time.perf_counter() - started)
                _log(out / "training.csv", stage.name, step + 1, losses)
                yield Progress(stage.name, step + 1, stage.steps, losses, rate)
            if last or (step + 1) % config.save_every == 0:
                _save(out, config, run, optimizer, mean, (number + 1, 0) if last else (number, step + 1))
        first_step, state = 0, None


class MeanWeights:
    """The mean of the weights that learn, over the steps it was added at."""

    def __init__(self, model: nn.Module) -> None:
        learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._sums = {name: torch.zeros_like(p) for name, p in learning.items()}
        self._count = 0

    def follow(self, model: nn.Module, stage: Stage, step: int) -> None:
        """After a step of the stage; after its last one the model has the mean."""
        if step >= stage.steps * (1 - stage.average_last):
            self._add(model)
        if step + 1 == stage.steps and self._count:
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
            self._sums, self._count = dict(state["sums"]), int(state["count"])


@dataclass(frozen=True)
class _Run:
    config: TrainConfig
    model: TextMultiModalModel
    vocabulary: BytePair | None
    pairs: Pairs
    inputs: TrunkInputs

    def step(
        self, stage: Stage, number: int, step: int, optimizer: torch.optim.Optimizer
    ) -> dict[str, float]:
        """One step of a stage; what is random in it depends on the seed, the stage and the step."""
        torch.manual_seed(hash((self.config.seed, number, step)))
        rng = np.random.default_rng([self.config.seed, 5, number, step])
        optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        with torch.autocast("cpu", torch.bfloat16, enabled=stage.bfloat16):
            if stage.contrastive_loss_weight:
                losses["contrastive"] = self._contrastive(stage, number, step, rng)
            if stage.caption_loss_weight:
                losses["captioning"] = self._captioning(stage, number, step, rng)
            if stage.question_loss_weight:
                losses["questions"] = self._questions(stage, number, step, rng)
            if stage.reward_weight:
                losses["reward"] = self._reinforced(stage, number, step, rng)
        weights = {
            "contrastive": stage.contrastive_loss_weight,
            "captioning": stage.caption_loss_weight,
            "questions": stage.question_loss_weight,
            "reward": stage.reward_weight,
        }
        total = torch.stack([weights[k] * v for k, v in losses.items()]).sum()
        if not torch.isfinite(total):
            raise TrainingFailed(f"stage {stage.name}, step {step}: the loss is {float(total.detach())}")
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), stage.grad_clip_norm)
        optimizer.step()
        return {k: float(v.detach()) for k, v in losses.items()}

    def _contrastive(self, stage: Stage, number: int, step: int, rng: np.random.Generator) -> Tensor:
        draw = self.pairs.draw(stage.batch_size, stage=number, step=step)
        image_features = self.model.image.project(self.inputs.pictures(draw.picture_ids, rng, memory=False))
        text_features = self.model.text.project(self.inputs.texts(draw.text_ids))
        positives = torch.from_numpy(self.pairs.positives(draw))
        ignored = torch.from_numpy(self.pairs.ignored(draw))
        scale = self.model.scale(math.log(stage.scale_max))
        losses = [
            contrastive_loss(
                shortened(image_features, dim),
                shortened(text_features, dim),
                scale,
                positives,
                ignored=ignored,
            )
            for dim in (*stage.short_dims, image_features.shape[1])
        ]
        return torch.stack(losses).mean()

    def _captioning(self, stage: Stage, number: int, step: int, rng: np.random.Generator) -> Tensor:
        draw = self.pairs.draw_captions(stage.batch_size, stage=number, step=step)
        vocabulary = self.vocabulary
        assert vocabulary is not None
        words = vocabulary.ids(draw.captions, start="<start>")
        words[:, 0] = torch.tensor([vocabulary.style_token_id(style) for style in draw.styles])
        tokens = self.model.image.tokens(self.inputs.pictures(draw.picture_ids, rng, memory=True))
        said = torch.zeros(len(words), dtype=torch.int64)
        return self._said(words, said, tokens, label_smoothing=stage.label_smoothing)

    def _questions(self, stage: Stage, number: int, step: int, rng: np.random.Generator) -> Tensor:
        """The answers must follow; of the questions nothing is asked."""
        draw = self.pairs.draw_questions(stage.batch_size, stage=number, step=step)
        vocabulary = self.vocabulary
        assert vocabulary is not None
        words, begins = vocabulary.question_ids(
            [q.text for q in draw.questions], [q.answer for q in draw.questions]
        )
        tokens = self.model.image.tokens(self.inputs.pictures(draw.picture_ids, rng, memory=True))
        return self._said(words, begins, tokens, label_smoothing=0.0)

    def _said(self, words: Tensor, begins: Tensor, tokens: Tensor, *, label_smoothing: float) -> Tensor:
        """Loss of words [B, T] from those at `begins` [B] on, given image tokens."""
        vocabulary, decoder = self.vocabulary, self.model.decoder
        assert vocabulary is not None and decoder is not None
        states, following = [], []
        for rows in (words != vocabulary.pad_token_id).sum(1).argsort().chunk(LENGTH_GROUPS):
            short = words[rows, : int((words[rows] != vocabulary.pad_token_id).sum(1).max())]
            where, next_ones = next_words(short, vocabulary.pad_token_id, begins[rows])
            states.append(decoder.states(short, tokens[rows])[where])
            following.append(next_ones)
        logits = decoder.logits(torch.cat(states))
        return captioning_loss(logits, torch.cat(following), label_smoothing=label_smoothing)

    def _reinforced(self, stage: Stage, number: int, step: int, rng: np.random.Generator) -> Tensor:
        vocabulary, decoder = self.vocabulary, self.model.decoder
        assert vocabulary is not None and decoder is not None
        draw = self.pairs.draw_captions(
            stage.reward_batch_size, stage=number, step=step, style=stage.reward_style
        )
        was_training = self.model.training
        self.model.eval()  # what is rewarded must be what was sampled: no dropout
        tokens = self.model.image.tokens(self.inputs.pictures(draw.picture_ids, rng, memory=True))
        words = sample_words(
            decoder,
            tokens,
            samples=stage.reward_samples,
            start=vocabulary.style_token_id(stage.reward_style),
            end=vocabulary.end_token_id,
            pad=vocabulary.pad_token_id,
            length=vocabulary.context_length,
            never=vocabulary.start_token_ids,
        )
        captions = [vocabulary.decode(row) for row in words.tolist()]
        pictures = np.repeat(draw.picture_ids, stage.reward_samples).tolist()
        rewards = torch.tensor([self.reward(i, said) for i, said in zip(pictures, captions, strict=True)])
        logits = decoder(words, tokens.repeat_interleave(stage.reward_samples, 0))
        self.model.train(was_training)
        return reinforced_loss(
            logits, words, rewards.view(-1, stage.reward_samples), pad=vocabulary.pad_token_id
        )

    @cached_property
    def reward(self) -> CiderReward:
        styles = {stage.reward_style for stage in self.config.stages if stage.reward_weight}
        (style,) = styles
        return CiderReward(self.pairs.sentences(style))


def _vocabulary(model: TextMultiModalModel, pairs: Pairs, out: Path) -> BytePair | None:
    """The decoder's words; a run that goes on keeps those it began with."""
    decoder = model.config.multimodal_cfg
    if decoder is None:
        return None
    written = out / "vocabulary.json"
    if (out / "training.pt").exists() and written.exists():
        return BytePair(written.read_text(), context_length=decoder.context_length)
    return BytePair.train(
        pairs.caption_texts(),
        decoder.vocab_size,
        context_length=decoder.context_length,
        styles=decoder.start_tokens,
    )


def _trunks_digest(architecture: ModelConfig) -> str:
    """Names the folder of cached features by the towers that made them."""
    said = f"{architecture.vision_cfg} {architecture.text_cfg}"
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def _fill_cache(
    cache: Path, model: TextMultiModalModel, pairs: Pairs, tokenizer: Tokenizer
) -> Iterator[Progress]:
    if isinstance(model.image, CNN):
        model.image.features.to(torch.bfloat16).to(memory_format=torch.channels_last)
    for what, done, of in trunk_cache.fill(cache, model.eval(), pairs, tokenizer):
        yield Progress(what, done, of)


def _fit_heads(model: TextMultiModalModel, inputs: CachedInputs, seed: int) -> None:
    """Mean and deviation of the features that the heads standardise."""
    images, texts = inputs.sample(np.random.default_rng([seed, 6]), 20_000)
    if isinstance(model.image, CNN):
        model.image.projection.fit(images)
    if isinstance(model.text, PretrainedText):
        model.text.projection.fit(texts)


def _optimizer(model: TextMultiModalModel, stage: Stage, *, locked: bool) -> torch.optim.Optimizer:
    """AdamW over what the stage trains; gains, biases and the temperature do not decay."""
    for name, parameter in model.named_parameters():
        pretrained = locked and name.startswith(checkpoint.LOCKED)
        parameter.requires_grad = not pretrained and name.startswith(stage.trains)
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": stage.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, 0.98), eps=1e-6)


def _learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    along = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    return stage.learning_rate * 0.5 * (1 + math.cos(math.pi * along))


def _save(
    out: Path,
    config: TrainConfig,
    run: _Run,
    optimizer: torch.optim.Optimizer,
    mean: MeanWeights,
    at: tuple[int, int],
) -> None:
    name = config.model
    checkpoint.save(out, run.model, run.vocabulary, name=name, half=config.half)
    trained = {k: v for k, v in run.model.state_dict().items() if not k.startswith(checkpoint.LOCKED)}
    state: dict[str, object] = {
        "stage": at[0],
        "step": at[1],
        "model": trained,
        "optimizer": optimizer.state_dict(),
        "mean": mean.state(),
    }
    checkpoint.save_training(out / "training.pt", state)


def _resume(out: Path, model: TextMultiModalModel) -> tuple[int, int, dict[str, Any] | None]:
    """(stage, step, state of optimiser and mean) to go on from; the start when nothing was saved."""
    path = out / "training.pt"
    if not path.exists():
        return 0, 0, None
    state = checkpoint.load_training(path)
    model.load_state_dict(state["model"], strict=False)  # type: ignore[arg-type]
    stage, step = int(state["stage"]), int(state["step"])  # type: ignore[call-overload]
    return stage, step, state if step else None


def _forget_log(path: Path, done: Sequence[Stage], step: int) -> None:
    """Drop the rows of steps that are done again: those after the last save."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    names = {stage.name for stage in done}
    kept = [row for row in rows if row[0] in names or int(row[1]) <= step]

    def write(partial: Path) -> None:
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([head, *kept])

    checkpoint.write_atomically(path, write)


def _log(path: Path, stage: str, step: int, losses: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        rows = csv.writer(file)
        if new:
            rows.writerow(["stage", "step", "loss", "value"])
        rows.writerows([stage, step, name, f"{value:.5f}"] for name, value in losses.items())
        file.flush()
        os.fsync(file.fileno())
