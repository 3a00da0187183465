"""Where each stage of a run gets trunk outputs from: caches filled before the first step, or the trunks themselves."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from textmm import trunk_cache
from textmm.begin import IMAGE, TEXT, Begun
from textmm.image import CNN
from textmm.pairs import Pairs
from textmm.ranks import Ranks
from textmm.recipe import TrainConfig
from textmm.text import PretrainedText
from textmm.trunk_cache import CachedInputs, FrontInputs, LiveInputs, MixedInputs, PictureInputs, TrunkInputs


def _cache(begun: Begun, out: Path) -> Path:
    """The folder of cached features, named by the towers that made them."""
    architecture = begun.model.config
    said = f"{architecture.vision_cfg} {architecture.text_cfg}{begun.trunks}"
    return out / "cache" / hashlib.sha256(said.encode()).hexdigest()[:12]


def fill_caches(
    config: TrainConfig, begun: Begun, sets: list[Pairs], out: Path
) -> Iterator[tuple[str, int, int]]:
    """Features of the trunks that some stage finds as the run found them, and of the first stages of one whose later
    stages learn; the others run in the steps. Yields (what, done, of).
    """
    numbers = range(len(config.stages))
    model, stages = begun.model.eval(), begun.locked_stages(config)
    whole_trunk = not all(begun.is_live(config, n, IMAGE) for n in numbers)
    if isinstance(model.image, CNN) and (whole_trunk or stages is not None):
        whole = model.image.features  # the weights may yet learn: a copy of them is made small and quick
        model.image.features = copy.deepcopy(whole).to(torch.bfloat16).to(memory_format=torch.channels_last)
        for pairs in sets:
            yield from trunk_cache.fill_pictures(
                _cache(begun, out), model, pairs, whole=whole_trunk, stages=stages
            )
        model.image.features = whole
    if not all(begun.is_live(config, n, TEXT) for n in numbers):
        for pairs in sets:
            yield from trunk_cache.fill_texts(_cache(begun, out), model, pairs, begun.tokenizer)


def inputs_of(
    config: TrainConfig, number: int, begun: Begun, pairs: Pairs, out: Path, ranks: Ranks
) -> TrunkInputs:
    """Where a stage gets trunk outputs from: kept on disk while the trunk is as published, else made."""
    live, cached = LiveInputs(begun.model, pairs, begun.tokenizer), CachedInputs(_cache(begun, out), pairs)
    stages = begun.locked_stages(config)
    images: PictureInputs = cached
    if begun.is_live(config, number, IMAGE):
        images = live if stages is None else FrontInputs(_cache(begun, out), pairs, begun.model, stages)
    words = live if begun.is_live(config, number, TEXT) else cached
    return MixedInputs(images, words, ranks.device)


def fit_heads(begun: Begun, pairs: Pairs, config: TrainConfig, out: Path) -> None:
    """Mean and deviation of the features that the heads standardise."""
    inputs = inputs_of(config, 0, begun, pairs, out, Ranks(device=trunk_cache.device_of(begun.model)))
    count = (
        2_000 if isinstance(inputs, MixedInputs) and not isinstance(inputs.images, CachedInputs) else 20_000
    )
    images, texts = trunk_cache.sample(inputs, pairs, np.random.default_rng([config.seed, 6]), count)
    if isinstance(begun.model.image, CNN):
        begun.model.image.projection.fit(images)
    if isinstance(begun.model.text, PretrainedText):
        begun.model.text.projection.fit(texts)
