"""Typed attributes beside the index: a type a name, and columns of the values. Immutable; a change makes a new one."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from indexer.columns import Column, Lists, Mask, Numbers, Stored, Words
from indexer.ids import Ids, is_in, places

Type = Literal["string", "number", "bool", "datetime", "strings"]
LARGEST_EXACT = 2**53
"""A float64 holds whole numbers exactly up to here; longer ones are identifiers, kept as strings."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?")


def type_of(value: Any) -> Type:
    """What a value says of its attribute's type. An ISO 8601 date, with or without a time, is a datetime."""
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "number" if abs(value) <= LARGEST_EXACT else "string"
        case list():
            return "strings"
        case _:
            return "datetime" if _seconds(str(value)) is not None else "string"


def widened(one: Type | None, other: Type) -> Type:
    """The type that holds values of both: anything is a string, or one of a list of them."""
    if one is None or one == other:
        return other
    return "strings" if "strings" in (one, other) else "string"


def stored(value: Any, kind: Type) -> Stored:
    """The value as a column of this type keeps it. ValueError says why it cannot be one."""
    return None if value is None else _STORED[kind](value)


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool | list) else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("is no number")
    return number


def _time(value: Any) -> float:
    seconds = _seconds(value) if isinstance(value, str) else None
    if seconds is None:
        raise ValueError("is no date or time like 2026-01-31 or 2026-01-31T09:30:00Z")
    return seconds


def _truth(value: Any) -> str:
    if text_of(value) not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return text_of(value)


def _word(value: Any) -> str:
    if isinstance(value, list):
        raise ValueError("is a list")
    return text_of(value)


def _list(value: Any) -> list[str]:
    return [text_of(v) for v in value] if isinstance(value, list) else [text_of(value)]


_STORED: dict[Type, Callable[[Any], Stored]] = {
    "string": _word,
    "number": _number,
    "bool": _truth,
    "datetime": _time,
    "strings": _list,
}


def text_of(value: Any) -> str:
    """A value as a string: true, 3 and not 3.0, and strings as they are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def shown(value: float | str, kind: Type) -> str | float | bool:
    """A stored value as JSON shows it."""
    if kind == "bool":
        return value == "true"
    if kind == "datetime":
        at = dt.datetime.fromtimestamp(float(value), dt.UTC).isoformat()
        return at.replace("+00:00", "Z")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@dataclass(frozen=True)
class Part:
    """Rows that came together, ids ascending. A name without a column: none of these rows has it."""

    ids: Ids
    columns: Mapping[str, Column]

    def column(self, name: str) -> Column | None:
        return self.columns.get(name)


@dataclass(frozen=True)
class AttributeIndex:
    types: Mapping[str, Type]
    parts: tuple[Part, ...] = ()

    @property
    def names(self) -> list[str]:
        return sorted(self.types)

    @property
    def count(self) -> int:
        return sum(len(part.ids) for part in self.parts)

    def with_rows(self, ids: Ids, attributes: Sequence[Mapping[str, Any]]) -> AttributeIndex:
        """One that has these rows too, ids ascending and above those that are there.

        Parts of like size are joined, so there are few of them and a row is copied a few times only.
        """
        if len(ids) != len(attributes):
            raise ValueError(f"{len(ids)} ids for {len(attributes)} rows of attributes")
        if not len(ids):
            return self
        parts = [*self.parts, _part(ids, attributes, self.types)]
        while len(parts) > 1 and len(parts[-2].ids) <= 2 * len(parts[-1].ids):
            parts[-2:] = [_joined(parts[-2], parts[-1], self.types)]
        return AttributeIndex(self.types, tuple(parts))

    def with_types(self, types: Mapping[str, Type]) -> AttributeIndex:
        """One of more types; those that there are must be the same."""
        return AttributeIndex(types, self.parts)

    def only(self, ids: Ids) -> AttributeIndex:
        """One that has these rows (ascending) alone, in one part."""
        kept = [part for part in (_taken(p, is_in(p.ids, ids)) for p in self.parts) if len(part.ids)]
        while len(kept) > 1:
            kept[-2:] = [_joined(kept[-2], kept[-1], self.types)]
        return AttributeIndex(self.types, tuple(kept))

    def without(self, masks: Iterable[Mask], dead: Ids) -> Iterator[Mask]:
        """The masks without the rows of these ids (ascending)."""
        for part, mask in zip(self.parts, masks, strict=True):
            if len(dead):
                mask = mask.copy()
                mask[places(part.ids, dead)] = False
            yield mask


def _part(ids: Ids, rows: Sequence[Mapping[str, Any]], types: Mapping[str, Type]) -> Part:
    names = dict.fromkeys(name for row in rows for name in row if name in types)
    columns = {}
    for name in names:
        columns[name] = _kind(types[name]).of([_value(row.get(name), types[name]) for row in rows])
    return Part(ids, columns)


def _value(value: Any, kind: Type) -> Stored:
    """A value that is not of the type which was declared later counts as none."""
    try:
        return stored(value, kind)
    except ValueError:
        return None


def _kind(kind: Type) -> type[Numbers] | type[Words] | type[Lists]:
    if kind in ("number", "datetime"):
        return Numbers
    return Lists if kind == "strings" else Words


def _joined(one: Part, later: Part, types: Mapping[str, Type]) -> Part:
    columns: dict[str, Column] = {}
    for name in dict.fromkeys([*one.columns, *later.columns]):
        kind = _kind(types[name])
        a = one.columns.get(name) or kind.of([None] * len(one.ids))
        b = later.columns.get(name) or kind.of([None] * len(later.ids))
        columns[name] = a.and_then(b)  # type: ignore[arg-type]
    return Part(np.concatenate([one.ids, later.ids]), columns)


def _taken(part: Part, mask: Mask) -> Part:
    columns = {name: column.take(mask) for name, column in part.columns.items()}
    return Part(part.ids[mask], {name: c for name, c in columns.items() if c.exists().any()})


def _seconds(text: str) -> float | None:
    """Since 1970, of a time that lies in the years 1 to 9999 in UTC."""
    if not _TIME.fullmatch(text):
        return None
    try:
        at = dt.datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).astimezone(dt.UTC).timestamp()
    except (ValueError, OverflowError):
        return None
