"""Many callers, one forward pass: texts and pictures that wait at the same time are encoded together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.errors import NotReady, Overloaded
from textmm.encoder import USUAL, Answer, Caption, CaptionDecoding, Encoder

Rows = NDArray[np.float32]
T = TypeVar("T")
R = TypeVar("R", Rows, list[Caption], list[list[Answer]])


class Batching:
    """An Encoder for many threads. Pictures are decoded by their own callers, so a bad one never gets here."""

    def __init__(self, encoder: Encoder, *, queue: int) -> None:
        """`queue`: inputs that may wait; beyond it callers get Overloaded."""
        self._encoder = encoder
        self._texts = _Queue(encoder.encode_texts, queue, most=64)
        self._images = _Queue(encoder.encode_images, queue, most=32)
        self._captions = _Queue(self._caption, queue, most=32)
        self._answers = _Queue(self._answer, queue, most=32)

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        return np.concatenate(self._texts.run(texts))

    def encode_images(self, images: Sequence[Image.Image]) -> Rows:
        return np.concatenate(self._images.run(images))

    def caption_images(
        self, images: Sequence[Image.Image], *, style: str, how: CaptionDecoding = USUAL
    ) -> list[Caption]:
        asked = [(image, (style, how)) for image in images]
        return [made for part in self._captions.run(asked) for made in part]

    def answer(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[Answer]:
        return [one for (one,) in self.rank_answers(images, questions, [()] * len(images))]

    def rank_answers(
        self, images: Sequence[Image.Image], questions: Sequence[str], choices: Sequence[Sequence[str]]
    ) -> list[list[Answer]]:
        """As the encoder's; without choices, the one free answer."""
        asked = list(zip(images, questions, choices, strict=True))
        return [of_one for part in self._answers.run(asked) for of_one in part]

    def close(self) -> None:
        for queue in (self._texts, self._images, self._captions, self._answers):
            queue.close()

    def _caption(self, asked: Sequence[tuple[Image.Image, tuple[str, CaptionDecoding]]]) -> list[Caption]:
        made: dict[int, Caption] = {}
        for wish in dict.fromkeys(wish for _, wish in asked):
            at = [i for i, one in enumerate(asked) if one[1] == wish]
            style, how = wish
            captions = self._encoder.caption_images([asked[i][0] for i in at], style=style, how=how)
            made |= dict(zip(at, captions, strict=True))
        return [made[i] for i in range(len(asked))]

    def _answer(self, asked: Sequence[tuple[Image.Image, str, Sequence[str]]]) -> list[list[Answer]]:
        made: dict[int, list[Answer]] = {}
        for free in (True, False):
            at = [i for i, (_, _, choices) in enumerate(asked) if bool(choices) != free]
            images, questions = [asked[i][0] for i in at], [asked[i][1] for i in at]
            if free:
                found = [[one] for one in self._encoder.answer(images, questions)] if at else []
            else:
                choices = [asked[i][2] for i in at]
                found = self._encoder.rank_answers(images, questions, choices) if at else []
            made |= dict(zip(at, found, strict=True))
        return [made[i] for i in range(len(asked))]


class _Queue(Generic[T, R]):
    """A thread that takes what has come while it was busy, up to `most` inputs at a time."""

    def __init__(self, encode: Callable[[Sequence[T]], R], limit: int, *, most: int) -> None:
        self._encode: Callable[[Sequence[T]], R] = encode
        self._limit, self._most = limit, most
        self._waiting: deque[tuple[Sequence[T], Future[R]]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    def run(self, inputs: Sequence[T]) -> list[R]:
        """What becomes of the inputs, in order, part by part. Raises Overloaded, and NotReady once it is closed."""
        parts = [inputs[i : i + self._most] for i in range(0, len(inputs), self._most)] or [inputs]
        futures: list[Future[R]] = [Future() for _ in parts]
        with self._wake:
            if self._closed:
                raise NotReady("the server is stopping")
            waiting = sum(len(i) for i, _ in self._waiting)
            if waiting and waiting + len(inputs) > self._limit:
                raise Overloaded(
                    f"{waiting} inputs wait for the model, the queue holds {self._limit}: try again soon"
                )
            self._waiting.extend(zip(parts, futures, strict=True))
            self._wake.notify()
        return [future.result() for future in futures]

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                batch = [self._waiting.popleft()]
                while (
                    self._waiting and sum(len(i) for i, _ in batch) + len(self._waiting[0][0]) <= self._most
                ):
                    batch.append(self._waiting.popleft())
            self._encode_batch(batch)

    def _encode_batch(self, batch: list[tuple[Sequence[T], Future[R]]]) -> None:
        try:
            rows = self._encode([one for inputs, _ in batch for one in inputs])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:  # whoever's input broke it must not take its neighbours down
                for one in batch:
                    self._encode_batch([one])
            return
        at = 0
        for inputs, future in batch:
            future.set_result(rows[at : at + len(inputs)])
            at += len(inputs)
