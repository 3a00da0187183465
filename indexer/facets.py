"""Facets: how many of the rows that a filter lets through have each value of an attribute, or lie in each range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from indexer.attributes import AttributeIndex, Part, Type, shown, stored
from indexer.columns import Mask, Numbers, count
from indexer.conditions import FilterError
from indexer.filters import known_type

MOST_VALUES = 100
"""Of one facet, those with the most rows."""

Shown = str | float | bool


@dataclass(frozen=True)
class Range:
    start: Shown | None
    """Itself in; None: from the lowest."""
    end: Shown | None
    """Itself not in; None: to the highest."""
    count: int


@dataclass(frozen=True)
class Facet:
    values: list[tuple[Shown, int]]
    """The most frequent first, then by value; empty when ranges were asked for."""
    ranges: list[Range]
    distinct: int
    """Values there are, beyond those that are shown too."""
    missing: int
    """Rows without the attribute."""


def facet(name: str, edges: Sequence[Shown], attributes: AttributeIndex, masks: Sequence[Mask]) -> Facet:
    """Over the rows of the masks (one a part): by value, or by the ranges that `edges` cut.

    Raises FilterError for an attribute no image here has, and for ranges of what has no order in numbers.
    """
    kind = known_type(name, attributes)
    parts = list(zip(attributes.parts, masks, strict=True))
    with_value = sum(count(mask & column.exists()) for part, mask in parts if (column := part.column(name)))
    missing = sum(count(mask) for mask in masks) - with_value
    if edges:
        return Facet([], _ranges(name, kind, edges, parts), 0, missing)
    counts: Counter[float | str] = Counter()
    for part, mask in parts:
        column = part.column(name)
        if column is not None:
            counts.update(column.counts(mask))
    best = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:MOST_VALUES]
    return Facet([(shown(value, kind), n) for value, n in best], [], len(counts), missing)


def _ranges(name: str, kind: Type, edges: Sequence[Shown], parts: Iterable[tuple[Part, Mask]]) -> list[Range]:
    if kind not in ("number", "datetime"):
        raise FilterError(f"{name} is of type {kind}: ranges are for numbers and dates")
    try:
        cuts = [stored(edge, kind) for edge in edges]
    except ValueError as error:
        raise FilterError(f"{name} is of type {kind}, and an edge of its ranges {error}") from None
    numbers = [cut for cut in cuts if isinstance(cut, float)]
    if sorted(set(numbers)) != numbers:
        raise FilterError(f"the ranges of {name} must have ascending edges, got {list(edges)}")
    counts = [0] * (len(numbers) + 1)
    for part, mask in parts:
        column = part.column(name)
        if isinstance(column, Numbers):
            counts = [a + b for a, b in zip(counts, column.between(numbers, mask), strict=True)]
    ends = [None, *edges, None]
    return [Range(ends[i], ends[i + 1], n) for i, n in enumerate(counts)]
