"""Encoder: model, tokenizer, transform and device in one. The seam: lists in, normalised numpy out."""

from __future__ import annotations

import copy
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from textmm import checkpoint, generate, open_clip_models
from textmm.bert import Bert
from textmm.calibration import Calibration
from textmm.checkpoint import LoadedModel
from textmm.clip_tokenizer import ClipTokenizer
from textmm.config import ANSWER
from textmm.fusion import TextDecoder
from textmm.image import CNN, Encoded
from textmm.model import TextMultiModalModel
from textmm.open_clip_module import OpenClipModule
from textmm.text import PretrainedText
from textmm.tokenizers import BytePair
from textmm.transforms import fit, to_tensor

P = TypeVar("P")
R = TypeVar("R")

IMAGE_BATCH = 8
"""Pictures a forward pass: what fits a CPU's caches; larger was slower."""
TEXT_BATCH = 16
CAPTION_BATCH = 16


@dataclass(frozen=True)
class Caption:
    text: str
    score: float
    """Cosine of the caption with its picture."""


@dataclass(frozen=True, kw_only=True)
class CaptionDecoding:
    """How words of a caption are found; see `generate.Decoding`."""

    beams: int | None = None
    """None: those of the model, one where words are drawn."""
    temperature: float = 0.0
    """Above 0: words are drawn."""
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    min_length: int = 0
    max_length: int | None = None
    """Tokens at least and at most; None: as many as the decoder was trained for."""
    seed: int = 0


USUAL = CaptionDecoding()


@dataclass(frozen=True)
class Answer:
    text: str
    confidence: float
    """Probability of the answer: among all that could be said, or among the choices; 0..1."""
    free: float
    """Its probability among all that could be said."""


class Encoder:
    """Pictures and words -> float32 [n, embed_dim], C-contiguous, L2-normalised. Safe to share between
    threads.

    On a CPU the parts of a batch go to `threads` workers of one core each. Two cores on one small batch wait for
    each other at every layer, and on a busy machine a waiting core is a slow one: two workers were as fast on a
    quiet machine, twice as fast on a busy one.
    """

    def __init__(self, loaded: LoadedModel, *, device: str = "cpu", threads: int = 2) -> None:
        self._workers = ThreadPoolExecutor(
            threads if device == "cpu" else 1, "encoder", initializer=torch.set_num_threads, initargs=(1,)
        )
        self._model = loaded.model.eval().to(device)
        self._tokenizer = loaded.tokenizer
        self._captioner = loaded.captioner
        self._device = torch.device(device)
        self.model_id = loaded.model_id
        self.embed_dim = loaded.model.config.embed_dim
        self.calibration = loaded.calibration or Calibration(1 / self.logit_scale)
        if _fast_bfloat16(self._device):
            _to_bfloat16(self._model, products=_fast_bfloat16_products(self._device))

    @classmethod
    def load(
        cls, name: str, trunks: Path, *, models: Path | None = None, device: str = "cpu", threads: int = 2
    ) -> Encoder:
        """A bundled model by name, a checkpoint folder, or a published model whose files are in `models`.

        Raises ValueError, WeightsMissing.
        """
        published = open_clip_models.find(name, models)
        loaded = checkpoint.load(name, trunks) if published is None else open_clip_models.load(published)
        return cls(loaded, device=device, threads=threads)

    @property
    def styles(self) -> tuple[str, ...]:
        """Styles in which this model can caption; none for a model without a decoder."""
        decoder = self._model.config.multimodal_cfg
        return decoder.styles if decoder is not None and self._captioner is not None else ()

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Sizes of its vectors: those to which it was trained to be cut, and the whole."""
        return (*self._model.config.short_dims, self.embed_dim)

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by in the contrastive loss; `calibration` says what makes probabilities."""
        return float(self._model.scale().detach())

    @property
    def preprocessing(self) -> str:
        """What is done to a picture before the tower, as recorded with a generation."""
        config = self._model.config.vision_cfg
        return f"{config.resize_mode}-{config.image_size}"

    def shortened(self, dim: int) -> Encoder:
        """The same model with vectors of their first `dim` numbers. ValueError below 1 or beyond embed_dim."""
        if not 1 <= dim <= self.embed_dim:
            raise ValueError(f"{self.model_id} makes {self.embed_dim} numbers, {dim} cannot be kept of them")
        if dim == self.embed_dim:
            return self
        other = copy.copy(self)
        other.embed_dim, other.model_id = dim, f"{self.model_id}[:{dim}]"
        return other

    def in_background(self, nice: int) -> Encoder:
        """The same model with one worker of its own, which stands back behind the others (Unix niceness)."""
        other = copy.copy(self)
        other._workers = ThreadPoolExecutor(1, "encoder", initializer=stand_back, initargs=(1, nice))
        return other

    def fit(self, image: Image.Image) -> Image.Image:
        """The picture as the tower sees it. Cheap to encode later; may be called from any thread."""
        return fit(image, self._model.config.vision_cfg)

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        whole = _rows([e.features for e in self._images(images)], self.embed_dim)
        return shortened(whole, self.embed_dim)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Rows in the order of `texts`; batches are formed by length, so padding is short."""
        chunks = _by_length(texts)
        out = np.empty((len(texts), self.embed_dim), dtype=np.float32)
        parts = self._workers.map(self._encode_texts, ([texts[i] for i in at] for at in chunks))
        for at, rows in zip(chunks, parts, strict=True):
            out[at] = rows
        return out

    def read_texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What the text trunks make of texts before any head: float32 [n, P], side by side, and which of them could
        read each [n, trunks] bool."""
        model = self._model
        assert isinstance(model, TextMultiModalModel)
        with torch.inference_mode():
            out = model.text.trunk(tuple(t.to(self._device) for t in self._tokenizer(texts)))
        return out.pooled.float(), out.present

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens the model reads of each text."""
        return self._tokenizer.lengths(texts)

    def caption_images(
        self, images: Sequence[Image.Image], *, style: str = "photo", how: CaptionDecoding = USUAL
    ) -> list[Caption]:
        """A caption each, in order. ValueError when the model has no such style, or cannot decode so.

        Of the captions that a beam search finished the one is taken that scores best together with its likeness to the
        picture, as far as the model's `choice_weight` says.
        """
        if style not in self.styles:
            has = ", ".join(self.styles) or "none: it has no decoder"
            raise ValueError(f"style {style!r} is not one of this model's styles ({has})")
        encoded = self._images(images)
        if not encoded:
            return []
        whole = Encoded(torch.cat([e.features for e in encoded]), torch.cat([e.tokens for e in encoded]))
        texts = self._decode(whole, style, how)
        features = shortened(_rows([whole.features], self.embed_dim), self.embed_dim)
        scores = np.einsum("ij,ij->i", features, self.encode_texts(texts))
        return [Caption(text, float(score)) for text, score in zip(texts, scores, strict=True)]

    @property
    def asks(self) -> bool:
        """Whether this model answers questions."""
        decoder = self._model.config.multimodal_cfg
        return decoder is not None and decoder.questions and self._captioner is not None

    def answer(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[Answer]:
        """A free answer to each picture's question, in order. ValueError when this model answers none."""
        words, decoder = self._asked()
        how = self._decoding(words, start=words.style_token_id(ANSWER), beams=1)

        def of(tokens: Tensor, _: Sequence[str]) -> list[Answer]:
            said = generate.decode(decoder, tokens, how)
            wholes = [[[*row, words.end_token_id]] for row in said]
            log_p = generate.score(decoder, tokens, [[how.start_token_id]] * len(said), wholes)
            rows = zip(said, log_p, strict=True)
            return [Answer(words.decode(row), math.exp(p), math.exp(p)) for row, (p,) in rows]

        return self._asking(of, images, questions, questions)

    def rank_answers(
        self, images: Sequence[Image.Image], questions: Sequence[str], choices: Sequence[Sequence[str]]
    ) -> list[list[Answer]]:
        """The choices of each picture's question, the most probable first; their confidences add up to 1."""
        words, decoder = self._asked()
        start = words.style_token_id(ANSWER)

        def of(tokens: Tensor, some: Sequence[Sequence[str]]) -> list[list[Answer]]:
            answers = [words.continuations(of_one) for of_one in some]
            log_p = generate.score(decoder, tokens, [[start]] * len(some), answers)
            out = []
            for row, of_one in zip(log_p, some, strict=True):
                shares = torch.softmax(torch.tensor(row, dtype=torch.float64), 0).tolist()
                made = [Answer(*one) for one in zip(of_one, shares, map(math.exp, row), strict=True)]
                out.append(sorted(made, key=lambda one: -one.confidence))
            return out

        return self._asking(of, images, questions, choices)

    def _asked(self) -> tuple[BytePair, TextDecoder]:
        words, decoder = self._captioner, self._model.decoder
        if not self.asks or not isinstance(words, BytePair) or not isinstance(decoder, TextDecoder):
            raise ValueError(f"model {self.model_id} was not trained to answer questions")
        return words, decoder

    def _asking(
        self,
        work: Callable[[Tensor, Sequence[P]], list[R]],
        images: Sequence[Image.Image],
        questions: Sequence[str],
        given: Sequence[P],
    ) -> list[R]:
        """`work` on the tokens of some pictures with their questions, and on what is given for each, in the workers;
        results in order."""
        if not len(images) == len(questions) == len(given):
            raise ValueError(f"{len(images)} pictures need a question each, got {len(questions)}")
        if not images:
            return []
        features, tokens = (torch.cat(parts) for parts in zip(*self._images(images), strict=True))

        def part(start: int) -> list[R]:
            rows = slice(start, start + CAPTION_BATCH)
            asked = self._with_questions(Encoded(features[rows], tokens[rows]), questions[rows])
            return work(asked, given[rows])

        starts = range(0, len(images), CAPTION_BATCH)
        return [one for found in self._workers.map(part, starts) for one in found]

    def _with_questions(self, images: Encoded, questions: Sequence[str]) -> Tensor:
        model = self._model
        assert isinstance(model, TextMultiModalModel)
        with torch.inference_mode():
            tokens = tuple(t.to(self._device) for t in self._tokenizer(questions))
            return model.encode_question(images, model.text.trunk(tokens))

    def _images(self, images: Sequence[Image.Image]) -> list[Encoded]:
        chunks = [images[i : i + IMAGE_BATCH] for i in range(0, len(images), IMAGE_BATCH)]
        return list(self._workers.map(self._encode_images, chunks))

    def _encode_images(self, images: Sequence[Image.Image]) -> Encoded:
        with torch.inference_mode():
            pixels = to_tensor(images, self._model.config.vision_cfg)
            return self._model.encode_image(pixels.to(self._device))

    def _encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with torch.inference_mode():
            tokens = tuple(t.to(self._device) for t in self._tokenizer(texts))
            rows: NDArray[np.float32] = self._model.encode_text(tokens).features.cpu().numpy()
            return shortened(rows, self.embed_dim)

    def decoding(self, style: str, how: CaptionDecoding = USUAL) -> generate.Decoding:
        """How captions of that style are decoded. ValueError for wishes that do not go together."""
        words, config = self._captioner, self._model.config.multimodal_cfg
        assert words is not None and config is not None
        most, beams = words.context_length - 1, how.beams
        if how.max_length is not None and not how.min_length < how.max_length <= most:
            raise ValueError(
                f"max_length must be above min_length {how.min_length} and at most {most}, got {how.max_length}"
            )
        if beams is None:
            beams = 1 if how.temperature > 0 else config.beams
        return replace(
            self._decoding(words, start=words.style_token_id(style), beams=beams),
            temperature=how.temperature,
            top_p=how.top_p,
            repetition_penalty=how.repetition_penalty,
            min_length=how.min_length,
            max_length=(most if how.max_length is None else how.max_length) + 1,  # the start token counts
            seed=how.seed,
            early_stopping=bool(config.choice_weight),  # few of what is finished later would be chosen
        )

    def _decode(self, pictures: Encoded, style: str, asked: CaptionDecoding) -> list[str]:
        words, decoder, config = self._captioner, self._model.decoder, self._model.config.multimodal_cfg
        assert words is not None and decoder is not None and config is not None
        how = self.decoding(style, asked)

        def part(start: int) -> list[str]:
            features, tokens = (rows[start : start + CAPTION_BATCH] for rows in pictures)
            if how.beams == 1 or not config.choice_weight:
                return [words.decode(row) for row in generate.decode(decoder, tokens, how)]
            found = generate.candidates(decoder, tokens, how)
            return self._choose(
                features,
                [[(words.decode(one.words), one.score) for one in of_one] for of_one in found],
                config.choice_weight,
            )

        starts = range(0, len(pictures.tokens), CAPTION_BATCH)
        return [text for said in self._workers.map(part, starts) for text in said]

    def _choose(
        self, features: Tensor, said: Sequence[Sequence[tuple[str, float]]], weight: float
    ) -> list[str]:
        """Of each picture's captions the one whose score and likeness to the picture, times `weight`, are most."""
        model = self._model
        assert isinstance(model, TextMultiModalModel)
        texts = [text for of_one in said for text, _ in of_one]
        picture = [i for i, of_one in enumerate(said) for _ in of_one]
        totals = np.array([score for of_one in said for _, score in of_one])
        with torch.inference_mode():
            tokens = self._tokenizer(texts)
            rows = model.text.skim(tuple(t.to(self._device) for t in tokens))  # [len(texts), E]
            totals += weight * (features[picture] * rows).sum(1).cpu().numpy()
        parts = np.split(totals, np.cumsum([len(of_one) for of_one in said])[:-1])
        return [of_one[int(part.argmax())][0] for of_one, part in zip(said, parts, strict=True)]

    @staticmethod
    def _decoding(words: BytePair | ClipTokenizer, *, start: int, beams: int) -> generate.Decoding:
        return generate.Decoding(
            start_token_id=start,
            end_token_id=words.end_token_id,
            pad_token_id=words.pad_token_id,
            never=tuple(words.start_token_ids),
            beams=beams,
            max_length=words.context_length,
        )


def _by_length(texts: Sequence[str]) -> list[list[int]]:
    """Batches of texts of about one length, so that padding is short."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    return [order[i : i + TEXT_BATCH] for i in range(0, len(order), TEXT_BATCH)]


def stand_back(threads: int, nice: int) -> None:
    """Of this thread, and of the `threads` that torch makes for it: the others go first."""
    torch.set_num_threads(threads)
    if sys.platform == "linux":  # where niceness is a thread's, not the whole process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


def shortened(rows: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """The first `dim` numbers of each row, normalised again: a slice of a unit vector is shorter than 1."""
    if dim == rows.shape[1]:
        return rows
    cut = rows[:, :dim]
    short: NDArray[np.float32] = cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
    return short


def _rows(parts: list[Tensor], embed_dim: int) -> NDArray[np.float32]:
    if not parts:
        return np.empty((0, embed_dim), dtype=np.float32)
    return np.ascontiguousarray(torch.cat(parts).float().cpu().numpy())


def _to_bfloat16(model: TextMultiModalModel | OpenClipModule, *, products: bool) -> None:
    """Locked trunks to bfloat16: the convolutions, BERT's matrices; heads stay float32. Without `products` only the
    first convolutions, where there is more to move than to multiply."""
    if isinstance(model, OpenClipModule):
        return
    image, text = model.image, model.text
    if isinstance(image, CNN):
        image.features.to_bfloat16(whole=products)
    if products and isinstance(text, PretrainedText):
        for trunk in text.trunks:
            if isinstance(trunk, Bert):
                trunk.to(torch.bfloat16)


def _fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 here: a GPU, or a processor with instructions for it."""
    return _has(device, "_is_avx512_bf16_supported")


def _fast_bfloat16_products(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 here: a GPU, a processor with AMX, or one of
    AMD's, which multiply more of them a cycle where another with avx512_bf16 took longer."""
    return _has(device, "_is_amx_tile_supported") or (_fast_bfloat16(device) and _is_amd())


def _has(device: torch.device, asked: str) -> bool:
    """What `torch.cpu` answers when asked; a GPU has everything, a torch that does not know the question nothing."""
    return device.type != "cpu" or bool(getattr(torch.cpu, asked, lambda: False)())


def _is_amd() -> bool:
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return str(capabilities.get("cpu_name", "")).startswith("AMD")
