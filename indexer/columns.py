"""Columns of attribute values: one immutable array an attribute, compared and counted without a loop over rows."""

# n rows, v distinct words

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
"""[n]: which rows."""
Codes = NDArray[np.int32]
Stored = float | str | list[str] | None
"""A value as a column keeps it; None: the row has none."""
COMPARISONS: dict[str, Callable[[NDArray[np.float64], float], Mask]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
FEW_WORDS = 64
"""Up to so many distinct words a column counts with a bitmap for each: 20 µs a word at a million rows."""


def count(mask: Mask) -> int:
    """Rows of a mask; many times faster than its sum."""
    return int(np.count_nonzero(mask))


@dataclass(frozen=True)
class Numbers:
    """Numbers, or times as seconds since 1970 in UTC. NaN: the row has none."""

    values: NDArray[np.float64]

    @classmethod
    def of(cls, values: Sequence[Stored]) -> Numbers:
        return cls(np.array([np.nan if v is None else v for v in values], dtype=np.float64))

    def compare(self, sign: str, value: float) -> Mask:
        return COMPARISONS[sign](self.values, value)

    def exists(self) -> Mask:
        return self._exists

    @functools.cached_property
    def _exists(self) -> Mask:
        return ~np.isnan(self.values)

    def counts(self, mask: Mask) -> dict[float, int]:
        values, counts = np.unique(self.values[mask & self.exists()], return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))

    def between(self, edges: Sequence[float], mask: Mask) -> list[int]:
        """Rows of the mask below the first edge, from each edge to the next, from the last on."""
        from_edge = [count(mask & (self.values >= edge)) for edge in edges]
        at_least = [count(mask & self._exists), *from_edge, 0]
        return [a - b for a, b in pairwise(at_least)]

    def take(self, mask: Mask) -> Numbers:
        return Numbers(self.values[mask])

    def and_then(self, later: Numbers) -> Numbers:
        return Numbers(np.concatenate([self.values, later.values]))


@dataclass(frozen=True)
class Words:
    """One word a row, as a code into the distinct words; -1: the row has none."""

    codes: Codes
    words: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[Stored]) -> Words:
        codes: dict[str, int] = {}
        rows = [-1 if v is None else codes.setdefault(str(v), len(codes)) for v in values]
        return cls(np.array(rows, dtype=np.int32), tuple(codes))

    def matching(self, test: Callable[[str], bool]) -> Mask:
        """Rows whose word passes; the test is asked once a distinct word."""
        return self._coded([i for i, word in enumerate(self.words) if test(word)])

    def one_of(self, words: Sequence[str]) -> Mask:
        return self._coded([self._code_of[w] for w in dict.fromkeys(words) if w in self._code_of])

    def exists(self) -> Mask:
        return self._exists

    @functools.cached_property
    def _exists(self) -> Mask:
        return self.codes >= 0

    def counts(self, mask: Mask) -> dict[str, int]:
        if len(self.words) <= FEW_WORDS:
            counts = _overlaps(self._bitmaps, mask)
        else:
            counts = np.bincount(self.codes[mask] + 1, minlength=len(self.words) + 1)[1:].tolist()
        return {word: n for word, n in zip(self.words, counts, strict=True) if n}

    def take(self, mask: Mask) -> Words:
        return Words(*_used(self.codes[mask], self.words))

    def and_then(self, later: Words) -> Words:
        codes, words = _joined(self.words, later.words, later.codes)
        return Words(np.concatenate([self.codes, codes]), words)

    @functools.cached_property
    def _code_of(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @functools.cached_property
    def _bitmaps(self) -> list[NDArray[np.uint8]]:
        return [np.packbits(self.codes == i) for i in range(len(self.words))]

    def _coded(self, chosen: Sequence[int]) -> Mask:
        """Rows with one of these codes."""
        if len(chosen) == 1:
            one: Mask = self.codes == chosen[0]
            return one
        table = np.zeros(len(self.words) + 1, dtype=bool)  # -1 finds the last place, which is never chosen
        table[list(chosen)] = True
        some: Mask = table[self.codes]
        return some


@dataclass(frozen=True)
class Lists:
    """Any number of words a row: the row and the code of each, rows ascending. A list without words is there too."""

    there: Mask
    """[n]: rows that have the attribute."""
    rows: NDArray[np.int32]
    codes: Codes
    words: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[Stored]) -> Lists:
        known: dict[str, int] = {}
        rows: list[int] = []
        codes: list[int] = []
        for row, value in enumerate(values):
            for word in dict.fromkeys(value if isinstance(value, list) else []):
                rows.append(row)
                codes.append(known.setdefault(word, len(known)))
        there = np.array([v is not None for v in values], dtype=bool)
        return cls(there, np.array(rows, dtype=np.int32), np.array(codes, dtype=np.int32), tuple(known))

    def matching(self, test: Callable[[str], bool]) -> Mask:
        """Rows that hold a word which passes."""
        return self._holding(np.array([test(word) for word in self.words], dtype=bool))

    def one_of(self, words: Sequence[str]) -> Mask:
        asked = set(words)
        return self.matching(asked.__contains__)

    def exists(self) -> Mask:
        return self.there

    def counts(self, mask: Mask) -> dict[str, int]:
        """How many rows hold each word."""
        if len(self.words) <= FEW_WORDS:
            counts = _overlaps(self._bitmaps, mask)
        else:
            counts = np.bincount(self.codes[mask[self.rows]], minlength=len(self.words)).tolist()
        return {word: n for word, n in zip(self.words, counts, strict=True) if n}

    def take(self, mask: Mask) -> Lists:
        kept = mask[self.rows]
        at = np.cumsum(mask, dtype=np.int32) - 1
        codes, words = _used(self.codes[kept], self.words)
        return Lists(self.there[mask], at[self.rows[kept]], codes, words)

    def and_then(self, later: Lists) -> Lists:
        codes, words = _joined(self.words, later.words, later.codes)
        there = np.concatenate([self.there, later.there])
        rows = np.concatenate([self.rows, later.rows + np.int32(len(self.there))])
        return Lists(there, rows, np.concatenate([self.codes, codes]), words)

    @functools.cached_property
    def _bitmaps(self) -> list[NDArray[np.uint8]]:
        one = np.eye(len(self.words), dtype=bool)
        return [np.packbits(self._holding(row)) for row in one]

    def _holding(self, chosen: Mask) -> Mask:
        out = np.zeros(len(self.there), dtype=bool)
        out[self.rows[chosen[self.codes]]] = True
        return out


Column = Numbers | Words | Lists


def _overlaps(bitmaps: Sequence[NDArray[np.uint8]], mask: Mask) -> list[int]:
    """How many rows of the mask each bitmap holds."""
    packed = np.packbits(mask)
    return [int(np.bitwise_count(bits & packed).sum(dtype=np.int64)) for bits in bitmaps]


def _used(codes: Codes, words: tuple[str, ...]) -> tuple[Codes, tuple[str, ...]]:
    """The codes over those words alone that occur."""
    there = np.zeros(len(words) + 1, dtype=bool)
    there[codes] = True
    there[-1] = False  # where -1 pointed
    new = np.cumsum(there, dtype=np.int32) - 1
    new[-1] = -1
    return new[codes], tuple(word for word, used in zip(words, there.tolist(), strict=False) if used)


def _joined(words: tuple[str, ...], later: tuple[str, ...], codes: Codes) -> tuple[Codes, tuple[str, ...]]:
    """Codes over `later` as codes over all words of both."""
    known = {word: i for i, word in enumerate(words)}
    new = np.array([known.setdefault(word, len(known)) for word in later] + [-1], dtype=np.int32)
    return new[codes], tuple(known)
