"""The embeddings route through the client that people have for it, and through the bare wire."""

import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from tests.drawn import COLOURS, SHAPES, draw, encoded
from tests.refusals import refusal
from textmm.encoder import Encoder

TEXTS = ["a red circle", "a blue cross", "a mug", "a red circle"]


def data_uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


RED = data_uri(encoded(draw("circle", "red")))
BLUE = data_uri(encoded(draw("cross", "blue")))
BROKEN = data_uri(b"\x89PNG\r\n\x1a\n and no more")
BOMB = data_uri(encoded(draw("circle", "red").resize((8000, 8000)), "PNG"))


def rows(answer: openai.types.CreateEmbeddingResponse) -> NDArray[np.float32]:
    assert [row.index for row in answer.data] == list(range(len(answer.data)))
    return np.array([row.embedding for row in answer.data], dtype=np.float32)


@pytest.fixture
def ai(demo_server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo_server}/v1", api_key="any", max_retries=0) as ai:
        yield ai


@pytest.fixture
def wire(demo_server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{demo_server}/v1") as wire:
        yield wire


def test_texts_become_the_encoders_vectors_in_order(ai: openai.OpenAI, encoder: Encoder) -> None:
    answer = ai.embeddings.create(model="tiny", input=TEXTS)  # base64 on the wire: the client's default

    np.testing.assert_allclose(rows(answer), encoder.encode_texts(TEXTS), atol=1e-6)
    assert answer.model == encoder.model_id
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(encoder.count_tokens(TEXTS))


def test_floats_are_the_numbers_of_base64(ai: openai.OpenAI) -> None:
    floats = ai.embeddings.create(model="tiny", input=TEXTS, encoding_format="float")
    packed = ai.embeddings.create(model="tiny", input=TEXTS, encoding_format="base64")

    unpacked = [np.frombuffer(base64.b64decode(str(row.embedding)), dtype="<f4") for row in packed.data]
    assert rows(floats).tolist() == np.array(unpacked).tolist()


def test_one_text_may_come_without_a_list(ai: openai.OpenAI, encoder: Encoder) -> None:
    answer = ai.embeddings.create(model=encoder.model_id, input="a mug")

    np.testing.assert_allclose(rows(answer), encoder.encode_texts(["a mug"]), atol=1e-6)


def test_texts_and_pictures_mix_in_one_request(ai: openai.OpenAI, encoder: Encoder) -> None:
    answer = ai.embeddings.create(model="tiny", input=["a mug", RED, "a red circle", BLUE])

    texts = encoder.encode_texts(["a mug", "a red circle"])
    images = encoder.encode_images([draw("circle", "red"), draw("cross", "blue")])
    expected = np.stack([texts[0], images[0], texts[1], images[1]])
    np.testing.assert_allclose(rows(answer), expected, atol=1e-5)
    assert answer.usage.prompt_tokens == sum(encoder.count_tokens(["a mug", "a red circle"]))


def test_modality_image_takes_bare_base64_and_modality_text_takes_a_data_uri_as_words(
    wire: httpx.Client, encoder: Encoder
) -> None:
    bare = RED.partition(",")[2]
    picture = wire.post("/embeddings", json={"model": "tiny", "input": bare, "modality": "image"}).json()
    words = wire.post("/embeddings", json={"model": "tiny", "input": RED, "modality": "text"}).json()

    expected = encoder.encode_images([draw("circle", "red")])[0]
    np.testing.assert_allclose(picture["data"][0]["embedding"], expected, atol=1e-5)
    np.testing.assert_allclose(words["data"][0]["embedding"], encoder.encode_texts([RED])[0], atol=1e-5)


def test_shorter_vectors_are_the_first_numbers_normalised_again(ai: openai.OpenAI, encoder: Encoder) -> None:
    answer = ai.embeddings.create(model="tiny", input=TEXTS, dimensions=8)

    cut = encoder.encode_texts(TEXTS)[:, :8]
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    np.testing.assert_allclose(rows(answer), expected, atol=1e-6)


def test_the_answer_has_openais_shape(wire: httpx.Client, encoder: Encoder) -> None:
    body = wire.post("/embeddings", json={"model": "tiny", "input": "a mug", "user": "me"}).json()

    numbers = body["data"][0].pop("embedding")
    tokens = encoder.count_tokens(["a mug"])[0]
    assert body == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0}],
        "model": encoder.model_id,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    assert len(numbers) == encoder.embed_dim


def test_models_lists_the_one_that_is_served(ai: openai.OpenAI, encoder: Encoder) -> None:
    (listed,) = ai.models.list().data

    assert (listed.id, listed.object, listed.owned_by) == (encoder.model_id, "model", "textmm")
    assert listed.created > 1_700_000_000
    assert ai.models.retrieve("tiny") == ai.models.retrieve(encoder.model_id) == listed


def test_another_model_is_not_found_never_replaced(ai: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'text-embedding-3-small'") as caught:
        ai.embeddings.create(model="text-embedding-3-small", input="a mug")
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        ai.models.retrieve("gpt")

    assert (caught.value.code, caught.value.param) == ("not_found", "model")


def test_what_openai_refuses_becomes_its_bad_request_error(ai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"dimensions is 33, tiny-.* makes 32") as caught:
        ai.embeddings.create(model="tiny", input="a mug", dimensions=33)

    assert (caught.value.code, caught.value.param) == ("invalid_request", "dimensions")
    assert caught.value.type == "invalid_request_error"


def test_a_broken_picture_is_named_by_its_place_and_the_next_request_is_fine(ai: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match=r"input\[2\]: not a picture") as caught:
        ai.embeddings.create(model="tiny", input=["a mug", RED, BROKEN, BLUE])

    assert (caught.value.code, caught.value.param) == ("image_unreadable", "input[2]")
    assert len(ai.embeddings.create(model="tiny", input=["a mug", RED, BLUE]).data) == 3


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"input": []}, (400, "invalid_request", "input")),
        ({"input": ["a", " "]}, (400, "invalid_request", "input[1]")),
        ({"input": ""}, (400, "invalid_request", "input[0]")),
        ({"input": [1, 2, 3]}, (400, "invalid_request", "input")),
        ({"input": [[1, 2], [3]]}, (400, "invalid_request", "input")),
        ({"input": None}, (400, "invalid_request", "input")),
        ({"input": ["a"] * 257}, (413, "too_large", "input")),
        ({"input": "a", "dimensions": 0}, (400, "invalid_request", "dimensions")),
        ({"input": "a", "encoding_format": "hex"}, (400, "invalid_request", "encoding_format")),
        ({"input": "a", "modality": "audio"}, (400, "invalid_request", "modality")),
        ({"input": "a", "truncate": True}, (400, "invalid_request", "truncate")),
        ({"input": ["https://example.org/a.png"], "modality": "image"}, (400, "invalid_request", "input[0]")),
        ({"input": [RED, "not base64!"], "modality": "image"}, (400, "invalid_request", "input[1]")),
        ({"input": ["a", BOMB]}, (413, "too_large", "input[1]")),
    ],
)
def test_a_bad_request_is_refused(
    wire: httpx.Client, fields: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    assert refusal(wire.post("/embeddings", json={"model": "tiny", **fields})) == expected


def test_a_form_is_no_embeddings_request(wire: httpx.Client) -> None:
    answer = wire.post("/embeddings", files={"image": b"x"})

    assert refusal(answer) == (415, "unsupported_media_type", None)


def test_neighbours_of_a_broken_picture_get_their_own_vectors(demo_server: str, encoder: Encoder) -> None:
    pictures = [draw(shape, colour) for shape in SHAPES for colour in COLOURS]
    expected = encoder.encode_images(pictures)
    together = threading.Barrier(16)

    def ask(i: int) -> NDArray[np.float32] | int:
        given = BROKEN if i % 4 == 3 else data_uri(encoded(pictures[i]))
        together.wait()
        body = {"model": "tiny", "input": [given, "a mug"]}
        answer = httpx.post(f"{demo_server}/v1/embeddings", json=body, timeout=60)
        if answer.status_code != 200:
            return answer.status_code
        return np.array(answer.json()["data"][0]["embedding"], dtype=np.float32)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))

    assert [answers[i] for i in (3, 7, 11, 15)] == [422] * 4
    for i in sorted(set(range(16)) - {3, 7, 11, 15}):
        np.testing.assert_allclose(np.asarray(answers[i]), expected[i], atol=1e-5)
