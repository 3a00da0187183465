"""What a dialogue says, in the language of the turn: English or Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from search import messages as m
from search.lexicon import is_chinese
from search.operations import Asked
from search.phrasings import rows


def said(name: str, turn: str, /, **slots: str) -> str:
    """The reply of that name in phrasings/replies.csv."""
    return _table()[name]["zh" if is_chinese(turn) else "en"].format(**slots)


def query_in_words(asked: Asked, turn: str) -> str:
    """A search as a reader sees it: "red dress, not striped, price < 50"."""
    parts = [asked.text] if asked.text else []
    if asked.image_key is not None:
        parts.insert(0, f"≈ {asked.image_key}")
    elif asked.picture is not None:
        parts.insert(0, f"≈ {said('the_picture', turn)}")
    parts += [f"not {' or '.join(values)}" for values in asked.without.values()]
    parts += [f"{bound.attribute} {bound.sign} {bound.number:g}" for bound in asked.bounds]
    return f"“{', '.join(parts)}”" if parts else said("everything", turn)


def listed(hits: Sequence[m.Hit], first: int) -> list[str]:
    """A line a hit: its place, its title or key, its attributes."""
    lines = []
    for place, hit in enumerate(hits, first):
        name = hit.title or hit.key
        details = details_of(hit)
        lines.append(f"{place}. {name} [{hit.key}]" + (f": {details}" if details else ""))
    return lines


def details_of(hit: m.Hit | m.Image) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in hit.attributes.items())


def _shown(value: m.AttributeValue) -> str:
    return (
        ", ".join(value)
        if isinstance(value, list)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


@cache
def _table() -> dict[str, dict[str, str]]:
    return {row["reply"]: row for row in rows("replies.csv")}
