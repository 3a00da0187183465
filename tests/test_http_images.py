import base64
import hashlib
import io
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from search.client import Client
from tests.drawn import draw, encoded
from tests.hostile import HOSTILE, Hostile
from tests.refusals import refusal
from textmm.encoder import Encoder

PURPLE = encoded(Image.new("RGB", (40, 30), (120, 20, 140)))
WIDE = encoded(draw("cross", "blue", side=800), "JPEG")
PURPLE_TEXT = base64.b64encode(PURPLE).decode()
AT = "/v1/collections/shop"


@pytest.fixture
def wire(demo_server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo_server) as wire:
        yield wire


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("images/a%01b", {"image": PURPLE_TEXT}, (400, "invalid_request", "key")),
        ("images/a%0Ab", {"image": PURPLE_TEXT}, (400, "invalid_request", "key")),
        ("images/a%2F..%2Fb", {"image": PURPLE_TEXT}, (400, "invalid_request", "key")),
        ("images/%2E%2E", {"image": PURPLE_TEXT}, (400, "invalid_request", "key")),
        ("images/a//b", {"image": PURPLE_TEXT}, (400, "invalid_request", "key")),
        ("images//a", {"image": PURPLE_TEXT}, (400, "invalid_request", "key")),
        ("images/%2Fa", {"image": PURPLE_TEXT}, (400, "invalid_request", "key")),
        ("images/a/", {"image": PURPLE_TEXT}, (400, "invalid_request", "key")),
        ("images/" + "a" * 513, {"image": PURPLE_TEXT}, (400, "invalid_request", "key")),
        ("images/a", {}, (400, "invalid_request", "image")),
        ("images/a", {"image": None}, (400, "invalid_request", "image")),
        ("images/a", {"image": "https://example.org/a.png"}, (400, "invalid_request", "image")),
        ("images/a", {"image": "aaaa"}, (422, "image_unreadable", "image")),
        ("images/a", {"image": PURPLE_TEXT, "name": "a"}, (400, "invalid_request", "name")),
        ("images/a", {"image": PURPLE_TEXT, "title": 3}, (400, "invalid_request", "title")),
        ("images/a", {"image": PURPLE_TEXT, "texts": "a"}, (400, "invalid_request", "texts")),
        ("images/a", {"image": PURPLE_TEXT, "texts": ["a", " "]}, (400, "invalid_request", "texts")),
        (
            "images/a",
            {"image": PURPLE_TEXT, "attributes": {"a": None}},
            (400, "invalid_request", "attributes"),
        ),
        ("images/a", {"image": PURPLE_TEXT, "attributes": {"a": {}}}, (400, "invalid_request", "attributes")),
    ],
)
def test_a_bad_put_is_refused_and_puts_nothing(
    wire: httpx.Client, path: str, body: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    assert refusal(wire.put(f"{AT}/{path}", json=body)) == expected
    assert wire.get(AT).json()["images"] == 16


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/collections/no", (404, "not_found", "collection")),
        ("DELETE", "/v1/collections/no", (404, "not_found", "collection")),
        ("GET", "/v1/collections/no/images", (404, "not_found", "collection")),
        ("GET", "/v1/collections/no/images/a", (404, "not_found", "collection")),
        ("GET", f"{AT}/images/no.png", (404, "not_found", "image_key")),
        ("DELETE", f"{AT}/images/no.png", (404, "not_found", "image_key")),
        ("GET", f"{AT}/contents/no.png", (404, "not_found", "image_key")),
        ("GET", f"{AT}/thumbnails/no.png", (404, "not_found", "image_key")),
        ("GET", f"{AT}/images?limit=0", (400, "invalid_request", "limit")),
        ("GET", f"{AT}/images?limit=1001", (400, "invalid_request", "limit")),
        ("GET", f"{AT}/images?limit=-1", (400, "invalid_request", "limit")),
        ("GET", f"{AT}/images?limit=ten", (400, "invalid_request", "limit")),
        ("GET", f"{AT}/images?limit=%C2%B2", (400, "invalid_request", "limit")),
        ("GET", f"{AT}/images?limit={'9' * 5000}", (400, "invalid_request", "limit")),
    ],
)
def test_what_is_not_there_or_out_of_range_is_refused(
    wire: httpx.Client, method: str, path: str, expected: tuple[int, str, str | None]
) -> None:
    assert refusal(wire.request(method, path)) == expected


def test_a_new_image_is_201_a_replaced_one_200_and_the_body_is_the_record(http: httpx.Client) -> None:
    fields = {"title": "Plum", "texts": ["a plum", "purple"], "attributes": {"price": 2.5, "new": True}}
    first = http.put(f"{AT}/images/plum.png", json={"image": PURPLE_TEXT, **fields})
    second = http.put(f"{AT}/images/plum.png", json={"image": base64.b64encode(WIDE).decode()})

    made, changed = first.json(), second.json()
    assert (first.status_code, second.status_code) == (201, 200)
    assert made == {
        "key": "plum.png",
        "collection": "shop",
        "title": "Plum",
        "texts": ["Plum", "a plum", "purple"],
        "attributes": {"price": 2.5, "new": True},
        "sha256": hashlib.sha256(PURPLE).hexdigest(),
        "width": 40,
        "height": 30,
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
    }
    assert changed == {
        "key": "plum.png",
        "collection": "shop",
        "title": None,
        "texts": [],
        "attributes": {},
        "sha256": hashlib.sha256(WIDE).hexdigest(),
        "width": 800,
        "height": 800,
        "created_at": made["created_at"],
        "updated_at": changed["updated_at"],
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made["created_at"])
    assert changed["updated_at"] > made["updated_at"]
    assert http.get(f"{AT}/images/plum.png").json() == changed


@pytest.mark.parametrize(
    "how",
    [
        {"json": {"image": PURPLE_TEXT, "title": "Plum"}},
        {"json": {"image": f"data:image/png;base64,{PURPLE_TEXT}", "title": "Plum"}},
        {"files": {"image": PURPLE, "request": (None, '{"title": "Plum"}')}},
    ],
)
def test_a_picture_is_put_as_base64_as_data_uri_or_as_a_file(http: httpx.Client, how: dict[str, Any]) -> None:
    record = http.put(f"{AT}/images/plum", **how).json()

    assert (record["title"], record["sha256"]) == ("Plum", hashlib.sha256(PURPLE).hexdigest())
    assert http.get(f"{AT}/contents/plum").content == PURPLE


def test_an_image_is_found_as_soon_as_its_put_has_returned(client: Client) -> None:
    client.put_image("shop", "plum", PURPLE, texts=["a plum"])
    found = client.search(image=PURPLE, collection="shop", k=1).hits or []
    texts = client.search("a plum", collection="shop", k=1, target="texts").texts or []

    client.put_image("shop", "plum", WIDE)
    after = client.search(image=PURPLE, collection="shop", k=17).hits or []
    no_texts = client.search("a plum", collection="shop", k=20, target="texts").texts or []

    assert [hit.key for hit in found] == ["plum"]
    assert [(text.key, text.text) for text in texts] == [("plum", "a plum")]
    assert next(hit for hit in after if hit.key == "plum").score < 0.99
    assert "plum" not in {text.key for text in no_texts}


def test_a_deleted_image_is_gone_everywhere_when_the_call_returns(http: httpx.Client) -> None:
    gone = http.delete(f"{AT}/images/red-circle.png")

    asked = {"collection": "shop", "text": "a red circle", "k": 100}
    hits = http.post("/v1/search", json=asked).json()["hits"]
    texts = http.post("/v1/search", json={**asked, "target": "texts"}).json()["texts"]
    listed = http.get(f"{AT}/images").json()["images"]
    assert (gone.status_code, gone.content) == (204, b"")
    assert {len(hits), len(texts), len(listed)} == {15}
    assert "red-circle.png" not in {one["key"] for one in (*hits, *texts, *listed)}
    for path in ("images", "contents", "thumbnails"):
        assert refusal(http.get(f"{AT}/{path}/red-circle.png")) == (404, "not_found", "image_key")


def test_an_image_put_again_after_its_deletion_is_new(http: httpx.Client) -> None:
    http.delete(f"{AT}/images/red-circle.png")

    assert http.put(f"{AT}/images/red-circle.png", json={"image": PURPLE_TEXT}).status_code == 201


def test_images_are_listed_by_key_a_page_at_a_time(wire: httpx.Client, encoder: Encoder) -> None:
    every = [image["key"] for image in wire.get(f"{AT}/images").json()["images"]]
    first = wire.get(f"{AT}/images", params={"limit": 7}).json()
    second = wire.get(f"{AT}/images", params={"limit": 7, "after": first["after"]}).json()
    third = wire.get(f"{AT}/images", params={"limit": 7, "after": second["after"]}).json()

    assert every == sorted(every)
    assert [[len(page["images"]), page["after"]] for page in (first, second, third)] == [
        [7, every[6]],
        [7, every[13]],
        [2, None],
    ]
    assert [i["key"] for page in (first, second, third) for i in page["images"]] == every


def test_a_listed_image_is_its_record(wire: httpx.Client) -> None:
    (first,) = wire.get(f"{AT}/images", params={"limit": 1}).json()["images"]

    assert first == wire.get(f"{AT}/images/blue-circle.png").json()


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("GIF", "image/gif"), ("WEBP", "image/webp")],
)
def test_bytes_come_back_as_they_were_put_with_their_own_type(
    http: httpx.Client, kind: str, media_type: str
) -> None:
    data = encoded(draw("square", "green"), kind)
    http.put(f"{AT}/images/new.png", files={"image": data})

    answer = http.get(f"{AT}/contents/new.png")

    assert (answer.content, answer.headers["Content-Type"]) == (data, media_type)
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'"


@pytest.mark.parametrize("hostile", HOSTILE, ids=[one.name for one in HOSTILE])
def test_hostile_bytes_are_refused_as_what_they_are_and_harmless_ones_are_taken(
    http: httpx.Client, hostile: Hostile
) -> None:
    put = http.put(f"{AT}/images/hostile", files={"image": hostile.data})
    asked = http.post(
        "/v1/search", files={"image": hostile.data, "request": (None, '{"collection": "shop"}')}
    )

    refused = {
        "unreadable": (422, "image_unreadable", "image"),
        "too_large": (413, "too_large", "image"),
        "readable": None,
    }[hostile.outcome]
    assert [refusal(answer) if answer.is_error else None for answer in (put, asked)] == [refused] * 2
    assert http.get(f"{AT}/contents/hostile").status_code == (404 if refused else 200)


@pytest.mark.parametrize("what", ["contents", "thumbnails"])
def test_a_browser_that_has_the_bytes_is_told_so(wire: httpx.Client, what: str) -> None:
    first = wire.get(f"{AT}/{what}/red-circle.png")
    again = wire.get(f"{AT}/{what}/red-circle.png", headers={"If-None-Match": first.headers["ETag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["Cache-Control"] == "no-cache"


def test_a_replaced_picture_has_another_etag(http: httpx.Client) -> None:
    before = http.get(f"{AT}/contents/red-circle.png").headers["ETag"]
    http.put(f"{AT}/images/red-circle.png", files={"image": PURPLE})

    after = http.get(f"{AT}/contents/red-circle.png", headers={"If-None-Match": before})

    assert (after.status_code, after.content) == (200, PURPLE)


def test_the_thumbnail_of_a_large_picture_is_a_jpeg_of_at_most_320_pixels(http: httpx.Client) -> None:
    http.put(f"{AT}/images/wide", files={"image": WIDE})

    answer = http.get(f"{AT}/thumbnails/wide")

    assert answer.headers["Content-Type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(answer.content)).size) == 320
    assert len(answer.content) < len(WIDE)


def test_a_small_picture_is_its_own_thumbnail(http: httpx.Client) -> None:
    http.put(f"{AT}/images/plum", files={"image": PURPLE})

    assert http.get(f"{AT}/thumbnails/plum").content == PURPLE


def test_collections_answer_in_the_documented_shape(http: httpx.Client, encoder: Encoder) -> None:
    limits = {"near_copy": 20, "similar": 0.8}
    made = http.put("/v1/collections/known", json={"bank": True, "limits": limits, "caption_style": "photo"})

    known = {
        "name": "known",
        "bank": True,
        "limits": limits,
        "caption_style": "photo",
        "images": 0,
        "texts": 0,
        "model_id": None,
        "attributes": {},
        "dim": None,
    }
    shop = {
        "name": "shop",
        "bank": False,
        "limits": {"near_copy": 31, "similar": 0.9},
        "caption_style": "photo",
        "images": 16,
        "texts": 16,
        "model_id": encoder.model_id,
        "attributes": {"colour": "string", "number": "number", "shape": "string"},
        "dim": encoder.embed_dim,
    }
    assert (made.status_code, made.json()) == (201, known)
    assert http.get("/v1/collections").json() == {"collections": [known, shop]}
    assert http.get("/v1/collections/shop").json() == shop


def test_a_put_without_a_body_makes_a_plain_collection(http: httpx.Client) -> None:
    made = http.put("/v1/collections/new")

    assert (made.status_code, made.json()["bank"]) == (201, False)
    assert made.json()["limits"] == {"near_copy": 31, "similar": 0.9}


def test_a_second_put_changes_the_limits_and_keeps_what_it_does_not_name(http: httpx.Client) -> None:
    http.put("/v1/collections/known", json={"bank": True, "limits": {"near_copy": 8, "similar": 0.7}})

    kept = http.put("/v1/collections/known", json={"bank": True, "caption_style": "photo"})
    changed = http.put("/v1/collections/known", json={"limits": {"near_copy": 9}})

    assert (kept.status_code, kept.json()["limits"]) == (200, {"near_copy": 8, "similar": 0.7})
    assert (changed.status_code, changed.json()["limits"]) == (200, {"near_copy": 9, "similar": 0.7})
    assert changed.json()["bank"]


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("shop", {"bank": True}, (409, "conflict", None)),
        ("new", {"bank": "yes"}, (400, "invalid_request", "bank")),
        ("new", {"limits": {"near_copy": -1}}, (400, "invalid_request", "limits.near_copy")),
        ("new", {"limits": {"near": 1}}, (400, "invalid_request", "limits.near")),
        ("new", {"caption_style": "poem"}, (400, "invalid_request", "caption_style")),
        ("new", {"size": 3}, (400, "invalid_request", "size")),
        ("-new", {}, (400, "invalid_request", "collection")),
        ("ne%20w", {}, (400, "invalid_request", "collection")),
        ("n" * 65, {}, (400, "invalid_request", "collection")),
    ],
)
def test_a_bad_collection_is_refused(
    wire: httpx.Client, name: str, body: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    assert refusal(wire.put(f"/v1/collections/{name}", json=body)) == expected
    assert [c["name"] for c in wire.get("/v1/collections").json()["collections"]] == ["shop"]


def test_a_bank_does_not_become_a_plain_collection(http: httpx.Client) -> None:
    http.put("/v1/collections/known", json={"bank": True})

    assert refusal(http.put("/v1/collections/known", json={"bank": False})) == (409, "conflict", None)


def test_a_deleted_collection_is_gone_and_its_name_is_free_again(http: httpx.Client) -> None:
    gone = http.delete(AT)
    search = http.post("/v1/search", json={"collection": "shop", "text": "x"})
    made = http.put(AT)

    assert gone.status_code == 204
    assert refusal(search) == (404, "not_found", "collection")
    assert (made.status_code, made.json()["images"]) == (201, 0)
    assert http.post("/v1/search", json={"collection": "shop", "text": "x"}).json()["hits"] == []
