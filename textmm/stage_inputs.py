"""Where each stage of a run gets trunk outputs from: caches filled before the first step, or the trunks themselves."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from textmm import trunk_cache
from textmm.begin import IMAGE, TEXT, Begun
from textmm.image import CNN
from textmm.layers import set_feature_dropout
from textmm.model import TextMultiModalModel
from textmm.pairs import Ints, Pairs
from textmm.ranks import Ranks
from textmm.recipe import LEFT_OUT, Stage, TrainConfig
from textmm.text import PretrainedText
from textmm.trunk_cache import CachedInputs, FrontInputs, LiveInputs, MixedInputs, PictureInputs, TrunkInputs


def fill_caches(
    config: TrainConfig, number: int, begun: Begun, sets: Sequence[Pairs], out: Path
) -> Iterator[tuple[str, int, int]]:
    """What stage `number` reads of the trunks that it does not train, as it finds them; of an image trunk whose late
    stages alone learn in this run, what the first ones make. Yields (what, done, of).
    """
    model, stage, stages = begun.model.eval(), config.stages[number], begun.locked_stages(config)
    live = begun.is_live(stage, IMAGE)
    if isinstance(model.image, CNN) and not (live and stages is None):
        folder = _image_folder(config, number, begun, out)
        decoder_only = not stage.contrastive_loss_weight
        front = None if stages is None else _front_folder(begun, stages, out)
        whole = model.image.features  # the weights may yet learn: a copy of them is made small and quick
        model.image.features = copy.deepcopy(whole).to(torch.bfloat16).to(memory_format=torch.channels_last)
        for pairs in sets:
            fronts = None
            if stages is not None and front is not None:
                yield from trunk_cache.fill_fronts(front, model, pairs, stages)
                fronts = FrontInputs(front, pairs, model, stages)
            if not live:
                yield from trunk_cache.fill_pictures(
                    folder, model, pairs, fronts=fronts, decoder_only=decoder_only
                )
        model.image.features = whole
    if not begun.is_live(stage, TEXT):
        for pairs in sets:
            yield from trunk_cache.fill_texts(
                _text_folder(config, number, begun, out), model, pairs, begun.tokenizer
            )


def inputs_of(
    config: TrainConfig, number: int, begun: Begun, pairs: Pairs, out: Path, ranks: Ranks
) -> MixedInputs:
    """Where a stage gets trunk outputs from: from what fill_caches kept, or the trunk runs in the step."""
    stage, stages = config.stages[number], begun.locked_stages(config)
    live = LiveInputs(begun.model, pairs, begun.tokenizer)
    images: PictureInputs = live
    if not begun.is_live(stage, IMAGE):
        images = CachedInputs(_image_folder(config, number, begun, out), pairs)
    elif stages is not None:
        images = FrontInputs(_front_folder(begun, stages, out), pairs, begun.model, stages)
    words: TrunkInputs = live
    if not begun.is_live(stage, TEXT):
        words = CachedInputs(_text_folder(config, number, begun, out), pairs)
    return MixedInputs(images, words, ranks.device)


def _image_folder(config: TrainConfig, number: int, begun: Begun, out: Path) -> Path:
    return _folder(begun, _keys(config, number, begun, IMAGE), out)


def _text_folder(config: TrainConfig, number: int, begun: Begun, out: Path) -> Path:
    return _folder(begun, _keys(config, number, begun, TEXT), out)


def _front_folder(begun: Begun, stages: int, out: Path) -> Path:
    first = (f"{IMAGE}stem.", *(f"{IMAGE}stages.{i}." for i in range(stages)))
    return _folder(begun, [k for k in begun.started_unlocked if k.startswith(first)], out)


def _keys(config: TrainConfig, number: int, begun: Begun, trunk: str) -> list[str]:
    """Of a trunk's weights those that are not as published when stage `number` begins."""
    return [k for k in begun.unlocked(config, number) if k.startswith(trunk)]


def _folder(begun: Begun, keys: Sequence[str], out: Path) -> Path:
    """The folder of cached features, named by the towers that make them and by the weights that `keys` name."""
    architecture = begun.model.config
    said = f"{architecture.vision_cfg} {architecture.text_cfg}{begun.digest(keys)}"
    return out / "cache" / hashlib.sha256(said.encode()).hexdigest()[:12]


def leave_out(stage: Stage, model: TextMultiModalModel, pairs: Pairs, picture_ids: Ints) -> None:
    """Set what the heads do not see, in training, of the next batch: these pictures and a text of each."""
    source = pairs.source_of(picture_ids)
    for tower, said in (
        (model.image, stage.image_feature_dropout),
        (model.text, stage.text_feature_dropout),
    ):
        usual, by_source = (LEFT_OUT, said) if isinstance(said, Mapping) else (said, {})
        shares = torch.tensor([by_source.get(s.source, usual) for s in pairs.sources])
        set_feature_dropout(tower, shares[source])


def fit_heads(begun: Begun, pairs: Pairs, config: TrainConfig, out: Path) -> None:
    """Mean and deviation of the features that the heads standardise."""
    inputs = inputs_of(config, 0, begun, pairs, out, Ranks(device=trunk_cache.device_of(begun.model)))
    count = 20_000 if isinstance(inputs.images, CachedInputs) else 2_000
    images, texts = trunk_cache.sample(inputs, pairs, np.random.default_rng([config.seed, 6]), count)
    if isinstance(begun.model.image, CNN):
        begun.model.image.projection.fit(images)
    if isinstance(begun.model.text, PretrainedText):
        begun.model.text.projection.fit(texts)
