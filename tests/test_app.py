import base64
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from indexer.config import DatabaseConfig
from indexer.database import Database
from search.app import close, create_app
from search.config import Config, ServerSection
from tests.drawn import draw, encoded
from tests.refusals import refusal
from textmm.encoder import Encoder

RED = base64.b64encode(encoded(draw("circle", "red"))).decode()


@pytest.fixture
def wire(demo_server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo_server) as wire:
        yield wire


@pytest.fixture
def anywhere(bare_url: str, config: Config, encoder: Encoder) -> Iterator[httpx.Client]:
    """A server over SQLite and one over PostgreSQL."""
    app = create_app(replace(config, database=DatabaseConfig(url=bare_url)), encoder=encoder)
    with httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://test") as http:
        http.put("/v1/collections/shop")
        yield http
    close(app)


@pytest.fixture
def small(config: Config, encoder: Encoder) -> Iterator[httpx.Client]:
    """A server that takes small bodies only."""
    app = create_app(replace(config, server=ServerSection(max_body_bytes=1000)), encoder=encoder)
    with httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://test") as http:
        yield http
    close(app)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/nothing", (404, "not_found", None)),
        ("GET", "/v1/nothing", (404, "not_found", None)),
        ("GET", "/v1/collections/", (404, "not_found", None)),
        ("GET", "/v1/search", (405, "method_not_allowed", None)),
        ("DELETE", "/v1/models", (405, "method_not_allowed", None)),
        ("POST", "/v1/collections/shop/images/a", (405, "method_not_allowed", None)),
    ],
)
def test_a_route_that_is_not_there_is_an_error_in_our_shape(
    wire: httpx.Client, method: str, path: str, expected: tuple[int, str, str | None]
) -> None:
    assert refusal(wire.request(method, path)) == expected


def test_every_answer_carries_a_request_id_of_its_own_and_forbids_sniffing(wire: httpx.Client) -> None:
    answers = [wire.get(path) for path in ("/livez", "/v1/models", "/v1/models", "/nothing")]

    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 4
    assert {answer.headers["X-Content-Type-Options"] for answer in answers} == {"nosniff"}


def test_a_body_over_the_limit_is_refused_with_limit_and_value(small: httpx.Client) -> None:
    answer = small.post("/v1/search", content=b" " * 1001, headers={"Content-Type": "application/json"})

    assert refusal(answer) == (413, "too_large", None)
    assert answer.json()["error"]["message"] == "the body has 1001 bytes, the limit is 1000"


def test_a_form_over_the_limit_is_refused_like_a_body(small: httpx.Client) -> None:
    answer = small.post("/v1/search", files={"image": b"x" * 1001})

    assert refusal(answer) == (413, "too_large", None)


def test_a_chunked_body_over_the_limit_is_refused_too(wire: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"collection": "shop", "text": "'
        for _ in range(26):
            yield b"a" * 1_000_000
        yield b'"}'

    answer = wire.post("/v1/search", content=chunks(), headers={"Content-Type": "application/json"})

    assert refusal(answer) == (413, "too_large", None)
    assert answer.json()["error"]["message"] == "the body is too long, the limit is 25000000"


@pytest.mark.parametrize("path", ["images/a%FF", "images/%C3", "contents/b%FF"])
def test_a_key_that_is_not_utf_8_is_refused_and_not_read_as_another(wire: httpx.Client, path: str) -> None:
    answer = wire.get(f"/v1/collections/shop/{path}")

    assert refusal(answer) == (400, "invalid_request", None)
    assert "is not UTF-8" in answer.json()["error"]["message"]


def test_a_failure_that_nobody_foresaw_says_nothing_and_is_logged_under_its_request_id(
    http: httpx.Client, indexed: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with indexed.write() as connection:
        connection.exec_driver_sql("DROP TABLE text")

    answer = http.get("/v1/collections/shop/images")

    assert refusal(answer) == (500, "internal", None)
    assert answer.json()["error"] | {"request_id": ""} == {
        "code": "internal",
        "type": "server_error",
        "message": "something went wrong on our side; it is logged",
        "param": None,
        "request_id": "",
    }
    (logged,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert answer.headers["X-Request-Id"] in logged.getMessage()
    assert "no such table: text" in (caplog.text)


def test_a_failure_leaves_the_next_request_alone(http: httpx.Client, indexed: Database) -> None:
    with indexed.write() as connection:
        connection.exec_driver_sql("DROP TABLE text")

    broken = http.get("/v1/collections/shop/images").status_code
    after = http.post("/v1/search", json={"collection": "shop", "text": "a red circle", "k": 1})

    assert broken == 500
    assert [hit["key"] for hit in after.json()["hits"]] == ["red-circle.png"]


def test_a_slash_in_a_path_is_one_slash_however_it_is_written(wire: httpx.Client) -> None:
    plain = wire.get("/v1/collections/shop/images/no/such%20key")
    escaped = wire.get("/v1/collections/shop/images/no%2Fsuch%20key")
    twice = wire.get("/v1/collections/shop/images/no%252Fsuch%20key")

    assert json.loads(plain.text)["error"]["message"] == "there is no image 'no/such key'"
    assert json.loads(escaped.text)["error"]["message"] == "there is no image 'no/such key'"
    assert json.loads(twice.text)["error"]["message"] == "there is no image 'no%2Fsuch key'"


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("PUT", "/v1/collections/shop/images/a", {"image": RED, "title": "a\0b"}, "title"),
        ("PUT", "/v1/collections/shop/images/a", {"image": RED, "texts": ["a", "\0"]}, "texts[1]"),
        ("PUT", "/v1/collections/shop/images/a", {"image": RED, "attributes": {"x": "a\0b"}}, "attributes"),
        (
            "PUT",
            "/v1/collections/shop/images/a",
            {"image": RED, "attributes": {"x": ["a\0b"]}},
            "attributes[0]",
        ),
        ("PUT", "/v1/collections/shop/images/a", {"image": RED, "attributes": {"x\0": "a"}}, "attributes"),
        ("PUT", "/v1/collections/shop/images/a%00b", {"image": RED}, None),
        ("GET", "/v1/collections/shop/images/a%00b", None, None),
        ("GET", "/v1/collections/shop/contents/a%00b", None, None),
        ("GET", "/v1/collections/shop/images?after=%00", None, None),
        ("GET", "/v1/collections/shop%00", None, None),
        ("POST", "/v1/search", {"collection": "sh\0op", "text": "x"}, "collection"),
        ("POST", "/v1/search", {"collection": "shop", "image_key": "a\0"}, "image_key"),
        ("POST", "/v1/moderation/lookup", {"image": RED, "banks": ["a\0"]}, "banks[0]"),
    ],
)
def test_a_nul_which_no_database_takes_is_refused_on_every_way_in(
    anywhere: httpx.Client, method: str, path: str, body: dict[str, Any] | None, param: str | None
) -> None:
    answer = anywhere.request(method, path, json=body)

    assert refusal(answer) == (400, "invalid_request", param)
    assert "NUL" in answer.json()["error"]["message"]


def test_an_app_makes_the_database_it_does_not_find(config: Config, encoder: Encoder) -> None:
    fresh = replace(config, data=config.data / "fresh")

    app = create_app(fresh, encoder=encoder)
    close(app)

    assert (fresh.data / "textmm.sqlite").is_file()


def test_a_closed_app_leaves_no_thread_behind(config: Config, encoder: Encoder) -> None:
    before = set(threading.enumerate())
    app = create_app(config, encoder=encoder)
    names = sorted(thread.name for thread in set(threading.enumerate()) - before)

    close(app)

    assert names == ["folding", *["inference"] * 4, "maintenance", "models"]
    assert set(threading.enumerate()) - before == set()
