from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from search import messages as m

BAD: list[tuple[type[m.Request], str, str | None, str]] = [
    (m.SearchRequest, "", None, "not JSON"),
    (m.SearchRequest, "{", None, "not JSON"),
    (m.SearchRequest, '{"collection": "shop"} x', None, "not JSON"),
    (m.SearchRequest, '{"collection": "\\ud800"}', None, "not JSON"),
    (m.SearchRequest, "[]", None, "the body: expected `object`, got `array`"),
    (m.SearchRequest, "{}", "collection", "collection is missing"),
    (m.SearchRequest, '{"collection": null}', "collection", "expected `str`, got `null`"),
    (m.SearchRequest, '{"collection": ""}', "collection", "length >= 1"),
    (m.SearchRequest, '{"collection": "shop", "txt": "a"}', "txt", "unknown field txt"),
    (m.SearchRequest, '{"collection": "shop", "k": 0}', "k", ">= 1"),
    (m.SearchRequest, '{"collection": "shop", "k": 1001}', "k", "<= 1000"),
    (m.SearchRequest, '{"collection": "shop", "k": "ten"}', "k", "expected `int`, got `str`"),
    (m.SearchRequest, '{"collection": "shop", "k": 2.5}', "k", "expected `int`, got `float`"),
    (m.SearchRequest, '{"collection": "shop", "k": true}', "k", "expected `int`, got `bool`"),
    (m.SearchRequest, '{"collection": "shop", "k": 1e400}', "k", "out of range"),
    (m.SearchRequest, '{"collection": "shop", "target": "both"}', "target", "'both'"),
    (m.SearchRequest, '{"collection": "shop", "vector": [1, "a"]}', "vector[1]", "expected `float`"),
    (
        m.SearchRequest,
        '{"collection": "shop", "filter": []}',
        "filter",
        "expected `str | object`, got `array`",
    ),
    (
        m.SearchRequest,
        '{"collection": "shop", "facets": [3]}',
        "facets[0]",
        "expected `str | object`, got `int`",
    ),
    (
        m.SearchRequest,
        f'{{"collection": "shop", "facets": {["a"] * 21}}}'.replace("'", '"'),
        "facets",
        "<= 20",
    ),
    (m.PutCollectionRequest, '{"attributes": {"a": "text"}}', "attributes", "'text'"),
    (m.SearchRequest, f'{{"collection": "shop", "text": "{"a" * 20_001}"}}', "text", "length <= 20000"),
    (m.SearchRequest, f'{{"collection": "shop", "image_key": "{"a" * 513}"}}', "image_key", "<= 512"),
    (m.PutImageRequest, '{"texts": ["a", 3]}', "texts[1]", "expected `str`, got `int`"),
    (m.PutImageRequest, '{"attributes": {"a": {"b": 1}}}', "attributes", "got `object`"),
    (m.PutCollectionRequest, '{"limits": {"near": 1}}', "limits.near", "unknown field limits.near"),
    (m.PutCollectionRequest, '{"limits": {"near_copy": 257}}', "limits.near_copy", "<= 256"),
    (m.PutCollectionRequest, '{"limits": {"similar": -1.5}}', "limits.similar", ">= -1"),
    (m.EmbeddingsRequest, '{"input": "a"}', "model", "model is missing"),
    (m.EmbeddingsRequest, '{"model": "tiny", "input": [{"a": 1}]}', "input[0]", "got `object`"),
    (m.EmbeddingsRequest, '{"model": "tiny", "input": "a", "dimensions": 0}', "dimensions", ">= 1"),
    (m.LookupRequest, '{"kinds": ["exact", "same"]}', "kinds[1]", "'same'"),
    (m.LookupRequest, '{"banks": [""]}', "banks[0]", "length >= 1"),
]


@pytest.mark.parametrize(("kind", "body", "param", "said"), BAD)
def test_a_bad_body_names_its_field_and_says_what_is_wrong(
    kind: type[m.Request], body: str, param: str | None, said: str
) -> None:
    with pytest.raises(m.BadRequest) as caught:
        m.parse(kind, body)

    assert (caught.value.param, said in str(caught.value)) == (param, True), str(caught.value)


def test_bytes_that_are_no_text_are_not_json() -> None:
    with pytest.raises(m.BadRequest, match="not JSON"):
        m.parse(m.SearchRequest, b'{"collection": "\xff"}')


def test_a_deeply_nested_body_is_refused_as_any_other() -> None:
    with pytest.raises(m.BadRequest, match="unknown field x"):
        m.parse(m.SearchRequest, '{"collection": "shop", "x": ' + "[" * 200_000)


def test_null_stands_for_an_optional_field_that_is_not_given() -> None:
    body = """{"collection": "shop", "text": "a mug", "image": null, "image_key": null, "vector": null,
               "caption_style": null}"""

    assert m.parse(m.SearchRequest, body) == m.SearchRequest(collection="shop", text="a mug")


def test_the_defaults_are_those_that_are_documented() -> None:
    assert msgspec.to_builtins(m.parse(m.LookupRequest, "{}")) == {"kinds": ["exact", "near_copy", "similar"]}
    assert m.parse(m.SearchRequest, '{"collection": "shop"}') == m.SearchRequest(
        collection="shop", k=10, filter={}, target="images", captions=False
    )
    assert m.Limits() == m.Limits(near_copy=31, similar=0.9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: m.SearchRequest(collection="shop", vector=[0.5, -1.0], filter={"a": True, "b": 2, "c": "x"}),
        lambda: m.PutImageRequest(title="Mug", texts=["a", "b"], attributes={"sizes": ["s", "m"], "x": 1.5}),
        lambda: m.PutCollectionRequest(bank=True, limits=m.LimitChanges(near_copy=3)),
        lambda: m.EmbeddingsRequest(input=["a", 3, [1, 2]], model="tiny", dimensions=4),
        lambda: m.LookupRequest(image="aa", banks=["a"], kinds=["exact"]),
    ],
)
def test_a_request_survives_the_wire(make: Callable[[], m.Request]) -> None:
    request = make()

    assert m.parse(type(request), m.to_json(request)) == request


@pytest.mark.parametrize(
    ("fields", "param"), [({"k": 0}, "k"), ({"colour": "red"}, "colour"), ({"filter": 3}, "filter")]
)
def test_python_values_are_checked_like_json(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(m.BadRequest, match=param) as caught:
        m.convert(m.SearchRequest, {"collection": "shop", **fields})

    assert caught.value.param == param


def test_true_stays_apart_from_1_in_filters_and_attributes() -> None:
    request = m.parse(m.SearchRequest, '{"collection": "shop", "filter": {"a": true, "b": 1, "c": 1.0}}')

    assert isinstance(request.filter, dict)
    assert [type(value) for value in request.filter.values()] == [bool, int, float]


def test_a_client_takes_fields_it_does_not_know_as_news() -> None:
    body = b'{"text": "a mug", "score": 0.5, "generated": true, "mood": "calm"}'

    assert msgspec.json.decode(body, type=m.Caption) == m.Caption("a mug", 0.5)
