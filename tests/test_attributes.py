from typing import Any

import numpy as np
import pytest

from indexer.attributes import AttributeIndex, Type, stored, text_of, type_of, widened
from indexer.columns import Numbers
from tests.rows import ids_of


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("red", "string"),
        ("", "string"),
        ("3", "string"),
        (3, "number"),
        (-0.5, "number"),
        (2**53, "number"),
        (2**53 + 1, "string"),
        (True, "bool"),
        (["a"], "strings"),
        ([], "strings"),
        ("2026-01-31", "datetime"),
        ("2026-01-31T09:30:00Z", "datetime"),
        ("2026-01-31 09:30:00.25+02:00", "datetime"),
        ("2026-02-31", "string"),
        ("2026-01", "string"),
        ("0001-01-01T00:00:00+01:00", "string"),
        ("9999-12-31T23:59:59-01:00", "string"),
        ("31.01.2026", "string"),
    ],
)
def test_a_value_says_its_type(value: Any, kind: Type) -> None:
    assert type_of(value) == kind


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (None, "number", "number"),
        ("number", "number", "number"),
        ("number", "bool", "string"),
        ("datetime", "string", "string"),
        ("string", "strings", "strings"),
        ("strings", "number", "strings"),
    ],
)
def test_a_type_is_widened_to_hold_both(one: Type | None, other: Type, both: Type) -> None:
    assert widened(one, other) == both


@pytest.mark.parametrize(
    ("value", "kind", "kept"),
    [
        ("3.5", "number", 3.5),
        (3, "number", 3.0),
        (3.0, "string", "3"),
        (2**53 + 1, "string", "9007199254740993"),
        (True, "string", "true"),
        (True, "bool", "true"),
        ("false", "bool", "false"),
        ("1970-01-02", "datetime", 86400.0),
        ("1970-01-01T01:00:00+01:00", "datetime", 0.0),
        ("a", "strings", ["a"]),
        ([1, "b", True], "strings", ["1", "b", "true"]),
        (None, "number", None),
    ],
)
def test_a_value_is_kept_in_its_attributes_type(value: Any, kind: Type, kept: Any) -> None:
    assert stored(value, kind) == kept


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("XL", "number", "is no number"),
        ("nan", "number", "is no number"),
        (True, "number", "is no number"),
        (["3"], "number", "is no number"),
        (10**400, "number", "is no number"),
        ("soon", "datetime", "is no date or time like 2026-01-31"),
        (3, "datetime", "is no date or time"),
        ("yes", "bool", "is neither true nor false"),
        (["a"], "string", "is a list"),
    ],
)
def test_a_value_that_cannot_be_of_a_type_is_refused_with_the_reason(
    value: Any, kind: Type, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        stored(value, kind)


def test_numbers_as_words_are_whole_when_they_are_whole() -> None:
    assert [text_of(v) for v in (3, 3.0, 3.5, "3.0")] == ["3", "3", "3.5", "3.0"]


TYPES: dict[str, Type] = {"colour": "string", "price": "number", "tags": "strings", "sale": "bool"}


def rows_at_random(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    rows = []
    for _ in range(count):
        row = {
            "colour": ("red", "green", "blue")[rng.integers(3)],
            "price": int(rng.integers(5)),
            "tags": [f"t{t}" for t in rng.integers(0, 4, rng.integers(3))],
            "sale": bool(rng.integers(2)),
        }
        rows.append({name: value for name, value in row.items() if rng.random() < 0.8})
    return rows


def as_rows(index: AttributeIndex) -> dict[int, dict[str, Any]]:
    """What the columns say of every id."""
    out: dict[int, dict[str, Any]] = {}
    for part in index.parts:
        for i, embedding_id in enumerate(part.ids.tolist()):
            one = np.zeros(len(part.ids), dtype=bool)
            one[i] = True
            row = {}
            for name, column in part.columns.items():
                if column.exists()[i]:
                    found = list(column.counts(one))
                    row[name] = sorted(found, key=str) if index.types[name] == "strings" else found[0]
            out[embedding_id] = row
    return out


def expected(rows: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    def kept(name: str, value: Any) -> Any:
        word = stored(value, TYPES[name])
        return sorted(set(word)) if isinstance(word, list) else word

    return {i: {name: kept(name, value) for name, value in row.items()} for i, row in rows.items()}


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_come_in_parts_and_are_dropped_are_those_of_a_dict(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index, following = AttributeIndex(TYPES), 1
    truth: dict[int, dict[str, Any]] = {}
    for _ in range(40):
        if rng.random() < 0.2 and truth:
            ids = sorted(i for i in truth if rng.random() < 0.7)
            index, truth = index.only(np.array(ids, dtype=np.int64)), {i: truth[i] for i in ids}
        else:
            rows = rows_at_random(rng, int(rng.integers(0, 9)))
            ids = list(range(following, following + len(rows)))
            following += len(rows) + 3
            index = index.with_rows(np.array(ids, dtype=np.int64), rows)
            truth |= dict(zip(ids, rows, strict=True))

    assert as_rows(index) == expected(truth)
    assert index.count == len(truth)
    assert len(index.parts) < 10


def test_an_index_stays_as_it_was_when_rows_come() -> None:
    first = AttributeIndex(TYPES).with_rows(np.array([1, 2]), [{"colour": "red"}, {}])

    later = first.with_rows(np.array([3]), [{"colour": "blue", "price": 3}])

    assert as_rows(first) == {1: {"colour": "red"}, 2: {}}
    assert as_rows(later) == {1: {"colour": "red"}, 2: {}, 3: {"colour": "blue", "price": 3.0}}


def test_ids_and_rows_of_different_number_are_refused() -> None:
    with pytest.raises(ValueError, match="2 ids for 1 rows"):
        AttributeIndex(TYPES).with_rows(np.array([1, 2]), [{"price": 1}])


def test_a_value_that_does_not_fit_its_declared_type_counts_as_none() -> None:
    index = AttributeIndex({"size": "number"}).with_rows(np.array([1, 2]), [{"size": "XL"}, {"size": "4"}])

    (part,) = index.parts
    column = part.column("size")

    assert isinstance(column, Numbers)
    assert column.exists().tolist() == [False, True]


def test_dead_rows_are_taken_out_of_masks() -> None:
    index = AttributeIndex(TYPES).with_rows(np.array([1, 2, 3, 4, 5, 6, 7, 8]), [{}] * 8)
    index = index.with_rows(np.array([20]), [{}])
    whole = [np.ones(len(part.ids), dtype=bool) for part in index.parts]

    living = ids_of(index, index.without(whole, np.array([2, 5, 9, 20, 21])))

    assert living == [1, 3, 4, 6, 7, 8]
    assert ids_of(index, whole) == [1, 2, 3, 4, 5, 6, 7, 8, 20]
