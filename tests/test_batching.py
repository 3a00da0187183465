import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from search.batching import Batching
from search.errors import NotReady, Overloaded
from tests.drawn import COLOURS, SHAPES, draw
from textmm.encoder import Encoder

TEXTS = [f"a {colour} {shape}" for shape in SHAPES for colour in COLOURS]
MANY = [f"number {i}" for i in range(6000)]
"""Keeps the tiny model busy for a good part of a second."""


@pytest.fixture
def batching(encoder: Encoder) -> Iterator[Batching]:
    batching = Batching(encoder, queue=10_000)
    yield batching
    batching.close()


def start(pool: ThreadPoolExecutor, batching: Batching) -> Future[NDArray[np.float32]]:
    """A call with MANY texts, most of which wait when this returns. The queue must be short."""

    def insist() -> NDArray[np.float32]:
        while True:
            try:
                return batching.encode_texts(MANY)
            except Overloaded:  # the question below was there first
                continue

    long = pool.submit(insist)
    while not long.done():
        try:
            batching.encode_texts(["is it full?"])
        except Overloaded:
            return long
    raise AssertionError("the long call was over before it was noticed")


def test_one_caller_gets_what_the_encoder_makes(batching: Batching, encoder: Encoder) -> None:
    pictures = [draw(shape, "red") for shape in SHAPES]

    np.testing.assert_allclose(batching.encode_texts(TEXTS), encoder.encode_texts(TEXTS), atol=1e-6)
    np.testing.assert_allclose(batching.encode_images(pictures), encoder.encode_images(pictures), atol=1e-5)


def test_nothing_in_is_nothing_out(batching: Batching, encoder: Encoder) -> None:
    assert batching.encode_texts([]).shape == (0, encoder.embed_dim)
    assert batching.encode_images([]).shape == (0, encoder.embed_dim)


def test_a_caller_with_more_than_a_batch_gets_its_rows_in_order(batching: Batching, encoder: Encoder) -> None:
    texts = TEXTS * 20

    np.testing.assert_allclose(batching.encode_texts(texts), encoder.encode_texts(texts), atol=1e-5)


def test_many_callers_get_their_own_rows(batching: Batching, encoder: Encoder) -> None:
    expected = encoder.encode_texts(TEXTS)

    with ThreadPoolExecutor(16) as pool:
        calls = [[i % 16, (i * 7) % 16, (i * 3) % 16][: 1 + i % 3] for i in range(64)]
        answers = list(pool.map(lambda call: batching.encode_texts([TEXTS[i] for i in call]), calls))

    for call, rows in zip(calls, answers, strict=True):
        np.testing.assert_allclose(rows, expected[call], atol=1e-5)


def test_an_input_that_breaks_the_model_hurts_its_own_caller_only(
    batching: Batching, encoder: Encoder
) -> None:
    grey = Image.new("L", (32, 32))  # no three channels: the model cannot take it
    good = [draw(shape, colour) for shape in SHAPES for colour in COLOURS]
    expected = encoder.encode_images(good)
    together = threading.Barrier(20)

    def ask(picture: Image.Image) -> NDArray[np.float32] | str:
        together.wait()
        try:
            row: NDArray[np.float32] = batching.encode_images([picture])[0]
            return row
        except Exception as error:
            return type(error).__name__

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, [*good, grey, grey, grey, grey]))

    np.testing.assert_allclose(np.stack([np.asarray(a) for a in answers[:16]]), expected, atol=1e-5)
    assert all(isinstance(answer, str) for answer in answers[16:])


def test_what_waits_beyond_the_queue_is_refused_at_once_and_the_rest_is_answered(encoder: Encoder) -> None:
    batching = Batching(encoder, queue=8)

    with ThreadPoolExecutor(1) as pool:
        long = start(pool, batching)  # a caller that finds nobody waiting is never refused
        with pytest.raises(Overloaded, match="the queue holds 8"):
            batching.encode_texts(["one more"])
        rows = long.result()
    after = batching.encode_texts(["one more"])
    batching.close()

    assert (rows.shape, after.shape) == ((len(MANY), encoder.embed_dim), (1, encoder.embed_dim))


def test_close_finishes_what_waits(encoder: Encoder) -> None:
    batching = Batching(encoder, queue=8)

    with ThreadPoolExecutor(1) as pool:
        waiting = start(pool, batching)
        batching.close()
        rows = waiting.result(timeout=60)

    np.testing.assert_allclose(rows, encoder.encode_texts(MANY), atol=1e-5)


def test_a_closed_one_refuses_instead_of_waiting_for_ever(encoder: Encoder) -> None:
    batching = Batching(encoder, queue=8)
    batching.close()

    with pytest.raises(NotReady, match="stopping"):
        batching.encode_texts(["too late"])
