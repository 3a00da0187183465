from collections import Counter
from typing import Any

import numpy as np
import pytest

from indexer.attributes import AttributeIndex, Type
from indexer.columns import FEW_WORDS, Mask
from indexer.conditions import FilterError
from indexer.facets import MOST_VALUES, Range, facet
from indexer.filters import parse, passing
from tests.rows import ids_of

TYPES: dict[str, Type] = {
    "size": "string", "sku": "string", "price": "number", "tags": "strings", "sale": "bool", "made": "datetime"
}  # fmt: skip
COUNT = 600


def rows_at_random() -> list[dict[str, Any]]:
    rng = np.random.default_rng(8)
    rows = []
    for i in range(COUNT):
        row = {
            "size": "SMLX"[rng.integers(4)],
            "sku": f"number {i % (2 * FEW_WORDS)}",
            "price": float(rng.integers(0, 40)) / 4,
            "tags": [f"t{t}" for t in sorted(set(rng.integers(0, 6, rng.integers(0, 4)).tolist()))],
            "sale": bool(rng.integers(2)),
            "made": f"20{rng.integers(10, 30)}-06-01",
        }
        rows.append({name: value for name, value in row.items() if rng.random() < 0.9})
    return rows


ROWS = rows_at_random()


@pytest.fixture(scope="module")
def index() -> AttributeIndex:
    first = AttributeIndex(TYPES).with_rows(np.arange(500), ROWS[:500])
    return first.with_rows(np.arange(500, COUNT), ROWS[500:])


def everything(index: AttributeIndex) -> list[Mask]:
    return [np.ones(len(part.ids), dtype=bool) for part in index.parts]


@pytest.mark.parametrize("given", [None, "price > 5", "size = S and not tags in (t1, t2)", "price = 77"])
@pytest.mark.parametrize("name", ["size", "sku", "price", "tags", "sale"])
def test_a_facet_counts_what_a_loop_counts(index: AttributeIndex, name: str, given: str | None) -> None:
    masks = everything(index) if given is None else passing(parse(given), index)
    chosen = [ROWS[i] for i in ids_of(index, masks)]
    own = [row[name] for row in chosen if name in row]
    truth = Counter(v for value in own for v in (value if isinstance(value, list) else [value]))

    found = facet(name, [], index, masks)

    assert found.missing == len(chosen) - len(own)
    assert found.distinct == len(truth)
    assert (
        found.values
        == sorted(truth.items(), key=lambda one: (-one[1], str(one[0]) if name == "sale" else one[0]))[
            :MOST_VALUES
        ]
    )


def test_ranges_cut_the_line_and_hold_their_lower_edge(index: AttributeIndex) -> None:
    prices = [row["price"] for row in ROWS if "price" in row]

    found = facet("price", [2, 5.5], index, everything(index))

    assert found.ranges == [
        Range(None, 2, sum(p < 2 for p in prices)),
        Range(2, 5.5, sum(2 <= p < 5.5 for p in prices)),
        Range(5.5, None, sum(p >= 5.5 for p in prices)),
    ]
    assert found.missing == COUNT - len(prices)


def test_dates_are_counted_by_ranges_of_dates(index: AttributeIndex) -> None:
    dates = [row["made"] for row in ROWS if "made" in row]

    found = facet("made", ["2020-01-01"], index, everything(index))

    assert [r.count for r in found.ranges] == [sum(d < "2020" for d in dates), sum(d > "2020" for d in dates)]


def test_values_are_shown_as_they_are_put() -> None:
    index = AttributeIndex(TYPES).with_rows(
        np.arange(2), [{"price": 3, "sale": True, "made": "2026-01-31"}, {"price": 0.5}]
    )

    shown = {
        name: [v for v, _ in facet(name, [], index, everything(index)).values]
        for name in ("price", "sale", "made")
    }

    assert shown == {"price": [0.5, 3], "sale": [True], "made": ["2026-01-31T00:00:00Z"]}
    assert isinstance(shown["price"][1], int)


@pytest.mark.parametrize(
    ("name", "edges", "said"),
    [
        ("colour", [], "no image here has the attribute 'colour'; there are: made, price"),
        ("size", [1], "size is of type string: ranges are for numbers and dates"),
        ("price", [5, 1], "the ranges of price must have ascending edges"),
        ("price", [1, 1], "ascending edges"),
        ("made", ["soon"], "an edge of its ranges is no date or time"),
    ],
)
def test_a_facet_that_makes_no_sense_is_refused(
    index: AttributeIndex, name: str, edges: list[Any], said: str
) -> None:
    with pytest.raises(FilterError, match=said):
        facet(name, edges, index, everything(index))
