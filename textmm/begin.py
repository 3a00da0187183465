"""What a run of training begins with: the model, new or trained before, and what reads words for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from textmm import checkpoint, open_clip_models, resume
from textmm.checkpoint import LOCKED
from textmm.clip_tokenizer import ClipTokenizer
from textmm.config import ModelConfig, named_model
from textmm.image import CNN
from textmm.model import TextMultiModalModel
from textmm.optimiser import trained_by
from textmm.pairs import Pairs
from textmm.pretrained import load_tokenizer, trunks_of
from textmm.recipe import Stage, TrainConfig
from textmm.text import PretrainedText
from textmm.tokenizers import BytePair, Tokenizer

NEEDS = {
    "caption_loss_weight": "decoder",
    "question_loss_weight": "question",
    "reward_weight": "decoder",
}
"""Weight of a stage -> the part of a model that it teaches."""
SIGMOID_BIAS = -10.0
"""Where the bias of the sigmoid loss starts (Zhai et al. 2023)."""
IMAGE, TEXT = LOCKED


@dataclass(frozen=True)
class Begun:
    """The model and what reads words for it."""

    model: TextMultiModalModel
    name: str
    vocabulary: BytePair | ClipTokenizer | None
    """The decoder's words."""
    tokenizer: Tokenizer
    started_unlocked: frozenset[str]
    """Keys of pretrained trunks that were not as published when the run began."""
    fresh_heads: bool
    """Whether heads over pretrained trunks still have to learn what features look like."""

    @property
    def pretrained(self) -> bool:
        return bool(trunks_of(self.model.config))

    def unlocked(self, config: TrainConfig, number: int) -> frozenset[str]:
        """Keys of pretrained trunks that are not as published once stage `number` has begun."""
        return self.started_unlocked.union(*(self._learnt(stage) for stage in config.stages[: number + 1]))

    def is_live(self, stage: Stage, trunk: str) -> bool:
        """Whether a stage runs the trunk IMAGE or TEXT in its steps: it learns there, or is not one that is kept."""
        part, kind = (self.model.image, CNN) if trunk == IMAGE else (self.model.text, PretrainedText)
        return not isinstance(part, kind) or any(k.startswith(trunk) for k in self._learnt(stage))

    def locked_stages(self, config: TrainConfig) -> int | None:
        """So many of the image trunk's first stages stay locked to the end of the run, and later ones do not; None when
        none does or all do.
        """
        if not isinstance(self.model.image, CNN):
            return None
        stages = range(len(self.model.image.features.stages))
        keys: frozenset[str] = frozenset().union(*(self._learnt(stage) for stage in config.stages))
        learnt = [k for k in keys if k.startswith(IMAGE)]
        starts = (*(f"{IMAGE}stages.{i}." for i in stages), f"{IMAGE}head.")
        first = next((i for i, start in enumerate(starts) if any(k.startswith(start) for k in learnt)), 0)
        return None if any(k.startswith(f"{IMAGE}stem.") for k in learnt) else first or None

    def digest(self, keys: Iterable[str]) -> str:
        """A hash over those weights as they are now; empty when there are none."""
        state, digest, keys = self.model.state_dict(), hashlib.sha256(), sorted(keys)
        for key in keys:
            digest.update(key.encode() + state[key].cpu().numpy().tobytes())
        return digest.hexdigest() if keys else ""

    def _learnt(self, stage: Stage) -> frozenset[str]:
        """Keys of pretrained trunks that a stage trains."""
        if not self.pretrained:
            return frozenset()
        keys = trained_by(self.model, stage.trains, pretrained=True)
        return frozenset(k for k in keys if k.startswith(LOCKED))


def begin(config: TrainConfig, pairs: Pairs, trunks: Path, out: Path, models: Path | None = None) -> Begun:
    """The model, random or as `config.start` has it, and what reads words for it. ValueError where a stage teaches what
    the model has no part for."""
    begun = _begun(config, pairs, trunks, out, models)
    for stage in config.stages:
        for weight, part in NEEDS.items():
            if getattr(stage, weight) and getattr(begun.model, part) is None:
                raise ValueError(f"stage {stage.name} has a {weight}, and {begun.name} has no {part}")
    return begun


def _begun(config: TrainConfig, pairs: Pairs, trunks: Path, out: Path, models: Path | None) -> Begun:
    published = open_clip_models.find(config.start, models) if config.start else None
    loaded = None
    if published is not None:
        loaded = open_clip_models.load(published)
    elif config.start:
        loaded = checkpoint.load(config.start, trunks)
    elif config.model:
        loaded = open_clip_models.untrained(config.model)
    if loaded is not None:
        model, words = loaded.model, loaded.captioner
        name = loaded.model_id.rpartition("-")[0] if config.start else config.model
        if not isinstance(model, TextMultiModalModel):
            raise ValueError(
                f"{config.start} runs through open_clip's own module and is not trained here; CLIP's ViTs and CoCa are"
            )
        if _sigmoid(config) and model.logit_bias is None:
            model = _with_bias(model)
        if not isinstance(loaded.tokenizer, ClipTokenizer):
            words = words or _vocabulary(model.config, pairs, out)
        return Begun(model, name, words, loaded.tokenizer, loaded.unlocked, fresh_heads=False)
    architecture = named_model(config.model)
    if _sigmoid(config) and architecture.init_logit_bias is None:
        architecture = replace(architecture, init_logit_bias=SIGMOID_BIAS)
    model = checkpoint.build(architecture, trunks)
    words = _vocabulary(architecture, pairs, out)
    if trunks_of(architecture):
        tokenizer: Tokenizer = load_tokenizer(architecture.text_cfg, trunks)
        fresh = not resume.saved(out)
        return Begun(model, config.model, words, tokenizer, frozenset(), fresh_heads=fresh)
    assert words is not None
    tokenizer = BytePair(words.vocabulary, context_length=architecture.text_cfg.context_length)
    return Begun(model, config.model, words, tokenizer, frozenset(), fresh_heads=False)


def _sigmoid(config: TrainConfig) -> bool:
    return any(stage.loss == "sigmoid" and stage.contrastive_loss_weight for stage in config.stages)


def _with_bias(model: TextMultiModalModel) -> TextMultiModalModel:
    wider = TextMultiModalModel(replace(model.config, init_logit_bias=SIGMOID_BIAS))
    wider.load_state_dict(model.state_dict(), strict=False)
    return wider


def _vocabulary(architecture: ModelConfig, pairs: Pairs, out: Path) -> BytePair | None:
    """The decoder's words; a run that goes on keeps those it began with."""
    decoder = architecture.multimodal_cfg
    if decoder is None:
        return None
    written = out / "vocabulary.json"
    if resume.saved(out) and written.exists():
        return BytePair(written.read_text(), context_length=decoder.context_length)
    return BytePair.train(
        pairs.caption_texts(),
        decoder.vocab_size,
        context_length=decoder.context_length,
        styles=decoder.start_tokens,
    )
