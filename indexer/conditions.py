"""Conditions on attributes: what a filter means, whatever form it came in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Value = str | float | bool
SIGNS = ("=", "!=", "<", "<=", ">", ">=")
DEEPEST = 50
"""Conditions within conditions."""


class FilterError(ValueError):
    """A filter that makes no sense here; the message says where, and what would."""


Condition: TypeAlias = "AllOf | AnyOf | Not | Compare | OneOf | Exists"


@dataclass(frozen=True)
class AllOf:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class AnyOf:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    condition: Condition


@dataclass(frozen=True)
class Compare:
    name: str
    sign: str
    """=, <, <=, >, >= or prefix"""
    value: Value


@dataclass(frozen=True)
class OneOf:
    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Exists:
    name: str


def compare(name: str, sign: str, value: Value) -> Condition:
    """`!=` is what `=` is not: an attribute that is missing is unlike any value."""
    return Not(Compare(name, "=", value)) if sign == "!=" else Compare(name, sign, value)
