"""Numbers in what people write, in English and Chinese: limits (under 50, 五十以下), places (the second, 第二个)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from search.phrasings import rows

ABOUT = 0.2
"""'about 50' is from 40 to 60."""
_DIGITS = "零一二三四五六七八九"
_UNITS = {"十": 10, "百": 100, "千": 1000, "万": 10_000}
_CHINESE = r"[零一二两三四五六七八九十百千万]+"
_OPPOSITE = {"above": "at_most", "at_least": "below", "below": "at_least", "at_most": "above"}
_SIGNS = {"below": "<", "at_most": "<=", "above": ">", "at_least": ">="}


@dataclass(frozen=True)
class Limits:
    """Where in the text a limit stands, and (sign, number) of each of its sides."""

    start: int
    end: int
    sides: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Place:
    """Which hit is spoken of, from 1, or from the end -1."""

    start: int
    end: int
    hit: int


def limits(text: str) -> list[Limits]:
    """Limits in lower-case text, in order: 'no more than 50', '100到200之间', 'about 30'."""
    found: list[Limits] = []
    at = 0
    while (match := _limit_pattern().search(text, at)) is not None:
        at = match.end()
        if sides := _sides(match):
            found.append(Limits(match.start(), match.end(), sides))
    return found


def places(text: str) -> list[Place]:
    """Places in a list of hits: 'the second one', 'number 3', '4th', 第二个, 最后一件."""
    return [
        Place(m.start(), m.end(), hit)
        for m in _place_pattern().finditer(text)
        if (hit := _hit(m)) is not None
    ]


def chinese_number(text: str) -> int:
    """两百五十 -> 250"""
    total = part = 0
    for sign in text.replace("两", "二"):
        if sign in _UNITS:
            unit = _UNITS[sign]
            if unit == 10_000:
                total, part = (total + part) * unit, 0
            else:
                total, part = total + (part or 1) * unit, 0
        else:
            part = _DIGITS.index(sign)
    return total + part


@cache
def _forms() -> dict[str, dict[str, int | None]]:
    """kind -> form -> its number, from phrasings/numbers.csv."""
    out: dict[str, dict[str, int | None]] = {}
    for row in rows("numbers.csv"):
        out.setdefault(row["kind"], {})[row["form"]] = int(row["value"]) if row["value"] else None
    return out


def _any(*kinds: str) -> str:
    """A pattern of all forms of these kinds, the longest first; words end where words end."""
    return "|".join(_whole(form) for form in _longest_first(kinds))


def _longest_first(kinds: tuple[str, ...]) -> Iterator[str]:
    forms = {form for kind in kinds for form in _forms()[kind]}
    return iter(sorted(forms, key=lambda form: (-len(form), form)))


def _whole(form: str) -> str:
    start = r"(?<![a-z])" if form[0].isascii() and form[0].isalpha() else ""
    end = r"(?![a-z])" if form[-1].isascii() and form[-1].isalpha() else ""
    return start + re.escape(form) + end


@cache
def _limit_pattern() -> re.Pattern[str]:
    compare = _any("below", "at_most", "above", "at_least", "about")
    number = rf"(?:\d+(?:[.,]\d+)?|{_CHINESE}|{_any('cardinal')})"
    unit = f"(?:{_any('unit')})"
    return re.compile(
        rf"(?:(?P<not>{_any('not')})\s*)?(?:(?P<before>{compare})\s*(?:in\s+|是\s*)?)?{unit}?\s*(?P<number>{number})\s*{unit}?"
        rf"(?:\s*(?:{_any('between')})\s*{unit}?\s*(?P<other>{number})\s*{unit}?)?"
        rf"\s*(?P<after>(?:{compare}))?"
    )


def _sides(match: re.Match[str]) -> tuple[tuple[str, float], ...]:
    """Empty: a number without a word that says what kind of limit it is."""
    number = _number(match["number"])
    if match["other"]:
        low, high = sorted((number, _number(match["other"])))
        return (">=", low), ("<=", high)
    said = match["before"] or match["after"]
    kind = next((k for k in ("below", "at_most", "above", "at_least", "about") if said in _forms()[k]), None)
    if kind == "about":
        return (">=", number * (1 - ABOUT)), ("<=", number * (1 + ABOUT))
    if kind is not None and match["not"]:
        kind = _OPPOSITE[kind]
    return () if kind is None else ((_SIGNS[kind], number),)


def _number(text: str) -> float:
    if text[0].isdigit():
        return float(text.replace(",", "."))
    known = _forms()["cardinal"].get(text)
    return float(chinese_number(text) if known is None else known)


@cache
def _place_pattern() -> re.Pattern[str]:
    classifier = r"\s*[一]?\s*[个件款双条只张项号顶副块支套]?"
    return re.compile(
        rf"(?:the\s+)?(?P<word>{_any('ordinal')})(?:\s+(?:one|pair|item|picture|result|hit)s?(?![a-z]))?(?:{classifier})"
        rf"|(?:the\s+)?(?P<th>\d+)(?:st|nd|rd|th)(?![a-z])(?:\s+(?:one|pair|item|picture|result|hit)(?![a-z]))?"
        rf"|(?:{_any('number')})\s*(?P<number>\d+|{_any('cardinal')})"
        rf"|第\s*(?P<chinese>\d+|{_CHINESE}){classifier}"
    )


def _hit(match: re.Match[str]) -> int | None:
    if match["word"]:
        return _forms()["ordinal"][match["word"]]
    if match["th"]:
        return int(match["th"])
    said = match["number"] or match["chinese"]
    return int(_number(said)) if said[0].isdigit() or match["number"] else chinese_number(said)
