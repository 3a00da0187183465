import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from indexer.attributes import AttributeIndex, Type
from indexer.conditions import AllOf, AnyOf, Compare, Condition, Exists, FilterError, Not, OneOf
from indexer.filter_text import written
from indexer.filters import parse, passing
from tests.rows import ids_of

TYPES: dict[str, Type] = {
    "size": "string",
    "price": "number",
    "sale": "bool",
    "tags": "strings",
    "made": "datetime",
}
SIZES = ("S", "M", "L", "XL")
Row = dict[str, Any]


def rows_at_random(n: int) -> dict[int, Row]:
    rng = np.random.default_rng(3)
    ids = np.sort(rng.choice(10 * n, n, replace=False)).tolist()
    rows = {}
    for i in ids:
        row = {
            "size": SIZES[rng.integers(4)],
            "price": int(rng.integers(5)) / 2,
            "sale": bool(rng.integers(2)),
            "tags": [f"t{t}" for t in rng.integers(0, 6, rng.integers(0, 4))],
            "made": f"20{rng.integers(10, 30)}-01-0{rng.integers(1, 9)}",
        }
        rows[i] = {name: value for name, value in row.items() if rng.random() < 0.85}
    return rows


ROWS = rows_at_random(400)


@pytest.fixture(scope="module")
def index() -> AttributeIndex:
    """Made in parts, as it grows in life."""
    index, ids = AttributeIndex(TYPES), list(ROWS)
    for part in (ids[:300], ids[300:390], ids[390:]):
        index = index.with_rows(np.array(part), [ROWS[i] for i in part])
    return index


def allowed(given: Any, index: AttributeIndex) -> list[int]:
    return ids_of(index, passing(parse(given), index))


def those(test: Callable[[Row], bool]) -> list[int]:
    return [i for i, row in ROWS.items() if test(row)]


@pytest.mark.parametrize(
    ("given", "test"),
    [
        ({"size": "M"}, lambda r: r.get("size") == "M"),
        ({"size": "M", "price": 1.5}, lambda r: r.get("size") == "M" and r.get("price") == 1.5),
        ({"price": "1.5"}, lambda r: r.get("price") == 1.5),
        ({"sale": True}, lambda r: r.get("sale") is True),
        ({"sale": "false"}, lambda r: r.get("sale") is False),
        ({"tags": "t2"}, lambda r: "t2" in r.get("tags", [])),
        ({"tags": ["t2", "t3"]}, lambda r: bool({"t2", "t3"} & set(r.get("tags", [])))),
        ({"size": ["S", "XL", "no"]}, lambda r: r.get("size") in ("S", "XL")),
        ({"size": []}, lambda _: False),
        ({"price": [0, 2]}, lambda r: r.get("price") in (0, 2)),
        ({"price": {">=": 1, "<": 2}}, lambda r: 1 <= r.get("price", -1) < 2),
        ({"price": {"!=": 1}}, lambda r: r.get("price") != 1),
        ({"price": {"in": [1, 2]}}, lambda r: r.get("price") in (1, 2)),
        ({"size": {"prefix": "X"}}, lambda r: r.get("size", "").startswith("X")),
        ({"tags": {"prefix": "t"}}, lambda r: bool(r.get("tags"))),
        ({"size": {">": "M"}}, lambda r: r.get("size", "") > "M"),
        ({"tags": {"exists": True}}, lambda r: "tags" in r),
        ({"tags": {"exists": False}}, lambda r: "tags" not in r),
        ({"made": {">": "2019-12-31"}}, lambda r: r.get("made", "") > "2019-12-31"),
        ({"made": {"<=": "2020-01-03T00:00:00Z"}}, lambda r: "" < r.get("made", "") <= "2020-01-03"),
        ({"not": {"size": "M"}}, lambda r: r.get("size") != "M"),
        ({"not": "size = M or price > 1"}, lambda r: not (r.get("size") == "M" or r.get("price", 0) > 1)),
        ({"or": [{"size": "M"}, "price = 2"]}, lambda r: r.get("size") == "M" or r.get("price") == 2),
        ({"and": ["size = M", "price = 2"]}, lambda r: r.get("size") == "M" and r.get("price") == 2),
        (
            "size = M and (sale = true or price > 1)",
            lambda r: r.get("size") == "M" and (r.get("sale") is True or r.get("price", 0) > 1),
        ),
        (
            "size = M and sale = true or price > 1",
            lambda r: (r.get("size") == "M" and r.get("sale") is True) or r.get("price", 0) > 1,
        ),
        ("not size in (S, M) and tags exists", lambda r: r.get("size") not in ("S", "M") and "tags" in r),
        ("size not in (S, M)", lambda r: r.get("size") not in ("S", "M")),
        ("tags not exists", lambda r: "tags" not in r),
        ("price between 0.5 and 1.5", lambda r: 0.5 <= r.get("price", -1) <= 1.5),
        (
            "size prefix 'X' or not not sale = true",
            lambda r: r.get("size", "").startswith("X") or r.get("sale") is True,
        ),
    ],
)
def test_a_filter_allows_the_rows_that_a_loop_over_them_finds(
    index: AttributeIndex, given: Any, test: Callable[[Row], bool]
) -> None:
    assert allowed(given, index) == those(test)


SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip


def condition_at_random(rng: np.random.Generator, depth: int) -> Condition:
    kind = rng.integers(7 if depth else 4)
    match kind:
        case 0:
            return Compare("price", list(SIGNS)[rng.integers(5)], int(rng.integers(5)) / 2)
        case 1:
            return OneOf("tags", tuple(f"t{t}" for t in rng.integers(0, 8, rng.integers(1, 4))))
        case 2:
            return Compare("size", list(SIGNS)[rng.integers(5)], SIZES[rng.integers(4)])
        case 3:
            return Exists(list(TYPES)[rng.integers(5)])
        case 4:
            return Not(condition_at_random(rng, depth - 1))
    parts = tuple(condition_at_random(rng, depth - 1) for _ in range(rng.integers(2, 4)))
    return AllOf(parts) if kind == 5 else AnyOf(parts)


def holds(condition: Condition, row: Row) -> bool:
    match condition:
        case AllOf(parts):
            return all(holds(one, row) for one in parts)
        case AnyOf(parts):
            return any(holds(one, row) for one in parts)
        case Not(inner):
            return not holds(inner, row)
        case Exists(name):
            return name in row
        case OneOf(name, values):
            return bool(set(values) & set(row.get(name, [])))
        case Compare(name, sign, value):
            return name in row and SIGNS[sign](row[name], value)
    raise AssertionError(condition)


@pytest.mark.parametrize("seed", range(60))
def test_any_condition_allows_what_a_loop_finds_and_reads_back_as_it_is_written(
    index: AttributeIndex, seed: int
) -> None:
    condition = condition_at_random(np.random.default_rng(seed), 4)

    assert ids_of(index, passing(condition, index)) == those(lambda row: holds(condition, row))
    assert allowed(written(condition), index) == those(lambda row: holds(condition, row))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"colour": "red"},
            r"no image here has the attribute 'colour'; there are: made, price, sale, size, tags$",
        ),
        ("not colour exists", "no image here has the attribute 'colour'"),
        ({"price": "cheap"}, 'price is of type number, and "cheap" is no number'),
        ({"price": True}, "price is a number, got true"),
        ({"price": 10**400}, "price is of type number, and 1000+ is no number"),
        ("price < 1" + "0" * 400, "price is of type number, and 1000+ is no number"),
        ({"sale": 1}, "sale is of type bool, and 1 is neither true nor false"),
        ({"made": "soon"}, 'made is of type datetime, and "soon" is no date or time'),
        ({"sale": {"<": True}}, "sale is of type bool, which has no order"),
        ({"tags": {">": "t"}}, "tags is of type strings, which has no order"),
        ({"price": {"prefix": "1"}}, "price is a number: only strings have a prefix"),
        ({"size": None}, r"filter\.size must be a string, a number or true/false, got None"),
        ({"size": {"gt": 3}}, r"filter\.size has the unknown comparison 'gt'; there are: =, !=, <"),
        ({"size": {}}, r"filter\.size is an empty object"),
        ({"size": [["M"]]}, r"filter\.size\[0\] must be a string"),
        ({"size": {"in": "M"}}, r"filter\.size\.in must be a list"),
        ({"size": {"exists": "yes"}}, r"filter\.size\.exists must be true or false"),
        ({"or": []}, r"filter\.or has 0 conditions, allowed are 1 to 1000"),
        ({"or": [{"size": "M"}, {}]}, r"filter\.or\[1\] names no attribute"),
        ({"and": [3]}, r"filter\.and\[0\] must be an object or a string, got 3"),
        ({}, "filter names no attribute: leave it out to allow everything"),
        ("", "the filter is empty: leave it out"),
        ({"and": [{"size": "M"}] * 1001}, "has 1001 conditions"),
        ({"and": [{"or": [{"size": "M"}] * 501}] * 2}, "more than 1000 conditions"),
        ("not " * 60 + "size = M", "nested more than 50 deep"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_with_the_reason(
    index: AttributeIndex, given: Any, said: str
) -> None:
    with pytest.raises(FilterError, match=said):
        passing(parse(given), index)


def test_an_attribute_named_like_an_operator_is_reached_in_backquotes() -> None:
    index = AttributeIndex({"or": "string", "a b": "number"}).with_rows(
        np.array([1, 2]), [{"or": "x"}, {"a b": 3}]
    )

    assert allowed("`or` = x", index) == [1]
    assert allowed("`a b` >= 3", index) == [2]
    assert allowed({"or": "x"}, index) == [1]


def test_a_prefix_is_of_the_value_as_a_string() -> None:
    index = AttributeIndex({"s": "string"}).with_rows(
        np.array([1, 2, 3]), [{"s": 3.0}, {"s": True}, {"s": "x"}]
    )

    assert [allowed({"s": {"prefix": value}}, index) for value in (3.0, True, "")] == [[1], [2], [1, 2, 3]]


def test_without_rows_a_filter_allows_none() -> None:
    assert allowed({"price": 3}, AttributeIndex({"price": "number"})) == []


def test_a_column_that_no_row_of_a_part_has_is_empty_there() -> None:
    index = AttributeIndex({"a": "string", "b": "string"})
    index = index.with_rows(np.arange(8), [{"a": "x"}] * 8).with_rows(np.array([9]), [{"b": "y"}])

    assert allowed("b = y", index) == [9]
    assert allowed("b != y", index) == list(range(8))
