from typing import Any

import numpy as np
import pytest

from indexer.attributes import AttributeIndex
from indexer.filters import FilterError, allowed_ids

SIZES = ("S", "M", "L")


def rows_at_random(n: int) -> dict[int, dict[str, Any]]:
    rng = np.random.default_rng(3)
    ids = np.sort(rng.choice(10 * n, n, replace=False)).tolist()
    return {
        i: {
            "size": SIZES[rng.integers(3)],
            "price": int(rng.integers(5)),
            "sale": bool(rng.integers(2)),
            "tags": [f"t{t}" for t in rng.integers(0, 6, rng.integers(0, 4))],
        }
        for i in ids
    }


@pytest.fixture(scope="module")
def rows() -> dict[int, dict[str, Any]]:
    return rows_at_random(400)


@pytest.fixture(scope="module")
def index(rows: dict[int, dict[str, Any]]) -> AttributeIndex:
    """Made in parts, as it grows in life."""
    index, ids = AttributeIndex(), list(rows)
    for part in (ids[:1], ids[1:150], ids[150:]):
        index = index.with_rows(np.array(part), [rows[i] for i in part])
    return index


@pytest.mark.parametrize(
    "where",
    [
        {"size": "M"},
        {"size": "M", "price": 3},
        {"price": 3.0, "sale": True},
        {"tags": "t2"},
        {"tags": "t2", "size": "L", "sale": False},
        {"tags": "t5", "size": "S", "price": 4, "sale": True},
        {"price": 77},
        {"price": 77, "size": "M"},
        {"size": "M", "sale": 1},
    ],
)
def test_a_filter_allows_the_rows_that_a_loop_over_them_finds(
    rows: dict[int, dict[str, Any]], index: AttributeIndex, where: dict[str, Any]
) -> None:
    assert allowed_ids(where, index).tolist() == [i for i, row in rows.items() if passes(row, where)]


def test_an_attribute_that_no_image_has_is_refused_with_those_that_there_are(index: AttributeIndex) -> None:
    with pytest.raises(FilterError, match=r"the attribute 'colour'; there are: price, sale, size, tags$"):
        allowed_ids({"size": "M", "colour": "red"}, index)


def test_without_attributes_the_refusal_says_so() -> None:
    with pytest.raises(FilterError, match=r"there are: none$"):
        allowed_ids({"colour": "red"}, AttributeIndex())


@pytest.mark.parametrize("value", [None, ["M"], {"gt": 3}])
def test_a_value_that_is_no_plain_one_is_refused_by_name(index: AttributeIndex, value: object) -> None:
    with pytest.raises(FilterError, match=r"filter\.size must be a string, a number or true/false, got"):
        allowed_ids({"size": value}, index)


def test_an_empty_filter_is_refused_since_it_would_have_to_allow_what_has_no_attributes(
    index: AttributeIndex,
) -> None:
    with pytest.raises(FilterError, match="names no attribute"):
        allowed_ids({}, index)


def passes(row: dict[str, Any], where: dict[str, Any]) -> bool:
    return all(
        any(
            one == value and isinstance(one, bool) == isinstance(value, bool)
            for one in (row[name] if isinstance(row[name], list) else [row[name]])
        )
        for name, value in where.items()
    )
