"""Pictures and phrases that a generator learns from, as files: pixels of one size, and what the text trunks make of the
phrases.
"""

# n pictures, m phrases, H W pixels, P width of what text trunks make of words

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from textmm import checkpoint, trunk_cache
from textmm.array_file import new_array
from textmm.model import TextMultiModalModel
from textmm.pairs import Pairs, PairSource
from textmm.text import PretrainedText
from textmm.text_to_image.recipe import GeneratorRecipe

CHUNK = 64


class Catalogue:
    """All pictures of a recipe's sources with their phrases."""

    def __init__(self, recipe: GeneratorRecipe, *, data: Path, trunks: Path, cache: Path) -> None:
        """`data`: below which the sources lie; `trunks`: pretrained weights; `cache`: where files may stay."""
        self._recipe, self._cache = recipe, cache
        sources = tuple(PairSource(source=s.source, share=s.share, phrase_share=1.0) for s in recipe.sources)
        self._pairs = Pairs(sources, recipe.phrases, data=data, drawings=cache, seed=recipe.seed)
        loaded = checkpoint.load(recipe.words, trunks)
        if not isinstance(loaded.model, TextMultiModalModel):
            raise ValueError(
                f"words = {recipe.words!r}: a generator's words are read by a model that `textmm train` made"
            )
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        text = loaded.model.text
        self.words_widths = tuple(text.widths) if isinstance(text, PretrainedText) else (text.pooled_width,)
        spans = zip(recipe.sources, self._pairs.ranges, strict=True)
        self.sharp: NDArray[np.bool_] = np.concatenate([np.full(len(span), s.sharp) for s, span in spans])
        self._said = [self._pairs.texts_of(i) for i in range(len(self._pairs.items))]
        self.chance = self._chances()

    def __len__(self) -> int:
        return len(self._pairs.items)

    def fill(self) -> Iterator[tuple[str, int, int]]:
        """Make the files that are not there; yields (what, done, of)."""
        self._cache.mkdir(parents=True, exist_ok=True)
        if not self._pixels_at.exists():
            yield from self._fill_pixels()
        yield from trunk_cache.fill_texts(self._cache, self._model, self._pairs, self._tokenizer)
        self.pixels: NDArray[np.uint8] = np.load(self._pixels_at, mmap_mode="r")  # [n, H, W, 3]
        self._texts = trunk_cache.CachedInputs(self._cache, self._pairs)

    def pictures(self, rows: NDArray[np.int64], mirrored: NDArray[np.bool_] | None = None) -> Tensor:
        """[b, 3, H, W] float32 in -1..1."""
        pixels = np.stack([self.pixels[row] for row in rows])
        if mirrored is not None:
            pixels[mirrored] = pixels[mirrored, :, ::-1]
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def draw(self, count: int, rng: np.random.Generator, *, sharp_only: bool = False) -> NDArray[np.int64]:
        """Pictures for a batch. ValueError where none may be drawn."""
        chance = self.chance * self.sharp if sharp_only else self.chance
        if not chance.any():
            raise ValueError("sharp_only: no source of the recipe is sharp")
        return rng.choice(len(self), count, p=chance / chance.sum())

    def words(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A text of each picture: what the trunks make of it [b, P], and which could read it, [b, trunks] bool."""
        out = self._texts.texts(np.array([self._one(row, rng) for row in rows]))
        return out.pooled, out.present

    def _one(self, row: int, rng: np.random.Generator) -> int:
        own, phrases = self._said[row]
        titled = len(own) and (not len(phrases) or rng.random() < self._recipe.title_share)
        pool = own if titled else phrases
        return int(rng.choice(pool))

    def _chances(self) -> NDArray[np.float64]:
        """[n]: of each picture to be drawn; one without words is never."""
        weights = np.array([float(len(own) + len(phrases) > 0) for own, phrases in self._said])
        for attribute, power in self._recipe.balance.items():
            values = [str(item.attributes.get(attribute)) for item in self._pairs.items]
            counts = Counter(values)
            weights *= np.array([counts[value] ** -power for value in values])
        for source, span in zip(self._recipe.sources, self._pairs.ranges, strict=True):
            part = weights[span.start : span.stop]
            part *= source.share / max(1e-12, part.sum())
        chances: NDArray[np.float64] = weights / weights.sum()
        return chances

    @property
    def _pixels_at(self) -> Path:
        size = self._recipe.autoencoder
        said = json.dumps([size.height, size.width, [item.locator for item in self._pairs.items]])
        return self._cache / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.pixels.npy"

    def _fill_pixels(self) -> Iterator[tuple[str, int, int]]:
        size, count = self._recipe.autoencoder, len(self)
        parts = [range(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
        shape = (count, size.height, size.width, 3)
        with new_array(self._pixels_at, shape, np.uint8) as out, ThreadPoolExecutor(2) as workers:

            def fill(rows: range) -> None:
                for row in rows:
                    out[row] = fitted(self._pairs.picture(row), size.width, size.height)

            for part, _ in zip(parts, workers.map(fill, parts), strict=True):
                yield "pictures", part.stop, count


def fitted(image: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    """Pixels [height, width, 3] of an RGB picture, its sides stretched to the shape that is drawn."""
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
