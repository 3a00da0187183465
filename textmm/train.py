"""train(config): the loop, readable top to bottom.

What is random in a step depends on the seed, the stage, the step and the row alone: not on how many processes
share the batch, nor on the size of the parts in which it goes through the model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from textmm import checkpoint, open_clip_models, resume, training_log, validation
from textmm.begin import Begun, begin
from textmm.clip_tokenizer import ClipTokenizer
from textmm.config import ANSWER
from textmm.gradient_cache import BatchLoss, FeatureLoss, RowLoss
from textmm.image import Encoded, TrunkOutput
from textmm.losses import captioning_loss, contrastive_loss, next_words, shortened, sigmoid_loss
from textmm.mean_weights import MeanWeights
from textmm.optimiser import clip, make_optimizer, pace
from textmm.pairs import Ints, Pairs
from textmm.ranks import Ranks
from textmm.recipe import Stage, TrainConfig
from textmm.reinforce import CiderReward, reinforced_loss, sample_words
from textmm.resume import Position
from textmm.stage_inputs import fill_caches, fit_heads, inputs_of, leave_out
from textmm.trunk_cache import (
    Rngs,
    TrunkInputs,
)

LENGTH_GROUPS = 4
"""Parts of a captioning batch, by length: each is padded to its own longest caption. Halves the time of a step."""
LOG = "training.csv"
CONTRASTIVE, CAPTIONING, QUESTIONS, REWARD = 0, 1, 2, 3
"""Streams of chance."""


class TrainingFailed(RuntimeError):
    """The loss is no number any more; the message says where, and which weights are kept."""


class TrainingStopped(RuntimeError):
    """The run was asked to stop and has saved; the message says where."""


@dataclass(frozen=True)
class Progress:
    """What a run is doing; the last one of a stage has done == of, unless validation ends it early."""

    what: str
    done: int
    of: int
    losses: dict[str, float] = field(default_factory=dict)
    samples_per_s: float = 0.0


def train(
    config: TrainConfig,
    *,
    data: Path,
    trunks: Path,
    out: Path,
    models: Path | None = None,
    ranks: Ranks | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Train what `config` says on sources below `data`; the checkpoint and training.csv appear in `out`. A run may
    start with a published model out of `models`; its checkpoint is written as open_clip reads it.

    Run again after a stop, it goes on from the last save with the batches it would have had. `stop` is asked after
    every step: when it says so, the run saves and raises TrainingStopped. Of several `ranks` the first alone writes.
    """
    ranks = ranks or Ranks()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    resume.check(out, config)

    with ranks.first():
        pairs = Pairs(
            config.sources,
            config.phrases,
            data=data,
            drawings=out / "cache",
            seed=config.seed,
            questions=config.questions,
        )
        watched = _read_watched(config, data, out)
    begun = begin(config, pairs, trunks, out, models)
    begun.model.to(ranks.device)
    at, state = resume.load(out, begun.model)
    if ranks.rank == 0:
        names = [stage.name for stage in config.stages]
        training_log.forget(out / LOG, names[: at.stage], "".join(names[at.stage : at.stage + 1]), at.step)
    for number, stage in enumerate(config.stages):
        if number < at.stage:
            continue
        sets = [pairs, watched[number]] if number in watched else [pairs]
        with ranks.first():
            for what, done, of in fill_caches(config, number, begun, sets, out):
                yield Progress(what, done, of)
                if stop():
                    raise TrainingStopped(f"stopped at {what}, {done} of {of}, which begin again")
        if number == 0 and begun.fresh_heads:
            fit_heads(begun, pairs, config, out)
        run = _Run(config, begun, pairs, inputs_of(config, number, begun, pairs, out, ranks), ranks, out)
        watch = None
        if number in watched:
            inputs = inputs_of(config, number, begun, watched[number], out, ranks)
            watch = replace(run, pairs=watched[number], inputs=inputs, chance=False)
        try:
            yield from _train_stage(run, watch, stage, at, state, stop)
        except FloatingPointError as error:
            names = [stage.name for stage in config.stages]
            raise TrainingFailed(f"{error}; {resume.kept(out, names)}: lower learning_rate") from error
        at, state = Position(number + 1), None


def _train_stage(
    run: _Run,
    watch: _Run | None,
    stage: Stage,
    at: Position,
    state: dict[str, object] | None,
    stop: Callable[[], bool],
) -> Iterator[Progress]:
    """The steps of a stage from `at` on, with logging, validation and saving."""
    model, ranks = run.begun.model, run.ranks
    unlocked = run.begun.unlocked(run.config, at.stage)
    if at.step == 0 and stage.scale_start:
        model.logit_scale.data.fill_(math.log(stage.scale_start))
    optimizer = make_optimizer(model, stage, pretrained=run.begun.pretrained)
    mean = MeanWeights(model)
    if state is not None:
        optimizer.load_state_dict(cast(dict[str, Any], state["optimizer"]))
        mean.load(cast(dict[str, Any], state["mean"]))
    model.train()
    started, seen, over = time.perf_counter(), 0, False
    while not over:
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * pace(at.step, stage.steps, stage.warmup_steps)
        figures = run.step(stage, at, optimizer)
        at, seen = replace(at, step=at.step + 1), seen + stage.batch_size
        over = at.step == stage.steps
        mean.follow(model, at.step - 1, stage.steps, stage.average_last)
        looks = watch is not None and watch.is_due(stage, at)
        if watch is not None and looks:
            at = watch.look(stage, at, figures)
            over = over or at.is_patience_over(stage)
            if at.looks == 0:
                run.keep_best(unlocked)
        stopped = ranks.any(stop()) and not over
        seldom = over or looks or stopped
        if seldom or at.step % run.config.log_every == 0:
            run.log(stage, at, figures)
            yield Progress(stage.name, at.step, stage.steps, figures, seen / (time.perf_counter() - started))
        if seldom or at.step % run.config.save_every == 0:
            run.check(stage, at)
            run.save(stage, at, unlocked, optimizer, mean, over=over)
        if stopped:
            raise TrainingStopped(f"stopped at stage {stage.name}, step {at.step} of {stage.steps}")


@dataclass(frozen=True)
class _Run:
    config: TrainConfig
    begun: Begun
    pairs: Pairs
    inputs: TrunkInputs
    ranks: Ranks
    out: Path
    chance: bool = True
    """False: whole pictures, for validation."""

    def step(self, stage: Stage, at: Position, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """One step of a stage -> its losses. Raises FloatingPointError before a weight is spoilt."""
        # of the whole model: what the stage before trained would count in the norm that gradients are clipped to
        self.begun.model.zero_grad(set_to_none=True)
        losses = {
            name: float(loss.backward(self.ranks, stage.micro_batch, weight))
            for name, (weight, loss) in self._losses(stage, at.stage, at.step, stage.batch_size).items()
        }
        _check_numbers(losses, stage, at)
        self.ranks.sum_gradients(self.begun.model.parameters())
        _check_numbers({"gradient": clip(self.begun.model, stage.grad_clip_norm)}, stage, at)
        optimizer.step()
        return losses

    def is_due(self, stage: Stage, at: Position) -> bool:
        """Whether it is time for a look at the validation pairs: now and then, and at the end."""
        return stage.validate is not None and (at.step == stage.steps or at.step % stage.validate.every == 0)

    @torch.no_grad()
    def look(self, stage: Stage, at: Position, figures: dict[str, float]) -> Position:
        """Put the figure that the stage is validated by, on this run's pairs, among `figures`; every process gets
        that of the first.
        """
        assert stage.validate is not None
        model = self.begun.model.eval()
        figure = 0.0
        if self.ranks.rank == 0 and stage.validate.metric == "loss":
            losses = self._losses(stage, 0, 0, len(validation.spread(self.pairs))).values()
            figure = sum(weight * float(loss.value(validation.CHUNK)) for weight, loss in losses)
        elif self.ranks.rank == 0:
            figure = validation.recall_at_10(model, self.inputs, self.pairs)
        model.train()
        figures[f"validation {stage.validate.metric}"] = figure = self.ranks.agree(figure)
        better = validation.is_better(stage.validate.metric, figure, at.best)
        return replace(at, best=figure if better else at.best, looks=0 if better else at.looks + 1)

    def log(self, stage: Stage, at: Position, figures: dict[str, float]) -> None:
        if self.ranks.rank == 0:
            training_log.log(self.out / LOG, stage.name, at.step, figures)

    def keep_best(self, unlocked: frozenset[str]) -> None:
        if self.ranks.rank == 0:
            resume.save_best(self.out, self.begun.model, unlocked)
            self.write_checkpoint(unlocked)

    def check(self, stage: Stage, at: Position) -> None:
        """FloatingPointError when the weights that are about to be saved give no loss that is a number."""
        losses = self._losses(stage, at.stage, at.step, stage.batch_size)
        _check_numbers(
            {name: float(loss.value(stage.micro_batch)) for name, (_, loss) in losses.items()}, stage, at
        )

    def save(
        self,
        stage: Stage,
        at: Position,
        unlocked: frozenset[str],
        optimizer: torch.optim.Optimizer,
        mean: MeanWeights,
        *,
        over: bool,
    ) -> None:
        """The checkpoint and the state to go on from; at the end of a validated stage, its best weights."""
        if over and stage.validate:
            with self.ranks.first():  # who wrote it has done so
                resume.load_best(self.out, self.begun.model)
        if self.ranks.rank == 0:
            if over or not stage.validate:
                self.write_checkpoint(unlocked)
            where = Position(at.stage + 1) if over else at
            resume.save(self.out, where, self.begun.model, unlocked, optimizer, mean, self.config)

    def write_checkpoint(self, unlocked: frozenset[str]) -> None:
        begun, half = self.begun, self.config.half
        if isinstance(begun.tokenizer, ClipTokenizer):
            open_clip_models.save(self.out, begun.model, half=half)
            return
        assert not isinstance(begun.vocabulary, ClipTokenizer)
        checkpoint.save(
            self.out, begun.model, begun.vocabulary, name=begun.name, half=half, unlocked=unlocked
        )

    def _losses(
        self, stage: Stage, number: int, step: int, batch_size: int
    ) -> dict[str, tuple[float, BatchLoss]]:
        """What a step minimises: weight and loss, by name."""
        losses: dict[str, tuple[float, BatchLoss]] = {}
        if stage.contrastive_loss_weight:
            contrastive = self._contrastive(stage, number, step, batch_size)
            losses["contrastive"] = (stage.contrastive_loss_weight, contrastive)
        if stage.caption_loss_weight:
            captioning = self._captioning(stage, number, step, batch_size)
            losses["captioning"] = (stage.caption_loss_weight, captioning)
        if stage.question_loss_weight:
            questions = self._questions(stage, number, step, batch_size)
            losses["questions"] = (stage.question_loss_weight, questions)
        if stage.reward_weight:
            losses["reward"] = (stage.reward_weight, self._reinforced(stage, number, step))
        return losses

    def _contrastive(self, stage: Stage, number: int, step: int, batch_size: int) -> FeatureLoss:
        draw = self.pairs.draw(batch_size, stage=number, step=step)
        model, device = self.begun.model, self.ranks.device

        def features(rows: range) -> tuple[Tensor, Tensor]:
            rngs = self._chance(CONTRASTIVE, number, step, rows)
            with self._autocast(stage):
                image = model.image.project(self._pictures(stage, draw.picture_ids, rows, rngs, memory=False))
                return image, model.text.project(self.inputs.texts(draw.text_ids[rows.start : rows.stop]))

        def loss(image_features: Tensor, text_features: Tensor) -> Tensor:
            positives = torch.from_numpy(self.pairs.positives(draw)).to(device)
            ignored = torch.from_numpy(self.pairs.ignored(draw)).to(device)
            scale = model.scale(math.log(stage.scale_max))

            def at(dim: int) -> Tensor:
                images, texts = shortened(image_features, dim), shortened(text_features, dim)
                if stage.loss == "sigmoid":
                    assert model.logit_bias is not None
                    return sigmoid_loss(images, texts, scale, model.logit_bias, positives, ignored=ignored)
                return contrastive_loss(images, texts, scale, positives, ignored=ignored)

            return torch.stack([at(dim) for dim in (*stage.short_dims, image_features.shape[1])]).mean()

        return FeatureLoss(len(draw.picture_ids), features, loss)

    def _captioning(self, stage: Stage, number: int, step: int, batch_size: int) -> RowLoss:
        draw = self.pairs.draw_captions(batch_size, stage=number, step=step)
        vocabulary = self.begun.vocabulary
        assert vocabulary is not None
        words = vocabulary.ids(draw.captions, start="<start>")
        words[:, 0] = torch.tensor([vocabulary.style_token_id(style) for style in draw.styles])
        chance = (CAPTIONING, number, step)
        return self._said(stage, draw.picture_ids, words, chance, stage.label_smoothing)

    def _questions(self, stage: Stage, number: int, step: int, batch_size: int) -> RowLoss:
        draw = self.pairs.draw_questions(batch_size, stage=number, step=step)
        assert self.begun.vocabulary is not None
        words = self.begun.vocabulary.ids(draw.answers, start=f"<{ANSWER}>")
        return self._said(stage, draw.picture_ids, words, (QUESTIONS, number, step), 0.0, asked=draw.text_ids)

    def _said(
        self,
        stage: Stage,
        picture_ids: Ints,
        words: Tensor,
        chance: tuple[int, int, int],
        label_smoothing: float,
        *,
        asked: Ints | None = None,
    ) -> RowLoss:
        """Loss of words [B, T] that follow each other, given the pictures and the questions `asked`, if any."""
        vocabulary, decoder = self.begun.vocabulary, self.begun.model.decoder
        assert vocabulary is not None and decoder is not None
        pad = vocabulary.pad_token_id
        words = words.to(self.ranks.device)
        count = int(next_words(words, pad)[0].sum())

        def share_of_loss(part: range) -> Tensor:
            rngs = self._chance(*chance, part)
            mine = words[part.start : part.stop]
            with self._autocast(stage):
                tokens = self._tokens(
                    self._pictures(stage, picture_ids, part, rngs, memory=True), asked, part
                )
                states, following = [], []
                for rows in (mine != pad).sum(1).argsort().chunk(LENGTH_GROUPS):
                    short = mine[rows, : int((mine[rows] != pad).sum(1).max())]
                    where, next_ones = next_words(short, pad)
                    states.append(decoder.states(short, tokens[rows])[where])
                    following.append(next_ones)
                logits, right = decoder.logits(torch.cat(states)), torch.cat(following)
                return captioning_loss(logits, right, label_smoothing=label_smoothing) * (len(right) / count)

        return RowLoss(len(picture_ids), share_of_loss)

    def _tokens(self, pictures: TrunkOutput, asked: Ints | None, part: range) -> Tensor:
        """What the decoder reads of pictures, and of the questions to them."""
        model = self.begun.model
        tokens: Tensor = model.image.tokens(pictures)
        if asked is None:
            return tokens
        questions = self.inputs.texts(asked[part.start : part.stop])
        return model.encode_question(Encoded(model.image.project(pictures), tokens), questions)

    def _reinforced(self, stage: Stage, number: int, step: int) -> RowLoss:
        """Each part's mean counts by its pictures: what is sampled, and so its words, is only known then."""
        vocabulary, model = self.begun.vocabulary, self.begun.model
        assert vocabulary is not None and model.decoder is not None
        decoder, samples = model.decoder, stage.reward_samples
        draw = self.pairs.draw_captions(
            stage.reward_batch_size, stage=number, step=step, style=stage.reward_style
        )

        def share_of_loss(part: range) -> Tensor:
            rngs = self._chance(REWARD, number, step, part)
            was_training = decoder.training
            decoder.eval()  # what is rewarded must be what was sampled; of the picture the same is left out in both
            with self._autocast(stage):
                tokens = model.image.tokens(self._pictures(stage, draw.picture_ids, part, rngs, memory=True))
                words = sample_words(
                    decoder,
                    tokens,
                    samples=samples,
                    start=vocabulary.style_token_id(stage.reward_style),
                    end=vocabulary.end_token_id,
                    pad=vocabulary.pad_token_id,
                    length=vocabulary.context_length,
                    never=vocabulary.start_token_ids,
                )
                captions = [vocabulary.decode(row) for row in words.tolist()]
                pictures = np.repeat(draw.picture_ids[part.start : part.stop], samples).tolist()
                rewards = [self.reward(i, said) for i, said in zip(pictures, captions, strict=True)]
                logits = decoder(words, tokens.repeat_interleave(samples, 0))
                decoder.train(was_training)
                by_picture = torch.tensor(rewards, device=self.ranks.device).view(-1, samples)
                loss = reinforced_loss(logits, words, by_picture, pad=vocabulary.pad_token_id)
                return loss * (len(part) / len(draw.picture_ids))

        return RowLoss(len(draw.picture_ids), share_of_loss)

    @cached_property
    def reward(self) -> CiderReward:
        styles = {stage.reward_style for stage in self.config.stages if stage.reward_weight}
        (style,) = styles
        return CiderReward(self.pairs.sentences(style))

    def _pictures(
        self, stage: Stage, picture_ids: Ints, rows: range, rngs: Rngs, *, memory: bool
    ) -> TrunkOutput:
        """Of these rows, for whose heads it is set what they do not see."""
        ids = picture_ids[rows.start : rows.stop]
        leave_out(stage, self.begun.model, self.pairs, ids)
        return self.inputs.pictures(ids, rngs, memory=memory)

    def _chance(self, stream: int, number: int, step: int, rows: range) -> Rngs:
        """What is random in these rows: dropout by their first, augmentation row by row."""
        seed = self.config.seed
        torch.manual_seed(hash((seed, stream, number, step, rows.start)))
        if not self.chance:
            return None
        return [np.random.default_rng([seed, 5, stream, number, step, row]) for row in rows]

    def _autocast(self, stage: Stage) -> torch.autocast:
        return torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=stage.bfloat16)


def _check_numbers(values: dict[str, float], stage: Stage, at: Position) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            what = "gradient" if name == "gradient" else f"loss ({name})"
            raise FloatingPointError(f"stage {stage.name}, step {at.step}: the {what} is {value}")


def _read_watched(config: TrainConfig, data: Path, out: Path) -> dict[int, Pairs]:
    """Validation pairs by the number of the stage."""
    return {
        number: validation.read_pairs(
            stage.validate,
            stage,
            data=data,
            drawings=out / "cache",
            seed=config.seed,
            questions=config.questions,
            phrases=config.phrases,
        )
        for number, stage in enumerate(config.stages)
        if stage.validate
    }
