"""Generators: words to pictures. `Generator` is what all of them do; `FlowGenerator` is our own."""

# B batch, H W pixels

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from textmm.encoder import Encoder, stand_back
from textmm.text_to_image import checkpoint
from textmm.text_to_image.catalogue import fitted
from textmm.text_to_image.checkpoint import LoadedGenerator
from textmm.text_to_image.sampler import Sampling, noise, sample

NICE = 10
"""How far threads that draw stand back behind those that search (Unix niceness)."""
BATCH = 8
"""Pictures drawn together: more take no less time each on a CPU."""
VARIED = 0.6
"""Strength of a variation: so much of the way back to noise."""


class Generator(Protocol):
    generator_id: str
    """Name and a hash of all that a picture depends on."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of what it draws."""

    def draw(
        self, prompt: str, seeds: Sequence[int], *, start: Image.Image | None = None, strength: float = VARIED
    ) -> list[Image.Image]:
        """An RGB picture for each seed; the same words, seed and `start` give the same picture. `start`: a picture to
        vary, `strength` 0..1 of how much."""

    def between(
        self, one: Image.Image, other: Image.Image, prompt: str, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Pictures that have something of both."""


class FlowGenerator:
    """An autoencoder, a flow over its latents and a text encoder. Safe to share between threads, which take turns."""

    def __init__(
        self, loaded: LoadedGenerator, encoder: Encoder, *, threads: int = 2, how: Sampling | None = None
    ) -> None:
        """`encoder` reads the words. Raises ValueError when the generator was trained on another's reading."""
        read = encoder.read_texts(["words"])[0].shape[1]
        if read != sum(loaded.flow.config.words_widths):
            raise ValueError(
                f"{loaded.generator_id} reads words as {loaded.words} does, not as {encoder.model_id}: "
                f"{sum(loaded.flow.config.words_widths)} numbers a text, got {read}"
            )
        self.generator_id = loaded.generator_id
        self._autoencoder, self._flow, self._encoder = loaded.autoencoder, loaded.flow, encoder
        self._how = how or Sampling()
        self._worker = ThreadPoolExecutor(1, "drawing", initializer=stand_back, initargs=(threads, NICE))

    @classmethod
    def load(cls, name: str, encoder: Encoder, *, threads: int = 2) -> FlowGenerator:
        """A bundled generator or a folder that `textmm train` wrote. Raises ValueError."""
        return cls(checkpoint.load(name), encoder, threads=threads)

    @property
    def size(self) -> tuple[int, int]:
        shape = self._autoencoder.config
        return shape.width, shape.height

    def draw(
        self, prompt: str, seeds: Sequence[int], *, start: Image.Image | None = None, strength: float = VARIED
    ) -> list[Image.Image]:
        latents = None if start is None else self._worker.submit(self._encoded, start).result()
        return self._drawn(prompt, seeds, latents, strength)

    def between(
        self, one: Image.Image, other: Image.Image, prompt: str, seeds: Sequence[int]
    ) -> list[Image.Image]:
        first, second = self._worker.map(self._encoded, (one, other))
        return self._drawn(prompt, seeds, (first + second) / 2**0.5, VARIED)

    def _drawn(
        self, prompt: str, seeds: Sequence[int], latents: Tensor | None, strength: float
    ) -> list[Image.Image]:
        words, present = self._encoder.read_texts([prompt])
        parts = [seeds[i : i + BATCH] for i in range(0, len(seeds), BATCH)]
        done = [self._worker.submit(self._part, words, present, part, latents, strength) for part in parts]
        return [picture for part in done for picture in part.result()]

    def _part(
        self, words: Tensor, present: Tensor, seeds: Sequence[int], latents: Tensor | None, strength: float
    ) -> list[Image.Image]:
        count = len(seeds)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found = sample(
                self._flow,
                words.expand(count, -1),
                present.expand(count, -1),
                noise(self._flow.config, seeds),
                self._how,
                latents=None if latents is None else latents.expand(count, -1, -1, -1),
                strength=strength,
            )
            return [Image.fromarray(pixels) for pixels in to_pixels(self._autoencoder.decode(found))]

    def _encoded(self, picture: Image.Image) -> Tensor:
        pixels = torch.from_numpy(fitted(picture, *self.size).copy())
        scaled = pixels.permute(2, 0, 1)[None].float().div(127.5).sub(1)
        with torch.inference_mode():
            return self._autoencoder.encode(scaled)


def to_pixels(pictures: Tensor) -> NDArray[np.uint8]:
    """[B, 3, H, W] in -1..1 -> [B, H, W, 3]"""
    pixels: NDArray[np.uint8] = (
        pictures.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    )
    return pixels
