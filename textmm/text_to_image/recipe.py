"""What `textmm train` reads for a generator: architecture, sources, stages, as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textmm.config import check_positive, from_mapping
from textmm.phrases import Phrases
from textmm.text_to_image.config import AutoencoderConfig

TRAINS = ("autoencoder", "decoder", "flow")


@dataclass(frozen=True, kw_only=True)
class PictureSource:
    source: str
    """What read_source takes, below the data folder."""
    sharp: bool = True
    """False: smaller than what is drawn, so enlarged."""
    share: float = 1.0
    """Of the pictures that a stage draws, relative to the other sources."""


@dataclass(frozen=True, kw_only=True)
class GeneratorStage:
    name: str
    trains: str
    """autoencoder, decoder (of a finished encoder) or flow (over finished latents)."""
    steps: int
    batch_size: int
    learning_rate: float
    matrix_learning_rate: float = 0.0
    """Of the flow's matrices, which Muon trains; AdamW trains the rest."""
    warmup_steps: int = 50
    weight_decay: float = 0.01
    grad_clip_norm: float = 1.0
    average_last: float = 0.2
    """Share of the steps over which weights are averaged; the average is what is kept."""
    perceptual_weight: float = 0.0
    """Of the difference in Lite0's maps, beside that of pixels."""
    perceptual_stages: int = 3
    """Maps of the trunk that are compared: the stem's and those of its first stages."""
    adversarial_weight: float = 0.0
    """Of what a discriminator over the same maps makes of the pictures (`discriminator.py`); needs a
    `perceptual_weight`."""
    sharp_only: bool = False
    """Leaves out the pictures of sources that are smaller than what is drawn."""
    blank_share: float = 0.1
    """Of a flow's pictures that come without words."""
    compiled: bool = False
    """A flow by torch.compile: a step takes two thirds of the time; needs a C++ compiler."""
    leave_out: float = 0.25
    """How often a flow reads words by one of two text trunks alone."""

    def __post_init__(self) -> None:
        if self.trains not in TRAINS:
            raise ValueError(f"stages.trains must be one of {', '.join(TRAINS)}, got {self.trains!r}")
        check_positive("stages", self, ("steps", "batch_size"))
        if self.adversarial_weight and not self.perceptual_weight:
            raise ValueError(
                f"stage {self.name}: adversarial_weight {self.adversarial_weight} needs a perceptual_weight, whose "
                "maps the discriminator looks at"
            )


@dataclass(frozen=True, kw_only=True)
class GeneratorRecipe:
    generator: str
    """Name of what comes out."""
    words: str
    """The model whose text trunks read the words."""
    sources: tuple[PictureSource, ...]
    stages: tuple[GeneratorStage, ...]
    phrases: tuple[Phrases, ...] = ()
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    flow: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the flow (`FlowConfig`) other than those that follow from the autoencoder and the words."""
    balance: Mapping[str, float] = field(default_factory=dict)
    """By attribute: pictures are drawn in proportion to (how many have this value) ** -power."""
    title_share: float = 0.0
    """How often a picture comes with a text of its own instead of a phrase."""
    least_score: float = -1.0
    """Cosine with the words below which the best of several pictures is not what was asked for: see bench_draw."""
    seed: int = 1
    log_every: int = 20
    save_every: int = 200
    threads: int = 2

    def __post_init__(self) -> None:
        flows = [i for i, stage in enumerate(self.stages) if stage.trains == "flow"]
        for stage in self.stages[flows[-1] + 1 :] if flows else ():
            if stage.trains == "autoencoder":
                raise ValueError(
                    f"stage {stage.name} changes the latents that the flow before it was trained on: put a flow "
                    "after it, or let it train the decoder alone"
                )

    @classmethod
    def read(cls, path: Path) -> GeneratorRecipe:
        """A recipe in TOML. ValueError names an unknown key."""
        with path.open("rb") as file:
            data = tomllib.load(file)
        parts: dict[str, type] = {"sources": PictureSource, "phrases": Phrases, "stages": GeneratorStage}
        for name, kind in parts.items():
            data[name] = [from_mapping(kind, one, where=f"{name}.") for one in data.get(name, [])]
        data["autoencoder"] = from_mapping(
            AutoencoderConfig, data.get("autoencoder", {}), where="autoencoder."
        )
        return from_mapping(cls, data)


def is_generator(path: Path) -> bool:
    """Whether a recipe trains a generator, not an encoder. Raises tomllib.TOMLDecodeError."""
    with path.open("rb") as file:
        said: dict[str, Any] = tomllib.load(file)
    return "generator" in said
