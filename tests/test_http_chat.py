"""The chat route through the client that people have for it, and through the bare wire. What it understands with a real
model is in test_dialogue.py."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from search import client
from search.app import close, create_app
from search.client import Client
from search.config import Config
from search.dialogue import PREPARED_AT_ONCE, Dialogue
from search.engine import SearchEngine
from search.intents import phrasings
from search.operations import Question
from tests.drawn import draw, encoded
from tests.refusals import refusal
from textmm.encoder import Encoder

RED = f"data:image/png;base64,{base64.b64encode(encoded(draw('circle', 'red'))).decode()}"
ASK: list[Any] = [{"role": "user", "content": "show me a red circle"}]


@pytest.fixture
def ai(demo_server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo_server}/v1", api_key="any", max_retries=0) as ai:
        yield ai


@pytest.fixture
def wire(demo_server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{demo_server}/v1", timeout=60) as wire:
        yield wire


def test_the_answer_has_openais_shape(wire: httpx.Client, encoder: Encoder) -> None:
    body = wire.post("/chat/completions", json={"model": "tiny/shop", "messages": ASK}).json()

    (choice,) = body.pop("choices")
    usage = body.pop("usage")
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > 1_700_000_000
    assert body == {"model": encoder.model_id, "object": "chat.completion"}
    assert (choice["index"], choice["finish_reason"], choice["message"]["role"]) == (0, "stop", "assistant")
    assert usage["prompt_tokens"] == encoder.count_tokens([ASK[0]["content"]])[0]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert choice["message"]["textmm"]["collection"] == "shop"


def test_a_stream_says_what_the_whole_answer_says(ai: openai.OpenAI) -> None:
    how: dict[str, Any] = {"model": "tiny", "messages": ASK, "extra_body": {"collection": "shop"}}
    whole = ai.chat.completions.create(**how)
    events = list(ai.chat.completions.create(**how, stream=True, stream_options={"include_usage": True}))

    said = [choice.delta.content or "" for event in events for choice in event.choices]
    assert "".join(said) == whole.choices[0].message.content
    assert [c.finish_reason for event in events for c in event.choices][-1] == "stop"
    assert events[-2].choices[0].delta.textmm == whole.choices[0].message.textmm
    assert events[-1].usage == whole.usage


def test_harmless_fields_are_accepted_and_an_answer_may_be_sent_back(ai: openai.OpenAI) -> None:
    first = ai.chat.completions.create(
        model="tiny/shop", messages=ASK, temperature=0.2, max_tokens=50, user="me"
    )
    again = [*ASK, first.choices[0].message, {"role": "user", "content": "more like the second"}]
    second = ai.chat.completions.create(model="tiny/shop", messages=again, seed=1, top_p=0.5)

    assert second.choices[0].message.content


def test_answers_go_back_as_they_came_from_our_own_client_too(demo_server: str) -> None:
    with Client(demo_server) as remote:
        first = remote.chat("show me circles", model="tiny", collection="shop")
        answer = first.choices[0].message
        asked = ({"role": "user", "content": said} for said in ("show me circles", "more like the 2nd"))
        more: list[Any] = [next(asked), answer, next(asked)]
        second = remote.chat(more, model="tiny/shop")

    assert answer.textmm is not None and second.choices[0].message.textmm is not None
    search = second.choices[0].message.textmm.search
    assert search is not None and search.image_key == answer.textmm.hits[1].key


def test_a_model_may_be_called_as_the_settings_call_it(
    config: Config, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = replace(config, model=replace(config.model, name="ViT-B-32/own"))
    app = create_app(named, encoder=encoder)
    with Client("http://test", transport=httpx.WSGITransport(app=app)) as remote:
        remote.put_collection("shop")
        vectors = remote.embed("red", model="ViT-B-32/own")
        answer = remote.chat("a red circle", model="ViT-B-32/own/shop")
        alone = remote.chat("a red circle", model="ViT-B-32/own", collection="shop")
        with pytest.raises(client.NotFound):
            remote.chat("a red circle", model="ViT-B-32/other/shop")
    close(app)

    assert len(vectors[0]) == encoder.embed_dim
    for one in (answer, alone):
        assert (
            one.choices[0].message.textmm is not None and one.choices[0].message.textmm.collection == "shop"
        )


@pytest.mark.parametrize(("least", "says"), [(0.0, "colour: red"), (1.0, "It looks like this")])
def test_of_a_model_that_answers_nothing_the_nearest_value_is_told_if_it_is_probable_enough(
    config: Config, encoder: Encoder, pictures: Path, monkeypatch: pytest.MonkeyPatch, least: float, says: str
) -> None:
    monkeypatch.setattr(encoder, "calibration", replace(encoder.calibration, answer_at_least=least))
    app = create_app(config, encoder=encoder)
    question: list[Any] = [
        {"type": "text", "text": "what colour is it?"},
        {"type": "image_url", "image_url": {"url": RED}},
    ]
    with Client("http://test", transport=httpx.WSGITransport(app=app)) as remote:
        remote.put_collection("shop")
        for colour in ("red", "blue"):
            attributes = {"colour": colour}
            remote.put_image("shop", colour, encoded(draw("circle", colour)), attributes=attributes)
        monkeypatch.setattr(
            "search.dialogue.understood", lambda *_: Question(None)
        )  # tiny understands little
        monkeypatch.setattr(Dialogue, "attribute_asked", lambda self, say, names: "colour")
        answer = remote.chat([{"role": "user", "content": question}], model="tiny", collection="shop")
    close(app)

    said = answer.choices[0].message.content
    assert says in said and said.startswith("I do not know.") == (least == 1.0)


def test_a_picture_alone_is_described(wire: httpx.Client) -> None:
    content = [{"type": "image_url", "image_url": {"url": RED, "detail": "low"}}]
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
    message = wire.post("/chat/completions", json=body).json()["choices"][0]["message"]

    assert message["textmm"]["operation"] == "describe"
    assert "red" in message["content"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tools": [{"type": "function"}]}, (400, "invalid_request", "tools")),
        ({"n": 2}, (400, "invalid_request", "n")),
        ({"response_format": {"type": "json_object"}}, (400, "invalid_request", "response_format")),
        ({"logprobs": True}, (400, "invalid_request", "logprobs")),
        ({"stop": ["x"]}, (400, "invalid_request", "stop")),
        ({"colour": "red"}, (400, "invalid_request", "colour")),
        ({"k": 0}, (400, "invalid_request", "k")),
        ({"model": "gpt-4o"}, (404, "not_found", "model")),
        ({"collection": "none"}, (404, "not_found", "collection")),
        ({"model": "tiny/shop", "collection": "other"}, (400, "invalid_request", "collection")),
        ({"caption_style": "poem"}, (400, "invalid_request", "caption_style")),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": RED}}] * 257}
                ]
            },
            (413, "too_large", "messages[0].content"),
        ),
        ({"messages": []}, (400, "invalid_request", "messages")),
        ({"messages": [{"role": "assistant", "content": "hello"}]}, (400, "invalid_request", "messages")),
        ({"messages": [{"role": "user", "content": []}]}, (400, "invalid_request", "messages[0].content")),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}],
                    }
                ]
            },
            (400, "invalid_request", "messages[0].content[0].image_url.url"),
        ),
    ],
)
def test_a_bad_request_is_refused(
    wire: httpx.Client, fields: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    body = {"model": "tiny", "messages": ASK, "collection": "shop", **fields}

    assert refusal(wire.post("/chat/completions", json=body)) == expected


def test_phrasings_are_encoded_before_the_first_turn_unless_the_server_stops(engine: SearchEngine) -> None:
    stopped, dialogue = Dialogue(engine), Dialogue(engine)
    says_stop = iter([False, False, True])

    stopped.prepare(lambda: next(says_stop))
    dialogue.prepare()

    assert (
        len(stopped._rows)
        <= 2 * PREPARED_AT_ONCE
        < len({p.filled for p in phrasings()})
        <= len(dialogue._rows)
    )
    assert stopped._intents is None and dialogue._intents is not None
