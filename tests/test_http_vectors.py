"""Collections of vectors that their owner made, over the wire and through the SDK."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from search import messages as m
from search.client import Client, Conflict, InvalidRequest, NotFound
from search.engine import SearchEngine
from tests.drawn import draw, encoded
from tests.refusals import refusal

AT = "/v1/collections/own"
PICTURE = base64.b64encode(encoded(draw("circle", "red"))).decode()
ROWS: dict[str, list[float]] = {
    "x": [2.0, 0.0, 0.0],
    "y": [0.0, 1.0, 0.0],
    "xy": [1.0, 1.0, 0.0],
    "-x": [-1.0, 0.0, 0.0],
}


@pytest.fixture
def own(client: Client) -> Client:
    """Collection `own` of four vectors beside `shop`, whose pictures the model encoded."""
    client.put_collection("own", model="external", dim=3)
    for key, vector in ROWS.items():
        client.put_image("own", key, vector=vector, title=key.upper(), attributes={"signs": len(key)})
    return client


def keys(response: m.SearchResponse) -> list[str]:
    return [hit.key for hit in response.hits or []]


def test_a_collection_is_made_for_vectors_and_says_so(http: httpx.Client) -> None:
    made = http.put(AT, json={"model": "external", "dim": 3})
    again = http.put(AT, json={"model": "external", "dim": 3})
    named = http.put(AT, json={"caption_style": "photo"})

    assert (made.status_code, again.status_code, named.status_code) == (201, 200, 200)
    assert (made.json()["model_id"], made.json()["dim"]) == ("external", 3)
    assert again.json() == made.json() == http.get(AT).json()


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (AT, {"model": "external"}, (400, "invalid_request", "dim")),
        (AT, {"dim": 3}, (400, "invalid_request", "model")),
        (AT, {"model": "mini", "dim": 3}, (400, "invalid_request", "model")),
        (AT, {"model": "external", "dim": 0}, (400, "invalid_request", "dim")),
        (AT, {"model": "external", "dim": 4097}, (400, "invalid_request", "dim")),
        (AT, {"model": "external", "dim": 2.5}, (400, "invalid_request", "dim")),
        (AT, {"model": "external", "dim": 3, "bank": True}, (400, "invalid_request", "model")),
        ("/v1/collections/shop", {"model": "external", "dim": 3}, (409, "conflict", None)),
        ("/v1/collections/known", {"model": "external", "dim": 3}, (409, "conflict", None)),
        ("/v1/collections/three", {"model": "external", "dim": 4}, (409, "conflict", None)),
    ],
)
def test_what_a_collection_cannot_hold_is_refused_and_changes_nothing(
    http: httpx.Client, path: str, body: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    http.put("/v1/collections/known", json={"bank": True}).raise_for_status()
    http.put("/v1/collections/three", json={"model": "external", "dim": 3}).raise_for_status()
    before = http.get("/v1/collections").json()

    assert refusal(http.put(path, json={**body, "attributes": {"n": "number"}})) == expected
    assert http.get("/v1/collections").json() == before


def test_a_vector_is_put_without_a_picture_and_the_body_is_the_record(
    own: Client, http: httpx.Client
) -> None:
    body = {"vector": [0, 3, 4], "title": "Z", "attributes": {"price": 2}}
    put = http.put(f"{AT}/images/z", json=body)
    replaced = http.put(f"{AT}/images/z", json=body)

    record = put.json()
    assert (put.status_code, replaced.status_code) == (201, 200)
    assert record == {
        "key": "z",
        "collection": "own",
        "title": "Z",
        "texts": [],
        "attributes": {"price": 2},
        "sha256": None,
        "width": None,
        "height": None,
        "created_at": record["created_at"],
        "updated_at": record["updated_at"],
    }
    assert http.get(f"{AT}/images/z").json() == replaced.json()
    assert [image.key for image in own.images("own")] == ["-x", "x", "xy", "y", "z"]


@pytest.mark.parametrize(
    ("path", "body", "expected", "said"),
    [
        (
            "own/images/a",
            {"vector": [1, 2]},
            (400, "invalid_request", "vector"),
            "image 'a': its vector has 2",
        ),
        ("own/images/a", {"vector": []}, (400, "invalid_request", "vector"), "its vector has 0 numbers"),
        ("own/images/a", {"vector": [0, 0, 0]}, (400, "invalid_request", "vector"), "all zeros"),
        ("own/images/a", {"vector": [1, None, 0]}, (400, "invalid_request", "vector[1]"), "expected `float`"),
        ("own/images/a", {"vector": "AAAA"}, (400, "invalid_request", "vector"), "expected `array"),
        (
            "own/images/a",
            {"vector": [1, 0, 0], "image": PICTURE},
            (400, "invalid_request", "vector"),
            "a picture or its vector, not both",
        ),
        (
            "own/images/a",
            {"vector": [1, 0, 0], "texts": ["a mug"]},
            (400, "invalid_request", "texts"),
            "nothing here makes vectors of their space for texts",
        ),
        ("own/images/a//b", {"vector": [1, 0, 0]}, (400, "invalid_request", "key"), "between slashes"),
        ("own/images/a", {"image": PICTURE}, (409, "conflict", None), "put pictures into another collection"),
        ("shop/images/a", {"vector": [1, 0, 0]}, (409, "conflict", None), "'shop' holds vectors of tiny-"),
        ("new/images/a", {"vector": [1, 0, 0]}, (409, "conflict", None), "is not made for vectors"),
    ],
)
def test_a_bad_put_is_refused_with_the_reason_and_puts_nothing(
    own: Client,
    http: httpx.Client,
    path: str,
    body: dict[str, Any],
    expected: tuple[int, str, str | None],
    said: str,
) -> None:
    own.put_collection("new")
    answer = http.put(f"/v1/collections/{path}", json=body)

    assert refusal(answer) == expected
    assert said in answer.json()["error"]["message"]
    assert [c.images for c in own.collections()] == [0, 4, 16]


def test_numbers_that_json_has_no_word_for_are_refused(own: Client, http: httpx.Client) -> None:
    for number in ("NaN", "1e999", "-Infinity"):
        answer = http.put(f"{AT}/images/a", content=f'{{"vector": [{number}, 1, 1]}}')
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_vectors_find_by_vector_and_by_key_with_filters_and_facets(own: Client) -> None:
    by_vector = own.search(collection="own", vector=[5.0, 0.1, 0.0], facets=["signs"])
    by_key = own.search(collection="own", image_key="x")
    filtered = own.search(collection="own", vector=[5.0, 0.1, 0.0], filter="signs = 2")

    assert keys(by_vector) == ["x", "xy", "y", "-x"]
    assert keys(by_key) == ["xy", "y", "-x"]
    assert [hit.score for hit in by_key.hits or []] == pytest.approx([0.7071, 0.0, -1.0], abs=1e-3)
    assert keys(filtered) == ["xy", "-x"]
    assert [(v.value, v.count) for v in (by_vector.facets or {})["signs"].values or []] == [(1, 2), (2, 2)]
    assert (by_vector.model_id, by_key.model_id) == ("external", "external")


def test_a_hit_without_a_picture_has_neither_size_nor_addresses_nor_caption(own: Client) -> None:
    (hit,) = own.search(collection="own", image_key="x", k=1, captions=True).hits or []

    assert (hit.key, hit.title, hit.attributes) == ("xy", "XY", {"signs": 2})
    assert (hit.width, hit.height, hit.content_url, hit.thumbnail_url, hit.caption) == (None,) * 5


def test_texts_fit_no_vector_of_such_a_collection(own: Client) -> None:
    found = own.search(collection="own", image_key="x", target="texts")

    assert (found.texts, found.caption) == ([], None)


@pytest.mark.parametrize(
    ("asks", "param"), [({"text": "a mug"}, "text"), ({"image": PICTURE}, "image")], ids=["text", "image"]
)
def test_words_and_pictures_are_refused_and_told_what_finds(
    own: Client, http: httpx.Client, asks: dict[str, str], param: str
) -> None:
    answer = http.post("/v1/search", json={"collection": "own", **asks})

    assert refusal(answer) == (400, "invalid_request", param)
    assert answer.json()["error"]["message"].endswith("search by vector or image_key")


def test_a_query_vector_is_as_long_as_those_of_its_collection(own: Client, engine: SearchEngine) -> None:
    dim = engine.encoder.embed_dim

    with pytest.raises(InvalidRequest, match=f"vector has {dim} numbers, those of collection 'own' have 3"):
        own.search(collection="own", vector=[1.0] * dim)
    with pytest.raises(InvalidRequest, match=f"vector has 3 numbers, tiny-.* makes {dim}"):
        own.search(collection="shop", vector=[1.0, 0.0, 0.0])


@pytest.mark.parametrize("what", ["contents", "thumbnails"])
def test_there_is_no_picture_to_fetch_or_to_caption(own: Client, http: httpx.Client, what: str) -> None:
    answer = http.get(f"{AT}/{what}/x")
    caption = http.post("/v1/caption", json={"collection": "own", "image_key": "x"})

    assert refusal(answer) == refusal(caption) == (404, "not_found", "image_key")
    assert answer.json()["error"]["message"] == "image 'x' came as a vector: it has no picture"
    assert caption.json()["error"]["message"] == answer.json()["error"]["message"]


def test_a_deleted_vector_is_gone_at_once(own: Client) -> None:
    own.delete_image("own", "x")

    assert keys(own.search(collection="own", vector=[1.0, 0.0, 0.0])) == ["xy", "y", "-x"]
    with pytest.raises(NotFound, match="there is no image 'x'"):
        own.get_image("own", "x")


def test_the_sdk_takes_arrays_and_tells_conflicts(own: Client) -> None:
    put = own.put_image("own", "array", vector=np.array([0, 0, 2], dtype=np.float32))

    assert put.sha256 is None
    assert keys(own.search(collection="own", vector=[0.0, 0.0, 1.0], k=1)) == ["array"]
    with pytest.raises(Conflict, match="put pictures into another collection"):
        own.put_image("own", "picture", encoded(draw("circle", "red")))


def test_the_server_is_ready_beside_such_a_collection_and_lookups_pass_it_by(
    own: Client, http: httpx.Client
) -> None:
    own.put_collection("known", bank=True)

    assert http.get("/readyz").text == "ok"
    assert own.look_up(encoded(draw("circle", "red"))).matches == []


def test_vectors_longer_than_the_models_are_found_too(client: Client) -> None:
    client.put_collection("long", model="external", dim=4096)
    rows = np.random.default_rng(0).normal(size=(3, 4096))
    for i, row in enumerate(rows):
        client.put_image("long", f"{i}", vector=row.tolist())

    assert keys(client.search(collection="long", vector=rows[2].tolist(), k=1)) == ["2"]
