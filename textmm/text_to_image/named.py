"""Generators by name: a bundled one, a folder that `textmm train` wrote, or a pipeline of the diffusers package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from textmm.encoder import Encoder
from textmm.text_to_image import checkpoint
from textmm.text_to_image.generator import FlowGenerator, Generator
from textmm.text_to_image.pipelines import PIPELINE, PipelineGenerator, pipeline_id

DIFFUSERS = "diffusers:"


@dataclass(frozen=True)
class NamedGenerator:
    name: str
    folder: str
    words: str = ""
    """The model that reads the words and finds the best pictures; empty: a pipeline, which reads them itself."""
    least_score: float = -1.0
    """Cosine of a picture with its words below which it is said that this cannot be drawn."""

    @cached_property
    def generator_id(self) -> str:
        """Its weights are read for it."""
        return checkpoint.generator_id(Path(self.folder)) if self.words else pipeline_id(self.folder)

    def load(self, encoder: Encoder, *, threads: int) -> Generator:
        """`encoder`: of the model `words`. Raises ValueError, ModuleNotFoundError (diffusers)."""
        if not self.words:
            return PipelineGenerator.load(self.folder, threads=threads)
        return FlowGenerator.load(self.folder, encoder, threads=threads)


def find_generator(name: str) -> NamedGenerator:
    """What config.toml names: `mini-draw`, a folder, `diffusers:ORG/NAME`. Raises ValueError when there is none."""
    if name.startswith(DIFFUSERS) or (Path(name) / PIPELINE).is_file():
        folder = name.removeprefix(DIFFUSERS)
        return NamedGenerator(Path(folder).name, folder)
    folder = str(checkpoint.find(name))
    said = json.loads((Path(folder) / "config.json").read_text())
    least = float(said["least_score"])
    return NamedGenerator(said["name"], folder, said["words"], least)
