import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from search import messages as m
from search.openapi import ROUTES, document

METHODS = {"get", "put", "post", "delete"}


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(document())
    return loaded


def operations(openapi: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object anywhere in the document."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict):
        yield value
    for child in children:
        yield from nodes(child)


def test_the_document_has_the_frame_of_openapi_3_1(openapi: dict[str, Any]) -> None:
    assert sorted(openapi) == ["components", "info", "openapi", "paths"]
    assert openapi["openapi"] == "3.1.0"
    assert openapi["info"].keys() >= {"title", "version"}


def test_every_operation_has_what_openapi_asks_of_it(openapi: dict[str, Any]) -> None:
    for path, method, operation in operations(openapi):
        named = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
        assert method in METHODS
        assert path.startswith("/")
        assert [f"{{{name}}}" in path for name in named] == [True] * path.count("{")
        assert all(p["required"] and p["schema"] for p in operation["parameters"] if p["in"] == "path")
        assert all(code.isdigit() and r["description"] for code, r in operation["responses"].items())


def test_every_route_is_an_operation_once(openapi: dict[str, Any]) -> None:
    described = [(method, path) for path, method, _ in operations(openapi)]

    assert sorted(described) == sorted((route.method, route.path) for route in ROUTES)


def test_every_reference_leads_somewhere(openapi: dict[str, Any]) -> None:
    references = {node["$ref"] for node in nodes(openapi) if "$ref" in node}

    there = {f"#/components/schemas/{name}" for name in openapi["components"]["schemas"]}
    assert references
    assert references <= there


def test_a_put_may_answer_201_or_200_and_errors_have_our_shape(openapi: dict[str, Any]) -> None:
    put = openapi["paths"]["/v1/collections/{collection}/images/{key}"]["put"]["responses"]

    ours = {"$ref": "#/components/schemas/Image"}
    error = {"$ref": "#/components/schemas/ErrorResponse"}
    assert put["200"]["content"] == put["201"]["content"] == {"application/json": {"schema": ours}}
    assert put["422"]["content"] == {"application/json": {"schema": error}}


@pytest.mark.parametrize("kind", [m.SearchRequest, m.PutImageRequest, m.LookupRequest])
def test_a_schema_knows_the_fields_of_its_message(openapi: dict[str, Any], kind: type[m.Request]) -> None:
    schema = openapi["components"]["schemas"][kind.__name__]

    assert list(schema["properties"]) == [field.name for field in msgspec.structs.fields(kind)]
    assert schema["additionalProperties"] is False


def test_limits_and_defaults_stand_in_the_schema(openapi: dict[str, Any]) -> None:
    k = openapi["components"]["schemas"]["SearchRequest"]["properties"]["k"]

    assert (k["minimum"], k["maximum"], k["default"]) == (1, 1000, 10)
