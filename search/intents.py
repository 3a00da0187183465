"""Intents: what a turn is after, by the nearest of many phrasings in the model's own space of texts.

Values, numbers and places stand as the same placeholder in the phrasings and in the turn, so that "only the red ones"
and "only the blue ones" are one phrasing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from search.lexicon import is_chinese
from search.phrasings import rows

Rows = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Rows]

NEIGHBOURS = 3
"""Phrasings of an intent whose mean likeness is its score, the nearest weighing most."""
_SLOT = re.compile(r"\{(\w+)\}")
PLACEHOLDERS: dict[str, Mapping[str, str]] = {
    "type": {"en": "shoes", "zh": "鞋子"},
    "colour": {"en": "red", "zh": "红色"},
    "gender": {"en": "women", "zh": "女士"},
    "value": {"en": "casual", "zh": "休闲"},
    "price": {"en": "50", "zh": "50元"},
    "ordinal": {"en": "second", "zh": "二"},
}
"""What stands in for a slot, by language."""


@dataclass(frozen=True)
class Phrasing:
    intent: str
    text: str
    """With its slots: only {colour}."""

    @property
    def slots(self) -> frozenset[str]:
        return frozenset(_SLOT.findall(self.text))

    @property
    def filled(self) -> str:
        language = "zh" if is_chinese(_SLOT.sub("", self.text)) or self.text.count("的") else "en"
        return plain(_SLOT.sub(lambda slot: PLACEHOLDERS[slot[1]][language], self.text))


class Intents:
    """Making one encodes every phrasing."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._phrasings = phrasings()
        self._rows = encode([phrasing.filled for phrasing in self._phrasings])
        self.names = sorted({phrasing.intent for phrasing in self._phrasings})

    def scores(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Of each text with its placeholders: intent -> how near its phrasings are, -1..1."""
        likeness = self._encode([plain(text) for text in texts]) @ self._rows.T
        out = []
        for row in likeness:
            score = {}
            for name in self.names:
                of = np.sort(row[self._of(name)])[::-1][:NEIGHBOURS]
                weights = 0.5 ** np.arange(len(of))
                score[name] = float((of * weights).sum() / weights.sum())
            out.append(score)
        return out

    @cache  # noqa: B019 (an Intents lives as long as its process)
    def _of(self, name: str) -> NDArray[np.bool_]:
        return np.array([phrasing.intent == name for phrasing in self._phrasings])


@cache
def phrasings() -> tuple[Phrasing, ...]:
    """Those of phrasings/intents.csv."""
    return tuple(Phrasing(row["intent"], row["phrasing"]) for row in rows("intents.csv"))


@cache
def frame_words() -> frozenset[str]:
    """English words that phrasings of search are made of: what is left of a turn without them is what it is about."""
    texts = [_SLOT.sub(" ", p.text.lower()) for p in phrasings() if p.intent != "out_of_scope"]
    return frozenset(word for text in texts for word in re.findall(r"[a-z][a-z'’]*", text))


@cache
def frame_pieces() -> tuple[str, ...]:
    """What stands between the slots of Chinese phrasings, and each sign of it, the longest first."""
    pieces: set[str] = set()
    for phrasing in phrasings():
        if phrasing.intent != "out_of_scope":
            pieces.update(part for part in re.findall(r"[\u3400-\u9fff]+", _SLOT.sub(" ", phrasing.text)))
    signs = {sign for piece in pieces for sign in piece}
    return tuple(sorted(pieces | signs, key=lambda piece: (-len(piece), piece)))


def plain(text: str) -> str:
    return " ".join(re.sub(r"[?!.,;:，。？！；：]+", " ", text.lower()).split())
