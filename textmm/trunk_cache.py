"""What the trunks make of pictures and texts: kept on disk when they are locked, run in the step when they
are not.
"""

# n rows, V views of a picture, P width of pooled features, N tokens, D width of a token

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from textmm.image import CNN, TrunkOutput
from textmm.model import TextMultiModalModel
from textmm.pairs import Ints, Pairs
from textmm.tokenizers import Tokenizer
from textmm.transforms import augment, fit, to_tensor

MEMORY_VIEWS = 2
"""Views whose tokens are kept for the decoder: the picture and its mirror."""
CHUNK = 8
TEXT_CHUNK = 64


class TrunkInputs(Protocol):
    """Trunk outputs of the pictures and texts of a batch."""

    def pictures(self, ids: Ints, rng: np.random.Generator, *, memory: bool) -> TrunkOutput:
        """A random view of each picture. Without `memory` the tokens may be missing."""

    def texts(self, ids: Ints) -> TrunkOutput: ...


class LiveInputs:
    """The trunks run in the step, so that they learn too; pictures are augmented afresh."""

    def __init__(self, model: TextMultiModalModel, pairs: Pairs, tokenizer: Tokenizer) -> None:
        self._model, self._pairs, self._tokenizer = model, pairs, tokenizer
        self._decoded: dict[int, Image.Image] = {}

    def pictures(self, ids: Ints, rng: np.random.Generator, *, memory: bool) -> TrunkOutput:
        config = self._model.config.vision_cfg
        images = [augment(self._picture(int(i)), config, rng) for i in ids]
        out: TrunkOutput = self._model.image.trunk(to_tensor(images, config))
        return out

    def texts(self, ids: Ints) -> TrunkOutput:
        out: TrunkOutput = self._model.text.trunk(self._tokenizer([self._pairs.texts[int(i)] for i in ids]))
        return out

    def _picture(self, i: int) -> Image.Image:
        if len(self._decoded) > 5000:
            self._decoded.clear()
        if i not in self._decoded:
            self._decoded[i] = self._pairs.picture(i)
        return self._decoded[i]


class CachedInputs:
    """Locked trunks: their outputs for every text and every view of every picture, as float16 files."""

    def __init__(self, folder: Path, pairs: Pairs) -> None:
        """Open what `fill` wrote."""
        self._pooled = [
            np.load(_path(folder, pairs, i, "pooled"), mmap_mode="r") for i in range(len(pairs.ranges))
        ]
        self._memory: list[NDArray[np.float16] | None] = []
        for i, source in enumerate(pairs.sources):
            there = source.caption_share > 0
            self._memory.append(np.load(_path(folder, pairs, i, "memory"), mmap_mode="r") if there else None)
        with np.load(_text_path(folder, pairs)) as texts:
            self._texts, self._present = texts["pooled"], texts["present"]
        self._starts = np.array([span.start for span in pairs.ranges])

    def pictures(self, ids: Ints, rng: np.random.Generator, *, memory: bool) -> TrunkOutput:
        source = np.searchsorted(self._starts, ids, side="right") - 1
        pooled, tokens = [], []
        for s, i in zip(source.tolist(), (ids - self._starts[source]).tolist(), strict=True):
            views = self._pooled[s][i]
            view = int(rng.integers(MEMORY_VIEWS if memory else len(views)))
            pooled.append(views[view])
            kept = self._memory[s]
            if memory and kept is not None:
                tokens.append(kept[i, view])
        x = torch.from_numpy(np.stack(pooled)).float()
        mem = torch.from_numpy(np.stack(tokens)).float() if tokens else x.new_zeros(len(x), 1, 1)
        return TrunkOutput(x, mem, torch.ones(len(x), 1, dtype=torch.bool))

    def texts(self, ids: Ints) -> TrunkOutput:
        x = torch.from_numpy(self._texts[ids]).float()
        return TrunkOutput(x, x.new_zeros(len(x), 1, 1), torch.from_numpy(self._present[ids]))

    def sample(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled features of pictures (by the size of the sources) and of texts, to standardise by."""
        rows = np.concatenate([p[:, 0] for p in self._pooled])
        both = self._texts[self._present.all(1)]
        pick = [x[rng.choice(len(x), min(count, len(x)), replace=False)] for x in (rows, both)]
        return torch.from_numpy(pick[0]).float(), torch.from_numpy(pick[1]).float()


def fill(
    folder: Path, model: TextMultiModalModel, pairs: Pairs, tokenizer: Tokenizer
) -> Iterator[tuple[str, int, int]]:
    """Run locked trunks over all pictures and texts; yields (what, done, of). A source done before is
    skipped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2, "trunk", initializer=torch.set_num_threads, initargs=(1,)) as workers:
        for i in range(len(pairs.ranges)):
            if not _path(folder, pairs, i, "pooled").exists():
                yield from _fill_pictures(folder, model, pairs, i, workers)
        if not _text_path(folder, pairs).exists():
            yield from _fill_texts(folder, model, pairs, tokenizer, workers)


def _fill_pictures(
    folder: Path, model: TextMultiModalModel, pairs: Pairs, which: int, workers: ThreadPoolExecutor
) -> Iterator[tuple[str, int, int]]:
    source, span = pairs.sources[which], pairs.ranges[which]
    assert isinstance(model.image, CNN)
    keep_memory = source.caption_share > 0
    paths = {
        k: _path(folder, pairs, which, k) for k in (("memory", "pooled") if keep_memory else ("pooled",))
    }
    partial = {k: p.with_suffix(".partial") for k, p in paths.items()}
    shapes = {
        "pooled": (len(span), source.views, model.image.pooled_width),
        "memory": (len(span), MEMORY_VIEWS, CNN.GRID**2 + 1, model.image.features.head.out_channels),
    }
    out = {
        k: np.lib.format.open_memmap(p, "w+", dtype=np.float16, shape=shapes[k]) for k, p in partial.items()
    }

    def encode(at: range) -> None:
        views = [v for i in at for v in _views(pairs, span[i], source.views, model)]
        with torch.inference_mode():
            parts = [model.image.trunk(to_tensor(c, model.config.vision_cfg)) for c in _chunks(views, CHUNK)]
        pooled = torch.cat([p.pooled for p in parts]).view(len(at), source.views, -1)
        out["pooled"][at.start : at.stop] = pooled.half().numpy()
        if keep_memory:
            memory = torch.cat([p.memory for p in parts])
            memory = memory.view(len(at), source.views, *memory.shape[1:])[:, :MEMORY_VIEWS]
            out["memory"][at.start : at.stop] = memory.half().numpy()

    rows = [range(i, min(i + CHUNK, len(span))) for i in range(0, len(span), CHUNK)]
    for done, _ in enumerate(workers.map(encode, rows), start=1):
        yield source.source, min(done * CHUNK, len(span)), len(span)
    for k, array in out.items():
        array.flush()
        partial[k].replace(paths[k])


def _fill_texts(
    folder: Path, model: TextMultiModalModel, pairs: Pairs, tokenizer: Tokenizer, workers: ThreadPoolExecutor
) -> Iterator[tuple[str, int, int]]:
    order = sorted(range(len(pairs.texts)), key=lambda i: len(pairs.texts[i]))
    chunks = list(_chunks(order, TEXT_CHUNK))

    def encode(at: Sequence[int]) -> TrunkOutput:
        with torch.inference_mode():
            out: TrunkOutput = model.text.trunk(tokenizer([pairs.texts[i] for i in at]))
            return out

    pooled: NDArray[np.float16] | None = None
    present: NDArray[np.bool_] | None = None
    for done, (at, out) in enumerate(zip(chunks, workers.map(encode, chunks), strict=True), start=1):
        if pooled is None or present is None:
            pooled = np.zeros((len(order), out.pooled.shape[1]), dtype=np.float16)
            present = np.zeros((len(order), out.present.shape[1]), dtype=bool)
        pooled[at], present[at] = out.pooled.half().numpy(), out.present.numpy()
        yield "texts", min(done * TEXT_CHUNK, len(order)), len(order)
    path = _text_path(folder, pairs)
    partial = path.with_suffix(".partial.npz")
    assert pooled is not None and present is not None
    np.savez(partial, pooled=pooled, present=present)
    partial.replace(path)


def _views(pairs: Pairs, i: int, count: int, model: TextMultiModalModel) -> list[Image.Image]:
    config = model.config.vision_cfg
    image = pairs.picture(i)
    whole = fit(image, config)
    rng = np.random.default_rng([pairs.seed, 4, i])
    return [whole, ImageOps.mirror(whole), *(augment(image, config, rng) for _ in range(count - 2))][:count]


def _chunks(rows: Sequence, size: int) -> Iterator[Sequence]:  # type: ignore[type-arg]
    return (rows[i : i + size] for i in range(0, len(rows), size))


def _path(folder: Path, pairs: Pairs, which: int, kind: str) -> Path:
    """Named by what the rows depend on: keys, seed, views."""
    source, span = pairs.sources[which], pairs.ranges[which]
    said = json.dumps([source.source, source.views, pairs.seed, [pairs.items[i].locator for i in span]])
    return folder / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.{kind}.npy"


def _text_path(folder: Path, pairs: Pairs) -> Path:
    said = json.dumps(pairs.texts, ensure_ascii=False)
    return folder / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.texts.npz"
