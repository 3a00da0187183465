"""Filters, facets, plans and types over HTTP."""

from typing import Any

import httpx
import numpy as np
import pytest

from indexer.database import Database
from indexer.store.images import Images
from search.engine import SearchEngine
from tests.drawn import COLOURS, draw, encoded
from tests.refusals import refusal
from tests.rows import new_image

AT = "/v1/collections/shop"
RED = encoded(draw("circle", "red"))


def search(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/search", json={"collection": "shop", "text": "x", "k": 16, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def put(http: httpx.Client, key: str, **attributes: Any) -> httpx.Response:
    files = {
        "request": (None, httpx.Response(200, json={"attributes": attributes}).content),
        "image": ("a", RED),
    }
    return http.put(f"{AT}/images/{key}", files=files)


def test_facets_count_what_the_filter_lets_through_and_not_only_the_hits(http: httpx.Client) -> None:
    found = search(http, k=1, filter="number < 8", facets=["colour", {"number": [2, 4]}])

    assert len(found["hits"]) == 1
    assert found["facets"] == {
        "colour": {
            "missing": 0,
            "values": [{"value": colour, "count": 2} for colour in sorted(COLOURS)],
            "distinct": 4,
        },
        "number": {
            "missing": 0,
            "ranges": [
                {"from": None, "to": 2, "count": 2},
                {"from": 2, "to": 4, "count": 2},
                {"from": 4, "to": None, "count": 4},
            ],
        },
    }


def test_facets_without_a_filter_are_of_all_rows_and_of_texts_when_texts_are_asked(
    http: httpx.Client,
) -> None:
    put(http, "bare")

    images = search(http, facets=["colour"])["facets"]["colour"]
    texts = search(http, facets=["colour"], target="texts")["facets"]["colour"]

    assert images["missing"] == 1
    assert texts["missing"] == 0
    assert [one["count"] for one in images["values"]] == [one["count"] for one in texts["values"]] == [4] * 4


def test_a_deleted_picture_is_in_no_facet(http: httpx.Client) -> None:
    http.delete(f"{AT}/images/red-cross.png")

    counts = {
        one["value"]: one["count"] for one in search(http, facets=["colour"])["facets"]["colour"]["values"]
    }

    assert counts == {colour: 3 if colour == "red" else 4 for colour in COLOURS}


@pytest.mark.parametrize(
    ("given", "explained"),
    [
        ({}, {"filter": None, "plan": "exact", "rows": 16, "allowed": 16}),
        (
            {"filter": {"colour": "red", "number": {"<": 8}}},
            {
                "filter": 'colour = "red" and number < 8',
                "plan": "exact over the allowed rows",
                "rows": 16,
                "allowed": 2,
            },
        ),
        (
            {"filter": "number = 77"},
            {"filter": "number = 77", "plan": "exact over the allowed rows", "rows": 16, "allowed": 0},
        ),
    ],
)
def test_a_search_says_how_it_was_done_when_asked(
    http: httpx.Client, given: dict[str, Any], explained: dict[str, Any]
) -> None:
    assert search(http, explain=True, **given)["explain"] == explained
    assert "explain" not in search(http, **given)


def test_a_parse_error_points_at_the_place(http: httpx.Client) -> None:
    body = {"collection": "shop", "text": "x", "filter": "colour = red and nuber"}
    answer = http.post("/v1/search", json=body)

    assert refusal(answer) == (400, "invalid_request", "filter")
    said = answer.json()["error"]["message"]
    assert said.splitlines()[1:] == ["  colour = red and nuber", " " * 24 + "^"]


def test_types_are_inferred_and_widened_by_what_comes(http: httpx.Client) -> None:
    put(http, "a", size=4, made="2026-01-31", new=True, tags=["x"])
    before = http.get(AT).json()["attributes"]
    put(http, "b", size="XL")
    after = http.get(AT).json()["attributes"]

    assert before | {"size": "string"} == after
    assert {name: before[name] for name in ("size", "made", "new", "tags")} == {
        "size": "number",
        "made": "datetime",
        "new": "bool",
        "tags": "strings",
    }
    for size, key in ((4, "a"), ("4", "a"), ("XL", "b")):
        assert [hit["key"] for hit in search(http, filter={"size": size})["hits"]] == [key]


def test_a_declared_type_rules_filters_and_what_is_put_and_can_be_taken_back(http: httpx.Client) -> None:
    put(http, "a", size="4")
    put(http, "b", size="10")
    as_words = search(http, filter='size < "5"')["hits"]
    declared = http.put(AT, json={"attributes": {"size": "number"}})
    as_numbers = search(http, filter="size < 5")["hits"]
    refused = put(http, "c", size="XL")
    http.put(AT, json={"attributes": {"size": None}})

    assert {hit["key"] for hit in as_words} == {"a", "b"}
    assert (declared.status_code, declared.json()["attributes"]["size"]) == (200, "number")
    assert [hit["key"] for hit in as_numbers] == ["a"]
    assert refusal(refused)[:2] == (400, "invalid_request")
    assert "size is declared a number, and 'XL' is no number" in refused.json()["error"]["message"]
    assert http.get(f"{AT}/images/c").status_code == 404
    assert http.get(AT).json()["attributes"]["size"] == "string"
    assert put(http, "c", size="XL").status_code == 201


def test_a_type_that_a_value_cannot_be_of_is_a_conflict_that_names_the_image(http: httpx.Client) -> None:
    refused = http.put(AT, json={"attributes": {"colour": "number"}, "limits": {"near_copy": 3}})

    assert refusal(refused) == (409, "conflict", None)
    assert "colour cannot be of type number: of image 'blue-circle.png'" in refused.json()["error"]["message"]
    assert http.get(AT).json()["attributes"]["colour"] == "string"
    assert http.get(AT).json()["limits"]["near_copy"] == 31


def test_another_process_takes_up_a_declared_type(
    engine: SearchEngine, indexed: Database, http: httpx.Client
) -> None:
    shop = engine.collections.get("shop")
    assert len(search(http, filter="number = 7")["hits"]) == 1
    engine.collections.declare_types(shop.collection_id, {"number": "string"})  # as another process would
    engine.live.poll()

    found = search(http, filter="number prefix 1", facets=["number"])

    assert len(found["hits"]) == 7  # 1 and 10 to 15
    assert found["facets"]["number"]["distinct"] == 7
    assert Images(indexed).get(shop.collection_id, "red-circle.png").attributes["number"] == 0


@pytest.mark.parametrize(
    "nested", ['{"number": ' + "[" * 5000 + "]" * 5000 + "}", '{"not": ' * 5000 + "{}" + "}" * 5000]
)
def test_a_filter_that_is_nested_for_ever_is_refused(http: httpx.Client, nested: str) -> None:
    body = f'{{"collection": "shop", "text": "x", "filter": {nested}}}'

    answer = http.post("/v1/search", content=body, headers={"Content-Type": "application/json"})

    assert refusal(answer) == (400, "invalid_request", None)
    assert answer.json()["error"]["message"] == "the body is nested too deep"


def test_numbers_no_float_can_hold_are_kept_and_cannot_become_numbers(http: httpx.Client) -> None:
    made = put(http, "a", big=10**400)
    declared = http.put(AT, json={"attributes": {"big": "number"}})
    http.put(AT, json={"attributes": {"later": "number"}})
    refused = put(http, "b", later=10**400)

    assert (made.status_code, http.get(AT).json()["attributes"]["big"]) == (201, "string")
    assert refusal(declared) == (409, "conflict", None)
    assert refusal(refused)[:2] == (400, "invalid_request")
    assert [hit["key"] for hit in search(http, filter={"big": 10**400})["hits"]] == ["a"]


def test_the_page_narrows_by_what_its_own_process_has_taken_up(
    engine: SearchEngine, indexed: Database, http: httpx.Client
) -> None:
    engine.maintenance.close()
    shop = engine.collections.get("shop")
    assert shop.generation is not None
    row = new_image(
        "new", np.eye(engine.encoder.embed_dim, dtype=np.float32)[0], attributes={"brandnew": "x"}
    )
    Images(indexed).put(shop.collection_id, shop.generation.generation_id, [row])  # as another process would

    assert http.get("/", params={"collection": "shop", "q": "x"}).status_code == 200


def test_the_page_narrows_by_an_attribute_that_is_named_like_an_operator(http: httpx.Client) -> None:
    put(http, "a", **{"not": "x", "or": "y"})

    page = http.get("/", params={"collection": "shop", "q": "x", "f": ["not:x", "or:y"]})

    assert page.status_code == 200
    assert page.text.count('class="hit"') == 1
