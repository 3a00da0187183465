"""What the trunks make of pictures and texts: kept on disk when they are locked, run in the step when they
are not.
"""

# n rows, V views of a picture, P width of pooled features, N tokens, D width of a token

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from textmm.array_file import new_array
from textmm.image import CNN, Front, TrunkOutput
from textmm.model import TextMultiModalModel
from textmm.pairs import Ints, Pairs
from textmm.tokenizers import Tokenizer
from textmm.transforms import augment, fit, to_tensor

CHUNK = 8
TEXT_CHUNK = 64
DECODED_BYTES = 256_000_000
"""Memory for decoded pictures where trunks run in the step."""
Rngs = Sequence[np.random.Generator] | None
"""A generator for each picture of a batch, so that its view does not depend on who encodes it; None: no chance."""


class PictureInputs(Protocol):
    """Trunk outputs of the pictures of a batch."""

    def pictures(self, ids: Ints, rngs: Rngs, *, memory: bool) -> TrunkOutput:
        """A random view of each picture, the whole one without `rngs`. Without `memory` tokens may be missing."""


class TrunkInputs(PictureInputs, Protocol):
    """And of its texts."""

    def texts(self, ids: Ints) -> TrunkOutput: ...


class LiveInputs:
    """The trunks run in the step, so that they learn too; pictures are augmented afresh.

    Bytes are read when they are needed; of decoded pictures those last used are kept, `decoded_bytes` at most.
    """

    def __init__(
        self,
        model: TextMultiModalModel,
        pairs: Pairs,
        tokenizer: Tokenizer,
        *,
        decoded_bytes: int = DECODED_BYTES,
    ) -> None:
        self._model, self._pairs, self._tokenizer = model, pairs, tokenizer
        self._decoded: dict[int, Image.Image] = {}
        self._left = decoded_bytes

    def pictures(self, ids: Ints, rngs: Rngs, *, memory: bool) -> TrunkOutput:
        config = self._model.config.vision_cfg
        images = [
            fit(self._picture(int(i)), config) if rng is None else augment(self._picture(int(i)), config, rng)
            for i, rng in zip(ids, rngs or repeat(None, len(ids)), strict=True)
        ]
        out: TrunkOutput = self._model.image.trunk(to_tensor(images, config).to(device_of(self._model)))
        return out

    def texts(self, ids: Ints) -> TrunkOutput:
        tokens = self._tokenizer([self._pairs.texts[int(i)] for i in ids])
        device = device_of(self._model)
        out: TrunkOutput = self._model.text.trunk(tuple(t.to(device) for t in tokens))
        return out

    def _picture(self, i: int) -> Image.Image:
        image = self._decoded.pop(i, None)
        if image is None:
            image = self._pairs.picture(i)
            self._left -= _decoded_size(image)
        self._decoded[i] = image  # the last in the order
        while self._left < 0 and self._decoded:
            self._left += _decoded_size(self._decoded.pop(next(iter(self._decoded))))
        return image


class _Files:
    """What `fill` wrote of pairs, float16, mapped, not read."""

    def __init__(self, folder: Path, pairs: Pairs) -> None:
        self._folder, self._pairs = folder, pairs
        self._arrays: dict[tuple[int, str], NDArray[np.float16]] = {}

    def open(self, source: int, kind: str) -> NDArray[np.float16]:
        if (source, kind) not in self._arrays:
            path = _path(self._folder, self._pairs, source, kind)
            self._arrays[source, kind] = np.load(path, mmap_mode="r")
        return self._arrays[source, kind]

    def places(self, ids: Ints) -> Iterator[tuple[int, int]]:
        """Of pictures: which source, which of its rows."""
        source = self._pairs.source_of(ids)
        starts = np.array([span.start for span in self._pairs.ranges])
        return zip(source.tolist(), (ids - starts[source]).tolist(), strict=True)


class FrontInputs:
    """The first `stages` stages of the image trunk are locked, their ends kept for every view of every picture; the
    rest runs in the step, so that it learns too.
    """

    def __init__(self, folder: Path, pairs: Pairs, model: TextMultiModalModel, stages: int) -> None:
        self._files, self._stages = _Files(folder, pairs), stages
        assert isinstance(model.image, CNN)
        self._image = model.image

    def pictures(self, ids: Ints, rngs: Rngs, *, memory: bool) -> TrunkOutput:
        maps, pooled = [], []
        for (source, row), rng in zip(self._files.places(ids), rngs or repeat(None, len(ids)), strict=True):
            kept, also = self._kept(source)
            view = 0 if rng is None else int(rng.integers(len(kept[row])))
            maps.append(kept[row, view])
            pooled.append(also[row, view])
        return self._rest(np.stack(maps), np.stack(pooled))

    def views(self, source: int, row: int, count: int) -> TrunkOutput:
        """Of the first `count` views of a picture."""
        maps, pooled = self._kept(source)
        return self._rest(np.array(maps[row, :count]), np.array(pooled[row, :count]))

    def _kept(self, source: int) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        maps, pooled = _front_kinds(self._stages)
        return self._files.open(source, maps), self._files.open(source, pooled)

    def _rest(self, maps: NDArray[np.float16], pooled: NDArray[np.float16]) -> TrunkOutput:
        device, dtype = self._image.pixel_mean.device, self._image.features.stem.weight.dtype
        ends = torch.from_numpy(maps).to(device, dtype).permute(0, 3, 1, 2)  # channels last
        return self._image.rest(Front(ends, torch.from_numpy(pooled).to(device).float()), self._stages)


class CachedInputs:
    """Locked trunks: their outputs for every text and every view of every picture, as float16 files."""

    def __init__(self, folder: Path, pairs: Pairs) -> None:
        """Over what `fill` wrote."""
        self._folder, self._pairs, self._files = folder, pairs, _Files(folder, pairs)

    @cached_property
    def _texts(self) -> NDArray[np.float16]:
        texts: NDArray[np.float16] = np.load(_text_path(self._folder, self._pairs, "pooled"), mmap_mode="r")
        return texts

    @cached_property
    def _present(self) -> NDArray[np.bool_]:
        present: NDArray[np.bool_] = np.load(_text_path(self._folder, self._pairs, "present"))
        return present

    def pictures(self, ids: Ints, rngs: Rngs, *, memory: bool) -> TrunkOutput:
        pooled, tokens = [], []
        for (source, row), rng in zip(self._files.places(ids), rngs or repeat(None, len(ids)), strict=True):
            views = self._files.open(source, "pooled")[row]
            view = 0 if rng is None else int(rng.integers(len(views)))
            pooled.append(views[view])
            if memory and self._pairs.sources[source].is_read_by_decoder:
                tokens.append(self._files.open(source, "memory")[row, view])
        x = torch.from_numpy(np.stack(pooled)).float()
        mem = torch.from_numpy(np.stack(tokens)).float() if tokens else x.new_zeros(len(x), 1, 1)
        return TrunkOutput(x, mem, torch.ones(len(x), 1, dtype=torch.bool))

    def texts(self, ids: Ints) -> TrunkOutput:
        x = torch.from_numpy(self._texts[ids]).float()
        return TrunkOutput(x, x.new_zeros(len(x), 1, 1), torch.from_numpy(self._present[ids]))


@dataclass(frozen=True)
class MixedInputs:
    """Pictures from one, texts from another, both on `device`."""

    images: PictureInputs
    words: TrunkInputs
    device: torch.device

    def pictures(self, ids: Ints, rngs: Rngs, *, memory: bool) -> TrunkOutput:
        return TrunkOutput(*(x.to(self.device) for x in self.images.pictures(ids, rngs, memory=memory)))

    def texts(self, ids: Ints) -> TrunkOutput:
        return TrunkOutput(*(x.to(self.device) for x in self.words.texts(ids)))


def sample(
    inputs: TrunkInputs, pairs: Pairs, rng: np.random.Generator, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled features of `count` pictures, whole, and of the texts among `count` that all trunks read, to
    standardise by.
    """
    picture_ids, text_ids = (
        np.sort(rng.choice(n, min(count, n), replace=False)) for n in (len(pairs.items), len(pairs.texts))
    )
    parts = [np.array_split(ids, -(-len(ids) // TEXT_CHUNK)) for ids in (picture_ids, text_ids)]
    with torch.no_grad():
        pooled = torch.cat([inputs.pictures(ids, None, memory=False).pooled for ids in parts[0]])
        texts = [inputs.texts(ids) for ids in parts[1]]
    read = torch.cat([t.present.all(1) for t in texts])
    said = torch.cat([t.pooled for t in texts])
    return pooled.float(), (said[read] if bool(read.any()) else said).float()


def fill_pictures(
    folder: Path,
    model: TextMultiModalModel,
    pairs: Pairs,
    *,
    fronts: FrontInputs | None = None,
    decoder_only: bool = False,
) -> Iterator[tuple[str, int, int]]:
    """Run a locked image trunk over all pictures, over what is kept of its first stages if there are `fronts`; with
    `decoder_only` just over what a decoder reads. Yields (what, done, of). A source done before is skipped.
    """
    image = model.image
    assert isinstance(image, CNN)

    def made(which: int, i: int, views: int) -> dict[str, torch.Tensor]:
        if fronts is not None:
            out = fronts.views(which, i, views)
        else:
            out = image.trunk(_pixels(pairs, pairs.ranges[which][i], views, model))
        return {"pooled": out.pooled, "memory": out.memory}

    for which, source in enumerate(pairs.sources):
        if source.is_read_by_decoder:
            yield from _fill(folder, pairs, which, ("memory", "pooled"), source.views, made)
        elif not decoder_only:
            yield from _fill(folder, pairs, which, ("pooled",), source.views, made)


def fill_fronts(
    folder: Path, model: TextMultiModalModel, pairs: Pairs, stages: int
) -> Iterator[tuple[str, int, int]]:
    """Run the first `stages` stages of the image trunk over all pictures; otherwise as fill_pictures."""
    image, kinds = model.image, _front_kinds(stages)
    assert isinstance(image, CNN)

    def made(which: int, i: int, views: int) -> dict[str, torch.Tensor]:
        front = image.front(_pixels(pairs, pairs.ranges[which][i], views, model), stages)
        return dict(zip(kinds, (front.maps.permute(0, 2, 3, 1), front.pooled), strict=True))

    for which, source in enumerate(pairs.sources):
        yield from _fill(folder, pairs, which, kinds, source.views, made)


def fill_texts(
    folder: Path, model: TextMultiModalModel, pairs: Pairs, tokenizer: Tokenizer
) -> Iterator[tuple[str, int, int]]:
    """Run locked text trunks over all texts, unless that was done before."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _text_path(folder, pairs, "present").exists():
        with _workers() as workers:
            yield from _fill_texts(folder, model, pairs, tokenizer, workers)


def device_of(model: TextMultiModalModel) -> torch.device:
    return model.logit_scale.device


def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, "trunk", initializer=torch.set_num_threads, initargs=(1,))


def _decoded_size(image: Image.Image) -> int:
    return image.width * image.height * len(image.getbands())


def _fill(
    folder: Path,
    pairs: Pairs,
    which: int,
    kinds: Sequence[str],
    views: int,
    made: Callable[[int, int, int], dict[str, torch.Tensor]],
) -> Iterator[tuple[str, int, int]]:
    """Keep what `made` (source, row, views) makes of the pictures of a source, a file a kind."""
    folder.mkdir(parents=True, exist_ok=True)
    span = pairs.ranges[which]
    if all(_path(folder, pairs, which, kind).exists() for kind in kinds):
        return

    def encode(i: int) -> list[NDArray[np.float16]]:
        with torch.inference_mode():
            by_kind = made(which, i, views)
            return [by_kind[kind].half().cpu().numpy() for kind in kinds]

    with _workers() as workers, ExitStack() as files:
        out: list[NDArray[np.float16]] = []
        for i, rows in enumerate(workers.map(encode, range(len(span)))):
            for kind, values in zip(kinds[len(out) :], rows[len(out) :], strict=True):
                path = _path(folder, pairs, which, kind)
                out.append(files.enter_context(new_array(path, (len(span), *values.shape), np.float16)))
            for array, values in zip(out, rows, strict=True):
                array[i] = values
            if i + 1 == len(span) or (i + 1) % CHUNK == 0:
                yield pairs.sources[which].source, i + 1, len(span)


def _fill_texts(
    folder: Path, model: TextMultiModalModel, pairs: Pairs, tokenizer: Tokenizer, workers: ThreadPoolExecutor
) -> Iterator[tuple[str, int, int]]:
    order = sorted(range(len(pairs.texts)), key=lambda i: len(pairs.texts[i]))
    chunks = list(_chunks(order, TEXT_CHUNK))

    def encode(at: Sequence[int]) -> TrunkOutput:
        with torch.inference_mode():
            tokens = tokenizer([pairs.texts[i] for i in at])
            out: TrunkOutput = model.text.trunk(tuple(t.to(device_of(model)) for t in tokens))
            return out

    paths = {kind: _text_path(folder, pairs, kind) for kind in ("pooled", "present")}
    partial = {kind: path.with_suffix(".partial") for kind, path in paths.items()}
    pooled: NDArray[np.float16] | None = None
    present: NDArray[np.bool_] | None = None
    for done, (at, out) in enumerate(zip(chunks, workers.map(encode, chunks), strict=True), start=1):
        if pooled is None or present is None:
            shape = (len(order), out.pooled.shape[1])
            pooled = np.lib.format.open_memmap(partial["pooled"], "w+", dtype=np.float16, shape=shape)
            present = np.zeros((len(order), out.present.shape[1]), dtype=bool)
        pooled[at], present[at] = out.pooled.half().cpu().numpy(), out.present.cpu().numpy()
        yield "texts", min(done * TEXT_CHUNK, len(order)), len(order)
    assert isinstance(pooled, np.memmap) and present is not None
    pooled.flush()
    with partial["present"].open("wb") as file:
        np.save(file, present)
    for kind, path in paths.items():  # `present` last: it says that both are there
        partial[kind].replace(path)


def _pixels(pairs: Pairs, i: int, views: int, model: TextMultiModalModel) -> torch.Tensor:
    """[views, 3, H, W]: picture `i` whole, its mirror, crops."""
    config = model.config.vision_cfg
    image = pairs.picture(i)
    whole = fit(image, config)
    rng = np.random.default_rng([pairs.seed, 4, i])
    made = [whole, ImageOps.mirror(whole), *(augment(image, config, rng) for _ in range(views - 2))][:views]
    return to_tensor(made, config).to(device_of(model))


def _chunks(rows: Sequence, size: int) -> Iterator[Sequence]:  # type: ignore[type-arg]
    return (rows[i : i + size] for i in range(0, len(rows), size))


def _front_kinds(stages: int) -> tuple[str, str]:
    """Of what is kept of the first `stages` stages of the image trunk."""
    return _front("maps", stages), _front("pooled", stages)


def _front(what: str, stages: int) -> str:
    return f"{what}-{stages}"


def _path(folder: Path, pairs: Pairs, which: int, kind: str) -> Path:
    """Named by what the rows depend on: keys, seed, views."""
    source, span = pairs.sources[which], pairs.ranges[which]
    said = json.dumps([source.source, source.views, pairs.seed, [pairs.items[i].locator for i in span]])
    return folder / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.{kind}.npy"


def _text_path(folder: Path, pairs: Pairs, kind: str) -> Path:
    said = json.dumps(pairs.texts, ensure_ascii=False)
    return folder / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.texts.{kind}.npy"
