"""Text-to-image pipelines of the diffusers package (an optional extra: `pip install textmm[diffusers]`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from textmm.encoder import stand_back
from textmm.text_to_image.generator import NICE, VARIED

PIPELINE = "model_index.json"
"""What a pipeline's folder holds."""
STEPS = 25


class PipelineGenerator:
    """Any text-to-image pipeline behind `Generator`."""

    def __init__(self, pipeline: Any, generator_id: str, *, threads: int = 2, steps: int = STEPS) -> None:
        self.generator_id = generator_id
        self._pipeline, self._steps = pipeline, steps
        self._worker = ThreadPoolExecutor(1, "drawing", initializer=stand_back, initargs=(threads, NICE))
        self._varied: Any = None
        """The same weights as a pipeline that begins with a picture."""
        pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def load(cls, name: str, *, threads: int = 2, device: str = "cpu") -> PipelineGenerator:
        """A folder or hub id. Raises ModuleNotFoundError without diffusers, OSError when there is no such pipeline."""
        try:
            from diffusers import AutoPipelineForText2Image
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{name} is a diffusers pipeline: pip install 'textmm[diffusers]'", name=error.name
            ) from error
        load: Any = AutoPipelineForText2Image.from_pretrained
        pipeline = load(name, local_files_only=Path(name).is_dir()).to(device)
        return cls(pipeline, pipeline_id(name), threads=threads)

    @property
    def size(self) -> tuple[int, int]:
        unit = self._pipeline.vae_scale_factor
        part = getattr(self._pipeline, "unet", None) or self._pipeline.transformer
        side = int(part.config.sample_size) * int(unit)
        return side, side

    def draw(
        self, prompt: str, seeds: Sequence[int], *, start: Image.Image | None = None, strength: float = VARIED
    ) -> list[Image.Image]:
        drawn = [self._worker.submit(self._one, prompt, seed, start, strength) for seed in seeds]
        return [picture.result() for picture in drawn]

    def between(
        self, one: Image.Image, other: Image.Image, prompt: str, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """The two laid over each other, then varied."""
        size = self.size
        both = Image.blend(one.convert("RGB").resize(size), other.convert("RGB").resize(size), 0.5)
        return self.draw(prompt, seeds, start=both)

    def _one(self, prompt: str, seed: int, start: Image.Image | None, strength: float) -> Image.Image:
        how: dict[str, Any] = {
            "prompt": prompt,
            "num_inference_steps": self._steps,
            "generator": torch.Generator().manual_seed(seed),
        }
        if start is None:
            width, height = self.size
            picture: Image.Image = self._pipeline(width=width, height=height, **how).images[0]
            return picture.convert("RGB")
        if self._varied is None:
            from diffusers import AutoPipelineForImage2Image

            make: Any = AutoPipelineForImage2Image.from_pipe
            self._varied = make(self._pipeline)
            self._varied.set_progress_bar_config(disable=True)
        picture = self._varied(image=start.convert("RGB").resize(self.size), strength=strength, **how).images[
            0
        ]
        return picture.convert("RGB")


def pipeline_id(name: str) -> str:
    """`name-3f2a9c41`: of a folder, a hash over what its files are and how large; of a hub id, over the id."""
    folder = Path(name)
    digest = hashlib.sha256(folder.name.encode())
    if folder.is_dir():
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size}".encode())
    else:
        digest.update(name.encode())
    return f"{folder.name}-{digest.hexdigest()[:8]}"
