"""What a run trains: sources, phrases and stages, as a recipe in TOML says them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textmm.config import from_mapping
from textmm.pairs import PairSource
from textmm.phrases import CaptionPhrase, Phrases

FED_BY = {
    "contrastive_loss_weight": "share",
    "caption_loss_weight": "caption_share",
    "question_loss_weight": "question_share",
    "reward_weight": "caption_share",
}
"""Weight of a stage -> what a source at least must give a part of it for."""
RECALL = "recall@10"
LEFT_OUT = 0.2
"""Share of the features that is left out unless a stage says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How a stage is watched on pictures it does not train on; the best weights are kept."""

    source: str
    """What read_source takes, below the data folder."""
    metric: str = RECALL
    """`recall@10`: text to picture and picture to text, mean of both. `loss`: that of the stage."""
    every: int = 50
    """Steps between two looks."""
    patience: int = 5
    """Looks without a better figure after which the stage ends."""
    style: str = "photo"
    """Caption style of the source's texts, for the loss of captions."""
    question_column: str = ""
    answer_column: str = "answer"
    text_column: str = ""
    phrase_share: float = 0.0
    """These four as a source's."""

    def __post_init__(self) -> None:
        if self.metric not in (RECALL, "loss"):
            raise ValueError(f"validate.metric must be recall@10 or loss, got {self.metric!r}")
        if self.every < 1 or self.patience < 1:
            raise ValueError("validate.every and validate.patience must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Stage:
    name: str
    steps: int
    batch_size: int
    """Pairs a step, over all processes."""
    learning_rate: float
    trains: tuple[str, ...] = ("",)
    """Parts of the model that learn, by the beginning of their names: `decoder`, `image.projection`. Pretrained
    trunks learn only where one names them or a part: `text.trunks.0.layers.5`."""
    loss: str = "infonce"
    """`infonce` or `sigmoid`, for the contrastive part."""
    micro_batch: int = 0
    """Pairs that go through the model at once; gradients stay those of the whole batch. 0: all."""
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
    """Vectors cut to these sizes must do as well: the contrastive loss is the mean of that of the whole and of each of
    them (Kusupati et al. 2022, Matryoshka)."""
    average_last: float = 0.0
    """Weights become their mean over the last part of the stage, 0..1 (Izmailov et al. 2018)."""
    image_feature_dropout: float | Mapping[str, float] = LEFT_OUT
    text_feature_dropout: float | Mapping[str, float] = LEFT_OUT
    """Share of the features of a pretrained trunk that the head and the tokens over them do not see, drawn anew for
    each picture and text (Srivastava et al. 2014): of all, or by `source`, .2 where none is named. Few pictures, seen
    often, want much: .6 and more."""
    label_smoothing: float = 0.0
    scale_start: float = 0.0
    """The factor on cosines that the stage starts from; 0 keeps what is there."""
    scale_max: float = 100.0
    bfloat16: bool = False
    validate: Validation | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2:
            raise ValueError(f"stage {self.name}: steps must be at least 1 and batch_size at least 2")
        if self.loss not in ("infonce", "sigmoid"):
            raise ValueError(f"stage {self.name}: loss must be infonce or sigmoid, got {self.loss!r}")
        if self.micro_batch < 0:
            raise ValueError(f"stage {self.name}: micro_batch must be 0 or more, got {self.micro_batch}")
        for name in ("image_feature_dropout", "text_feature_dropout"):
            said = getattr(self, name)
            for share in said.values() if isinstance(said, Mapping) else (said,):
                if not 0 <= share < 1:
                    raise ValueError(f"stage {self.name}: {name} must be 0 or more and below 1, got {share}")
        weights = (
            self.contrastive_loss_weight,
            self.caption_loss_weight,
            self.question_loss_weight,
            self.reward_weight,
        )
        if not any(weights):
            raise ValueError(f"stage {self.name}: all its loss weights are 0: it would learn nothing")
        if self.validate and self.validate.metric == RECALL and not self.contrastive_loss_weight:
            raise ValueError(
                f'stage {self.name} does not train what recall@10 measures: validate.metric = "loss"'
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    sources: tuple[PairSource, ...]
    stages: tuple[Stage, ...]
    model: str = ""
    """Architecture: a name in textmm/models, a JSON file like those, or open_clip's name of a CLIP ViT or CoCa. Not
    needed with `start`, whose architecture it is then."""
    start: str = ""
    """Weights to begin with: a bundled model, a folder that `textmm train` wrote, or a CLIP ViT or CoCa as
    ARCHITECTURE/TAG. Empty: random ones."""
    phrases: tuple[Phrases, ...] = ()
    questions: str = ""
    """A TOML file of questions (`questions.py`): a name in textmm/recipes, or a path."""
    seed: int = 1
    half: bool = False
    """Store the weights as float16."""
    log_every: int = 20
    save_every: int = 200
    threads: int = 2

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.start):
            raise ValueError(
                "a recipe says either model, an architecture to train from random weights, or start, a model to "
                f"go on from; got model = {self.model!r}, start = {self.start!r}"
            )
        for stage in self.stages:
            for weight, share in FED_BY.items():
                if getattr(stage, weight) and not any(getattr(source, share) for source in self.sources):
                    raise ValueError(f"stage {stage.name} has a {weight}, and no source a {share}")
            self._check_sources(stage)

    def _check_sources(self, stage: Stage) -> None:
        known = [source.source for source in self.sources]
        for name in ("image_feature_dropout", "text_feature_dropout"):
            said = getattr(stage, name)
            for source in said if isinstance(said, Mapping) else ():
                if source not in known:
                    raise ValueError(
                        f"stage {stage.name}: {name} names {source!r}, which is none of the sources: {', '.join(known)}"
                    )

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """A recipe in TOML. ValueError names an unknown key."""
        with path.open("rb") as file:
            data = tomllib.load(file)
        for stage in data.get("stages", []):
            if "validate" in stage:
                stage["validate"] = from_mapping(Validation, stage["validate"], where="stages.validate.")
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
