"""What a turn of a dialogue asks for: a small closed set of operations, and the search that they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Choices = Mapping[str, tuple[str, ...]]
"""Attribute -> values of which one must hold (or none may)."""


@dataclass(frozen=True)
class Bound:
    """A limit to an attribute of numbers."""

    attribute: str
    sign: str
    """One of <, <=, >, >=."""
    number: float


@dataclass(frozen=True)
class NewSearch:
    words: str
    where: Choices = field(default_factory=dict)
    without: Choices = field(default_factory=dict)
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True)
class Refine:
    """Values and limits that must hold as well; `words` where the collection has no such value."""

    words: str = ""
    where: Choices = field(default_factory=dict)
    without: Choices = field(default_factory=dict)
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True)
class Replace:
    """Values in place of others of the same attributes."""

    where: Choices
    without: Choices = field(default_factory=dict)
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True)
class Exclude:
    """Empty: of what was named, the collection has nothing."""

    without: Choices
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True)
class Cheaper:
    """Below the middle price of the hits; `dearer`: above it."""

    dearer: bool = False


@dataclass(frozen=True)
class Similar:
    hit: int | None
    """From 1, from the end -1; None: the picture of the conversation."""
    where: Choices = field(default_factory=dict)


@dataclass(frozen=True)
class NextPage:
    pass


@dataclass(frozen=True)
class Reset:
    pass


@dataclass(frozen=True)
class Describe:
    hit: int | None


@dataclass(frozen=True)
class Question:
    hit: int | None


@dataclass(frozen=True)
class OutOfScope:
    pass


Operation = (
    NewSearch
    | Refine
    | Replace
    | Exclude
    | Cheaper
    | Similar
    | NextPage
    | Reset
    | Describe
    | Question
    | OutOfScope
)

NAMES: dict[type, str] = {
    NewSearch: "new_search",
    Refine: "refine",
    Replace: "replace",
    Exclude: "exclude",
    Cheaper: "cheaper",
    Similar: "similar",
    NextPage: "next_page",
    Reset: "reset",
    Describe: "describe",
    Question: "question",
    OutOfScope: "out_of_scope",
}


@dataclass(frozen=True)
class Asked:
    """A search as a conversation has built it. One of words, image_key and picture asks."""

    words: str = ""
    image_key: str | None = None
    picture: str | None = None
    """base64 or a data URI"""
    where: Choices = field(default_factory=dict)
    without: Choices = field(default_factory=dict)
    bounds: tuple[Bound, ...] = ()
    offset: int = 0
    """Hits that were shown before."""

    @property
    def text(self) -> str:
        """What the vector is made from: the values that must hold, before the words that are left."""
        values = [value for chosen in self.where.values() for value in chosen]
        return " ".join([*values, self.words]).strip()

    def filter(self) -> dict[str, Any]:
        """In the JSON form of the filter language."""
        out: dict[str, Any] = {name: list(values) for name, values in self.where.items()}
        for bound in self.bounds:
            out.setdefault(bound.attribute, {})[bound.sign] = bound.number
        if self.without:
            out["not"] = {"or": [{name: list(values)} for name, values in self.without.items()]}
        return out


def applied(asked: Asked | None, operation: Operation, page: int) -> Asked | None:
    """The search after an operation that needs no hits to be looked at; None: there is none.

    Similar and Cheaper need them: `dialogue` turns them into a new Asked itself.
    """
    if isinstance(operation, NewSearch):
        return Asked(
            operation.words, where=operation.where, without=operation.without, bounds=operation.bounds
        )
    if isinstance(operation, Reset) or asked is None:
        return None
    match operation:
        case Refine(words, where, without, bounds):
            return narrowed(
                replace(asked, words=f"{asked.words} {words}".strip()),
                where=where,
                without=without,
                bounds=bounds,
            )
        case Replace(where, without, bounds):
            return narrowed(asked, where=where, without=without, bounds=bounds)
        case Exclude(without, bounds):
            return narrowed(asked, without=without, bounds=bounds)
        case NextPage():
            return replace(asked, offset=asked.offset + page)
        case _:
            return asked


def narrowed(
    asked: Asked,
    *,
    where: Choices | None = None,
    without: Choices | None = None,
    bounds: tuple[Bound, ...] = (),
) -> Asked:
    """What is named last holds: a value that must not be is no longer one that must, and the other way round."""
    where, without = where or {}, without or {}
    must = _less({**asked.where, **where}, without)
    must_not = _less(asked.without, where)
    for name, values in without.items():
        must_not[name] = tuple(dict.fromkeys([*must_not.get(name, ()), *values]))
    sides = {(bound.attribute, bound.sign[0]): bound for bound in (*asked.bounds, *bounds)}
    return replace(asked, where=must, without=must_not, bounds=tuple(sides.values()), offset=0)


def _less(choices: Choices, taken: Choices) -> dict[str, tuple[str, ...]]:
    left = {n: tuple(v for v in values if v not in taken.get(n, ())) for n, values in choices.items()}
    return {name: values for name, values in left.items() if values}
