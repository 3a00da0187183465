import base64
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from search.client import Client
from tests.drawn import draw, encoded
from tests.hostile import claiming
from tests.refusals import refusal
from textmm.encoder import Encoder

RED_CIRCLE = encoded(draw("circle", "red"))
JPEG = encoded(draw("circle", "red"), "JPEG")


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def wire(demo_server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo_server) as wire:
        yield wire


BAD_SEARCHES: list[tuple[dict[str, Any], tuple[int, str, str | None]]] = [
    ({"text": "x", "collection": "nowhere"}, (404, "not_found", "collection")),
    ({"text": "x", "colour": "red"}, (400, "invalid_request", "colour")),
    ({"text": "x", "k": 0}, (400, "invalid_request", "k")),
    ({"text": "x", "k": -1}, (400, "invalid_request", "k")),
    ({"text": "x", "k": 1001}, (400, "invalid_request", "k")),
    ({"text": "x", "k": "ten"}, (400, "invalid_request", "k")),
    ({}, (400, "invalid_request", None)),
    ({"text": "x", "image_key": "red-circle.png"}, (400, "invalid_request", None)),
    ({"text": "x", "vector": [1.0] * 32}, (400, "invalid_request", None)),
    ({"text": ""}, (400, "invalid_request", "text")),
    ({"text": " \n\t"}, (400, "invalid_request", "text")),
    ({"text": "x" * 20_001}, (400, "invalid_request", "text")),
    ({"text": 3}, (400, "invalid_request", "text")),
    ({"image_key": "no.png"}, (404, "not_found", "image_key")),
    ({"vector": []}, (400, "invalid_request", "vector")),
    ({"vector": [1.0] * 31}, (400, "invalid_request", "vector")),
    ({"vector": [0.0] * 32}, (400, "invalid_request", "vector")),
    ({"vector": ["a"] * 32}, (400, "invalid_request", "vector[0]")),
    ({"text": "x", "filter": {"size": "xl"}}, (400, "invalid_request", "filter")),
    ({"text": "x", "filter": {"colour": None}}, (400, "invalid_request", "filter")),
    ({"text": "x", "filter": {"colour": [["red"]]}}, (400, "invalid_request", "filter")),
    ({"text": "x", "filter": "colour="}, (400, "invalid_request", "filter")),
    ({"text": "x", "filter": ""}, (400, "invalid_request", "filter")),
    ({"text": "x", "filter": {"number": "many"}}, (400, "invalid_request", "filter")),
    ({"text": "x", "facets": ["size"]}, (400, "invalid_request", "facets")),
    ({"text": "x", "facets": [{"colour": [1]}]}, (400, "invalid_request", "facets")),
    ({"text": "x", "facets": [3]}, (400, "invalid_request", "facets[0]")),
    ({"text": "x", "facets": ["colour", {"colour": []}]}, (400, "invalid_request", "facets")),
    ({"text": "x", "facets": [{f"a{i}": [] for i in range(21)}]}, (400, "invalid_request", "facets")),
    ({"text": "x", "facets": [{"number": [10**400]}]}, (400, "invalid_request", "facets")),
    ({"text": "x", "facets": [{"number": [*range(101)]}]}, (400, "invalid_request", "facets[0]")),
    ({"text": "x", "filter": {"number": 10**400}}, (400, "invalid_request", "filter")),
    ({"text": "x", "filter": "x" * 20_001}, (400, "invalid_request", "filter")),
    ({"text": "x", "target": "words"}, (400, "invalid_request", "target")),
    ({"text": "x", "captions": True, "caption_style": "poem"}, (400, "invalid_request", "caption_style")),
    ({"text": "x", "caption_style": "poem"}, (400, "invalid_request", "caption_style")),
    ({"image": "https://example.org/a.png"}, (400, "invalid_request", "image")),
    ({"image": "~~~"}, (400, "invalid_request", "image")),
    ({"image": "data:image/png,abc"}, (400, "invalid_request", "image")),
    ({"image": text_of(RED_CIRCLE)[:-3]}, (400, "invalid_request", "image")),
    ({"image": ""}, (422, "image_unreadable", "image")),
    ({"image": text_of(b"no picture")}, (422, "image_unreadable", "image")),
    ({"image": text_of(JPEG[:-200])}, (422, "image_unreadable", "image")),
    ({"image": text_of(claiming(10_000, 10_000))}, (413, "too_large", "image")),
    ({"image": text_of(b"x" * 20_000_001)}, (413, "too_large", None)),
    ({"image": text_of(b"x" * 18_000_000 + b"\n" * 2_000_001)}, (413, "too_large", None)),
]


@pytest.mark.parametrize(("fields", "expected"), BAD_SEARCHES)
def test_a_bad_search_is_refused_and_says_which_field_is_wrong(
    wire: httpx.Client, fields: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    assert refusal(wire.post("/v1/search", json={"collection": "shop", **fields})) == expected


def test_a_picture_over_its_own_limit_is_refused_though_the_body_is_not(http: httpx.Client) -> None:
    answer = http.post(
        "/v1/search", files={"image": b"x" * 20_000_001, "request": (None, '{"collection": "shop"}')}
    )

    assert refusal(answer) == (413, "too_large", "image")
    assert answer.json()["error"]["message"] == "image has 20000001 bytes, the limit is 20000000"


def test_a_url_in_place_of_a_picture_is_told_that_it_is_not_fetched(wire: httpx.Client) -> None:
    answer = wire.post("/v1/search", json={"collection": "shop", "image": "https://example.org/a.png"})

    assert answer.json()["error"]["message"] == (
        "image: pictures from URLs are not fetched; send base64 or a data URI"
    )


def test_an_unknown_attribute_is_answered_with_those_there_are(wire: httpx.Client) -> None:
    answer = wire.post("/v1/search", json={"collection": "shop", "text": "x", "filter": {"size": "xl"}})

    assert answer.json()["error"]["message"] == (
        "no image here has the attribute 'size'; there are: colour, number, shape"
    )


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b"", "application/json", (400, "invalid_request", "collection")),
        (b"{", "application/json", (400, "invalid_request", None)),
        (b"collection=shop", "application/json", (400, "invalid_request", None)),
        (b"\xff\xfe", "application/json", (400, "invalid_request", None)),
        (b"{}", "text/plain", (415, "unsupported_media_type", None)),
        (b"a=b", "application/x-www-form-urlencoded", (415, "unsupported_media_type", None)),
        (RED_CIRCLE, "image/png", (415, "unsupported_media_type", None)),
        (b"--x--", "multipart/form-data", (400, "invalid_request", "collection")),
        (b"no parts", "multipart/form-data; boundary=x", (400, "invalid_request", "collection")),
    ],
)
def test_a_body_that_is_no_request_is_refused(
    wire: httpx.Client, body: bytes, kind: str, expected: tuple[int, str, str | None]
) -> None:
    assert refusal(wire.post("/v1/search", content=body, headers={"Content-Type": kind})) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"picture": RED_CIRCLE}, (400, "invalid_request", "picture")),
        ({"image": RED_CIRCLE, "k": (None, "3")}, (400, "invalid_request", "k")),
        ({"image": RED_CIRCLE, "request": (None, "{")}, (400, "invalid_request", None)),
        ({"image": RED_CIRCLE}, (400, "invalid_request", "collection")),
        (
            {"image": RED_CIRCLE, "request": (None, '{"collection": "shop", "text": "x"}')},
            (400, "invalid_request", None),
        ),
        (
            {"image": RED_CIRCLE, "request": (None, '{"collection": "shop", "image": "aaaa"}')},
            (400, "invalid_request", None),
        ),
        (
            {"image": b"", "request": (None, '{"collection": "shop"}')},
            (422, "image_unreadable", "image"),
        ),
    ],
)
def test_a_form_with_a_wrong_part_is_refused(
    wire: httpx.Client, files: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    assert refusal(wire.post("/v1/search", files=files)) == expected


def test_a_text_search_answers_in_the_documented_shape(wire: httpx.Client, encoder: Encoder) -> None:
    answer = wire.post(
        "/v1/search",
        json={"collection": "shop", "text": "a red circle", "k": 1, "filter": {"colour": "red"}},
    )

    body = answer.json()
    took = body.pop("took_ms")
    score = body["hits"][0].pop("score")
    product = float(
        encoder.encode_texts(["a red circle"])[0] @ encoder.encode_images([draw("circle", "red")])[0]
    )
    assert body == {
        "request_id": answer.headers["X-Request-Id"],
        "collection": "shop",
        "model_id": encoder.model_id,
        "hits": [
            {
                "key": "red-circle.png",
                "title": "a red circle",
                "caption": None,
                "attributes": {"colour": "red", "shape": "circle", "number": 0},
                "width": 64,
                "height": 64,
                "content_url": "/v1/collections/shop/contents/red-circle.png",
                "thumbnail_url": "/v1/collections/shop/thumbnails/red-circle.png",
            }
        ],
    }
    assert score == pytest.approx(product, abs=2e-3)  # stored as float16
    assert sorted(took) == ["caption", "encode", "rows", "search", "total"]


def test_target_texts_answers_texts_in_place_of_hits(wire: httpx.Client, encoder: Encoder) -> None:
    answer = wire.post(
        "/v1/search", json={"collection": "shop", "text": "a red circle", "k": 2, "target": "texts"}
    )

    body = answer.json()
    del body["took_ms"]
    scores = [text.pop("score") for text in body["texts"]]
    second = body["texts"][1]["text"]
    assert second.startswith("a red ")
    assert body == {
        "request_id": answer.headers["X-Request-Id"],
        "collection": "shop",
        "model_id": encoder.model_id,
        "texts": [
            {"text": "a red circle", "key": "red-circle.png"},
            {"text": second, "key": f"{second.removeprefix('a ').replace(' ', '-')}.png"},
        ],
        "caption": None,
    }
    assert scores[0] == pytest.approx(1.0, abs=2e-3)
    assert scores[0] > scores[1]


def test_no_score_is_beyond_1_though_stored_vectors_are_rounded(client: Client, encoder: Encoder) -> None:
    every = client.search("a red circle", collection="shop", k=16, target="texts").texts or []
    own = [client.search(text.text, collection="shop", k=1, target="texts").texts for text in every]

    assert max(found[0].score for found in own if found) <= 1.0


def test_for_a_picture_target_texts_also_writes_a_fresh_caption(wire: httpx.Client, encoder: Encoder) -> None:
    body = wire.post(
        "/v1/search", json={"collection": "shop", "image": text_of(RED_CIRCLE), "k": 1, "target": "texts"}
    ).json()

    (made,) = encoder.caption_images([draw("circle", "red")])
    assert [text["text"] for text in body["texts"]] == ["a red circle"]
    assert body["caption"] == {
        "text": made.text,
        "score": pytest.approx(made.score, abs=1e-5),
        "generated": True,
    }


def test_a_picture_finds_the_same_however_it_is_sent(wire: httpx.Client) -> None:
    fields = {"collection": "shop", "k": 5}
    asked = [
        wire.post("/v1/search", json={**fields, "image": text_of(RED_CIRCLE)}),
        wire.post("/v1/search", json={**fields, "image": f"data:image/png;base64,{text_of(RED_CIRCLE)}"}),
        wire.post(
            "/v1/search",
            files={"image": RED_CIRCLE, "request": (None, '{"collection": "shop", "k": 5}')},
        ),
    ]

    hits = [answer.json()["hits"] for answer in asked]
    assert hits[0] == hits[1] == hits[2]
    assert hits[0][0]["key"] == "red-circle.png"


def test_a_stored_picture_finds_what_its_bytes_find_but_not_itself(wire: httpx.Client) -> None:
    by_key = wire.post("/v1/search", json={"collection": "shop", "image_key": "red-circle.png", "k": 15})
    by_bytes = wire.post("/v1/search", json={"collection": "shop", "image": text_of(RED_CIRCLE), "k": 16})

    found = [hit["key"] for hit in by_key.json()["hits"]]
    assert found == [hit["key"] for hit in by_bytes.json()["hits"]][1:]
    assert "red-circle.png" not in found


def test_a_vector_finds_what_its_text_finds_and_need_not_be_normalised(
    wire: httpx.Client, encoder: Encoder
) -> None:
    vector = encoder.encode_texts(["a red circle"])[0].astype(np.float64)
    asked = [
        wire.post("/v1/search", json={"collection": "shop", "k": 16, "text": "a red circle"}),
        wire.post("/v1/search", json={"collection": "shop", "k": 16, "vector": vector.tolist()}),
        wire.post("/v1/search", json={"collection": "shop", "k": 16, "vector": (vector * 1e200).tolist()}),
        wire.post("/v1/search", json={"collection": "shop", "k": 16, "vector": (vector * 1e-200).tolist()}),
    ]

    keys = [[hit["key"] for hit in answer.json()["hits"]] for answer in asked]
    assert keys[0][0] == "red-circle.png"
    assert keys == [keys[0]] * 4


def test_an_empty_collection_answers_no_hits(http: httpx.Client) -> None:
    http.put("/v1/collections/empty")

    assert http.post("/v1/search", json={"collection": "empty", "text": "x"}).json()["hits"] == []
    assert (
        http.post("/v1/search", json={"collection": "empty", "text": "x", "target": "texts"}).json()["texts"]
        == []
    )


@pytest.mark.parametrize("text", ["🙂", "an apple\u0000", "ein großes Öl", "红色的圆", "word " * 3000])
def test_any_text_is_a_query(wire: httpx.Client, text: str) -> None:
    answer = wire.post("/v1/search", json={"collection": "shop", "text": text, "k": 3})

    assert (answer.status_code, len(answer.json()["hits"])) == (200, 3)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "invalid_request", "image")),
        ({"image": "aaaa", "collection": "shop"}, (400, "invalid_request", "image")),
        ({"collection": "shop"}, (400, "invalid_request", "image")),
        ({"image_key": "red-circle.png"}, (400, "invalid_request", "image")),
        ({"image": text_of(RED_CIRCLE), "style": "poem"}, (400, "invalid_request", "style")),
        ({"image": "aaaa"}, (422, "image_unreadable", "image")),
        ({"collection": "shop", "image_key": "no.png"}, (404, "not_found", "image_key")),
        ({"collection": "no", "image_key": "red-circle.png"}, (404, "not_found", "collection")),
    ],
)
def test_a_bad_caption_request_is_refused(
    wire: httpx.Client, body: dict[str, str], expected: tuple[int, str, str | None]
) -> None:
    assert refusal(wire.post("/v1/caption", json=body)) == expected


def test_a_caption_answers_in_the_documented_shape_for_an_upload_and_for_a_stored_picture(
    wire: httpx.Client, encoder: Encoder
) -> None:
    (made,) = encoder.caption_images([draw("circle", "red")])

    uploaded = wire.post("/v1/caption", json={"image": text_of(RED_CIRCLE)}).json()
    sent_as_file = wire.post("/v1/caption", files={"image": RED_CIRCLE}).json()
    stored = wire.post("/v1/caption", json={"collection": "shop", "image_key": "red-circle.png"}).json()

    assert uploaded == {
        "caption": {"text": made.text, "score": pytest.approx(made.score, abs=1e-5), "generated": True},
        "model_id": encoder.model_id,
    }
    assert uploaded == sent_as_file == stored
