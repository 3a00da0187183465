"""Which attribute of a hit a question is about, by the nearest of many phrasings in the model's own space of texts.

Questions about what a collection may know nothing of (care, delivery, the weather) have phrasings too: what is nearest
to one of those is about no attribute, where the likeness to "what is its colour?" alone would take it for one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np

from search.intents import Encode, plain
from search.phrasings import rows

PLAINLY = "what is its {}"
APART = 0.02
"""How much nearer the nearest phrasing must be than the nearest one about anything else. By `bench_dialogue tuning`,
with 0, this and .04 here: of 40 questions 31, 29 and 26 are found, 2, 0 and 0 mistaken; of 32 about other things 7, 0
and 0 are taken for one about an attribute."""


def asked_attribute(question: str, names: Sequence[str], encode: Encode) -> str | None:
    """Of attributes of these names the one that is asked about; None: the question is about something else."""
    if not names:
        return None
    plainly = [(_aspect(_words(name)), PLAINLY.format(" ".join(_words(name)))) for name in names]
    phrasings = [*plainly, *phrasings_of_questions()]
    vectors = encode([plain(question), *(phrasing for _, phrasing in phrasings)])
    scores = vectors[1:] @ vectors[0]
    best = int(np.argmax(scores))
    aspect = phrasings[best][0]
    others = [score for score, (about, _) in zip(scores, phrasings, strict=True) if about != aspect]
    if others and scores[best] - max(others) < APART:
        return None
    about_it = [i for i, (about, _) in enumerate(plainly) if about == aspect]
    return names[max(about_it, key=lambda i: scores[i])] if about_it else None


def _aspect(words: Sequence[str]) -> frozenset[str]:
    """The words for what an attribute of this name tells: those of the phrasings where they have one of them."""
    return next((names for names, _ in phrasings_of_questions() if names & {*words}), frozenset(words))


def _words(name: str) -> list[str]:
    """baseColour, base_colour -> base, colour"""
    return re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()) or [name]


@cache
def phrasings_of_questions() -> tuple[tuple[frozenset[str], str], ...]:
    """(words that such attributes are called by, a phrasing as it is encoded), from phrasings/attributes.csv.

    No words: it is about no attribute.
    """
    return tuple((frozenset(row["names"].split()), plain(row["phrasing"])) for row in rows("attributes.csv"))
