from typing import Any

import numpy as np
import pytest

from indexer.attributes import AttributeIndex

ROWS: dict[int, dict[str, Any]] = {
    2: {"gender": "Women", "price": 3, "sale": True},
    3: {"gender": "Men", "price": 3.0, "sale": 1},
    5: {"gender": "Women", "price": "3", "sale": "true"},
    7: {"tags": ["red", "warm", "red"], "sale": False},
    11: {"tags": [], "sale": 0},
    13: {"tags": ["warm", "Women"], "price": 3.5},
    2**40: {"gender": "", "price": -0.0},
}


@pytest.fixture
def index() -> AttributeIndex:
    return AttributeIndex().with_rows(np.array(list(ROWS)), ROWS.values())


@pytest.mark.parametrize(
    ("name", "value", "ids"),
    [
        ("gender", "Women", [2, 5]),
        ("gender", "women", []),
        ("gender", "", [2**40]),
        ("price", 3, [2, 3]),
        ("price", 3.0, [2, 3]),
        ("price", "3", [5]),
        ("price", 0, [2**40]),
        ("price", True, []),
        ("sale", True, [2]),
        ("sale", 1, [3]),
        ("sale", 1.0, [3]),
        ("sale", "true", [5]),
        ("sale", False, [7]),
        ("sale", 0, [11]),
        ("tags", "red", [7]),
        ("tags", "warm", [7, 13]),
        ("tags", "", []),
        ("colour", "red", []),
    ],
)
def test_a_value_has_the_rows_that_hold_it_in_its_own_type(
    index: AttributeIndex, name: str, value: object, ids: list[int]
) -> None:
    assert index.equal(name, value).tolist() == ids


def test_rows_that_come_later_are_found_beside_the_first_and_the_old_index_stays_as_it_was(
    index: AttributeIndex,
) -> None:
    later = index.with_rows(np.array([4, 1]), [{"gender": "Women"}, {"gender": "Women", "size": "L"}])

    assert later.equal("gender", "Women").tolist() == [1, 2, 4, 5]
    assert later.names == ["gender", "price", "sale", "size", "tags"]
    assert index.equal("gender", "Women").tolist() == [2, 5]
    assert index.names == ["gender", "price", "sale", "tags"]


def test_an_attribute_is_of_its_first_values_type(index: AttributeIndex) -> None:
    assert index.types() == {"gender": "string", "price": "number", "sale": "bool", "tags": "string"}


def test_ids_and_rows_of_different_number_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        AttributeIndex().with_rows(np.array([1, 2]), [{"a": 1}])


def test_only_some_rows_keep_their_values_and_the_rest_is_forgotten() -> None:
    index = AttributeIndex().with_rows(np.array([1, 2]), [{"colour": "red"}, {"colour": "blue", "size": 3}])
    index = index.with_rows(np.array([5]), [{"colour": "red"}])

    kept = index.only(np.array([1, 5]))

    assert kept.equal("colour", "red").tolist() == [1, 5]
    assert kept.types() == {"colour": "string"}
    assert index.equal("size", 3).tolist() == [2]
