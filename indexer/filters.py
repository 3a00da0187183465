"""The filter language: from a string or JSON to a condition, checked against the attributes, evaluated over columns.

    color = "red" and price < 50 and not brand in ("a", "b")
    {"color": "red", "price": {"<": 50}, "not": {"brand": ["a", "b"]}}

`not` and `!=` are exact complements: an image without a brand is none of brand a. `exists` leaves such images out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from indexer.attributes import AttributeIndex, Part, Type, stored, text_of
from indexer.columns import Column, Mask
from indexer.conditions import (
    DEEPEST,
    SIGNS,
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Exists,
    FilterError,
    Not,
    OneOf,
    Value,
    compare,
)
from indexer.filter_text import literal, parse_text

MOST_CONDITIONS = 1000
"""Of one filter, lists of values not counted."""


def parse(given: str | Mapping[str, Any]) -> Condition:
    """A condition from the string form or the JSON form. Raises FilterError."""
    condition = parse_text(given) if isinstance(given, str) else _object(given, "filter", 0)
    if sum(1 for _ in leaves(condition)) > MOST_CONDITIONS:
        raise FilterError(f"the filter has more than {MOST_CONDITIONS} conditions")
    return condition


def passing(condition: Condition, attributes: AttributeIndex) -> list[Mask]:
    """The rows that pass, a mask for each part of the attributes; rows of dead ids may be among them.

    Raises FilterError for an attribute that no image here has and a value that it cannot have.
    """
    ask = _checked(condition, attributes)
    return [ask(part) for part in attributes.parts]


# -- evaluation ------------------------------------------------------------------------------------------

Ask = Callable[[Part], Mask]


def _checked(condition: Condition, attributes: AttributeIndex) -> Ask:
    """The condition as a function of a part, with every name and value checked."""
    match condition:
        case AllOf(conditions):
            asks = [_checked(c, attributes) for c in conditions]
            return lambda part: np.logical_and.reduce([ask(part) for ask in asks])
        case AnyOf(conditions):
            asks = [_checked(c, attributes) for c in conditions]
            return lambda part: np.logical_or.reduce([ask(part) for ask in asks])
        case Not(inner):
            ask = _checked(inner, attributes)
            return lambda part: ~ask(part)
        case Exists(name):
            known_type(name, attributes)
            return _on_column(name, lambda column: column.exists())
        case OneOf(name, values):
            kind = known_type(name, attributes)
            wanted = [_asked(name, value, kind) for value in values]
            if kind in ("number", "datetime"):
                return _on_column(name, lambda column: np.isin(column.values, wanted))  # type: ignore[union-attr]
            return _on_column(name, lambda column: column.one_of(wanted))  # type: ignore[union-attr, arg-type]
        case Compare(name, sign, value):
            return _comparison(name, sign, value, known_type(name, attributes))


def _comparison(name: str, sign: str, value: Value, kind: Type) -> Ask:
    if sign == "prefix":
        if kind not in ("string", "strings"):
            raise FilterError(f"{name} is a {kind}: only strings have a prefix")
        start = text_of(value)
        return _on_column(name, lambda column: column.matching(lambda word: word.startswith(start)))  # type: ignore[union-attr]
    wanted = _asked(name, value, kind)
    if isinstance(wanted, float):
        number = wanted
        return _on_column(name, lambda column: column.compare(sign, number))  # type: ignore[union-attr]
    if sign == "=":
        return _on_column(name, lambda column: column.one_of([wanted]))  # type: ignore[union-attr]
    if kind != "string":
        raise FilterError(
            f"{name} is of type {kind}, which has no order: {sign} is for numbers, dates and strings"
        )
    test: Callable[[str], bool] = {
        "<": lambda word: word < wanted,
        "<=": lambda word: word <= wanted,
        ">": lambda word: word > wanted,
        ">=": lambda word: word >= wanted,
    }[sign]
    return _on_column(name, lambda column: column.matching(test))  # type: ignore[union-attr]


def _on_column(name: str, ask: Callable[[Column], Mask]) -> Ask:
    def of(part: Part) -> Mask:
        column = part.column(name)
        return np.zeros(len(part.ids), dtype=bool) if column is None else ask(column)

    return of


def known_type(name: str, attributes: AttributeIndex) -> Type:
    """Raises FilterError, with the attributes that there are."""
    kind = attributes.types.get(name)
    if kind is None:
        there = ", ".join(attributes.names) or "none"
        raise FilterError(f"no image here has the attribute {name!r}; there are: {there}")
    return kind


def _asked(name: str, value: Value, kind: Type) -> str | float:
    """The value as the column keeps it; of a list, one of its words."""
    if isinstance(value, bool) and kind not in ("bool", "string", "strings"):
        raise FilterError(f"{name} is a {kind}, got {literal(value)}")
    try:
        kept = stored(value, "string" if kind == "strings" else kind)
    except ValueError as error:
        raise FilterError(f"{name} is of type {kind}, and {literal(value)} {error}") from None
    assert isinstance(kept, str | float)
    return kept


# -- the JSON form ---------------------------------------------------------------------------------------


def _object(given: Any, where: str, depth: int) -> Condition:
    """An object of conditions, all of which must hold; or a string."""
    if depth > DEEPEST:
        raise FilterError(f"the filter is nested more than {DEEPEST} deep")
    if isinstance(given, str):
        return parse_text(given)
    if not isinstance(given, Mapping):
        raise FilterError(f"{where} must be an object or a string, got {given!r}")
    if not given:
        raise FilterError(f"{where} names no attribute: leave it out to allow everything")
    parts: list[Condition] = []
    for name, value in given.items():
        at = f"{where}.{name}"
        if name in ("and", "or") and isinstance(value, list):
            if not 0 < len(value) <= MOST_CONDITIONS:
                raise FilterError(f"{at} has {len(value)} conditions, allowed are 1 to {MOST_CONDITIONS}")
            inner = tuple(_object(one, f"{at}[{i}]", depth + 1) for i, one in enumerate(value))
            parts.append(AllOf(inner) if name == "and" else AnyOf(inner))
        elif name == "not" and isinstance(value, Mapping | str):
            parts.append(Not(_object(value, at, depth + 1)))
        else:
            parts += _conditions(name, value, at)
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _conditions(name: str, value: Any, where: str) -> Iterator[Condition]:
    """`name: value` equals, `name: [values]` is one of, `name: {"<": value, …}` compares."""
    if isinstance(value, list):
        yield OneOf(name, tuple(_plain(v, f"{where}[{i}]") for i, v in enumerate(value)))
    elif not isinstance(value, Mapping):
        yield Compare(name, "=", _plain(value, where))
    elif not value:
        raise FilterError(f"{where} is an empty object")
    else:
        for sign, wanted in value.items():
            at = f"{where}.{sign}"
            if sign == "exists":
                if not isinstance(wanted, bool):
                    raise FilterError(f"{at} must be true or false, got {wanted!r}")
                yield Exists(name) if wanted else Not(Exists(name))
            elif sign == "in":
                if not isinstance(wanted, list):
                    raise FilterError(f"{at} must be a list, got {wanted!r}")
                yield OneOf(name, tuple(_plain(v, f"{at}[{i}]") for i, v in enumerate(wanted)))
            elif sign in (*SIGNS, "prefix"):
                yield compare(name, sign, _plain(wanted, at))
            else:
                known = ", ".join((*SIGNS, "in", "prefix", "exists"))
                raise FilterError(f"{where} has the unknown comparison {sign!r}; there are: {known}")


def _plain(value: Any, where: str) -> Value:
    if isinstance(value, str | int | float | bool):
        return value
    raise FilterError(f"{where} must be a string, a number or true/false, got {value!r}")


def leaves(condition: Condition) -> Iterator[Compare | OneOf | Exists]:
    """The conditions on one attribute each, of which it is made."""
    match condition:
        case AllOf(conditions) | AnyOf(conditions):
            for one in conditions:
                yield from leaves(one)
        case Not(inner):
            yield from leaves(inner)
        case _:
            yield condition
