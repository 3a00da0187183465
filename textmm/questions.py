"""Questions about pictures with their answers, made of attributes and of sentences, for training the decoder."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from textmm.caption_metrics import caption_words
from textmm.sources import Item
from textmm.wording import read_translations

Phrasings = Mapping[str, Sequence[Sequence[str]]]
"""Language -> ways to ask, each with its variants."""
USUAL = "questions.toml"
"""Those of training, in textmm/recipes."""
THINGS = "things"
WHETHER_SHARE = 0.5
"""Of the questions; half of those have yes for an answer."""
MOST_THINGS = 3
"""Named in an answer to what is in the picture."""


@dataclass(frozen=True)
class Question:
    text: str
    answer: str
    about: str
    """The attribute; `things` of what a sentence names."""
    yes: bool | None = None
    """The answer of a question for yes or no."""


@dataclass(frozen=True)
class About:
    """How to ask for one attribute, under its names in different catalogues."""

    attributes: tuple[str, ...]
    ask: Phrasings
    whether: Phrasings


@dataclass(frozen=True)
class Thing:
    names: Mapping[str, str]
    """By language"""
    words: frozenset[str]


@cache
def _spoken(language: str) -> Mapping[str, str]:
    """Answers in another language -> in this one: yes and no, what sentences name, the values of attributes."""
    data, table = _read(USUAL), read_translations("zh.csv")
    pairs = [(data[key]["en"], data[key]["zh"]) for key in ("yes", "no")]
    pairs += [(en, zh) for en, _, zh in (name.partition("|") for name in data[THINGS]["words"])]
    if language == "zh":
        return dict(pairs) | {value: words[0] for value, words in table.items()}
    return {word: value for value, words in reversed(table.items()) for word in words} | {
        zh: en for en, zh in pairs
    }


def answer_in(answer: str, language: str) -> str:
    """The answer in English or Chinese, thing by thing; what no table has stays as it is."""
    spoken = _spoken(language)
    return ", ".join(spoken.get(one.lower(), one) for one in answer.split(", "))


class Questions:
    """Makes questions of items. What it asks "is it …?" about in vain is true of some other item, so that the words of
    a question do not tell its answer."""

    def __init__(self, path: str, items: Sequence[Item]) -> None:
        """`path`: a TOML file, or a name in textmm/recipes. `items`: what may be asked about."""
        data = _read(path)
        _check(data, path)
        self._yes, self._no = data["yes"], data["no"]
        self.languages = tuple(self._yes)
        self._words = {language: read_translations(name) for language, name in data["synonyms"].items()}
        self._about = [
            About(tuple(d["attributes"]), _phrasings(d["ask"]), _phrasings(d["whether"]))
            for d in data.get("about", [])
        ]
        things = data.get(THINGS, {"ask": {}, "whether": {}, "words": {}})
        self._ask_things, self._whether_things = _phrasings(things["ask"]), _phrasings(things["whether"])
        self._things = [
            Thing(dict(zip(("en", "zh"), name.split("|"), strict=False)), frozenset(words.split()))
            for name, words in things["words"].items()
        ]
        self._values: dict[str, list[str]] = {}
        self._named: list[int] = []
        for item in items:
            for name, value in item.attributes.items():
                self._values.setdefault(name, []).append(str(value))
            if not item.attributes:
                self._named += self._in(item)

    def ask(self, item: Item, rng: np.random.Generator, *, language: str = "en") -> Question | None:
        """One question about the item; None: nothing is known of it."""
        if not item.attributes:
            return self._about_things(item, rng, language)
        known = [(a, name) for a in self._about for name in a.attributes if name in item.attributes]
        if not known:
            return None
        about, name = known[int(rng.integers(len(known)))]
        value = str(item.attributes[name])
        if rng.random() >= WHETHER_SHARE:
            return Question(_one(about.ask[language], rng), self._said(value, language), name)
        yes = bool(rng.random() < 0.5)
        asked = value if yes else _other(value, self._values[name], rng)
        if asked is None:
            return None
        text = _one(about.whether[language], rng).format(value=self._said(asked, language, rng))
        return Question(text, (self._yes if yes else self._no)[language], name, yes)

    def _about_things(self, item: Item, rng: np.random.Generator, language: str) -> Question | None:
        there = self._in(item)
        if not there:
            return None
        if rng.random() >= WHETHER_SHARE:
            named = ", ".join(self._things[i].names[language] for i in there[:MOST_THINGS])
            return Question(_one(self._ask_things[language], rng), named, THINGS)
        yes = bool(rng.random() < 0.5)
        which = there[int(rng.integers(len(there)))] if yes else _other(there, self._named, rng)
        if which is None:
            return None
        text = _one(self._whether_things[language], rng).format(value=self._things[which].names[language])
        return Question(text, (self._yes if yes else self._no)[language], THINGS, yes)

    def _in(self, item: Item) -> list[int]:
        """The things that its sentences name, those most often named first."""
        sentences = [set(caption_words(text)) for text in item.texts]
        counts = [sum(bool(thing.words & words) for words in sentences) for thing in self._things]
        return sorted((i for i, n in enumerate(counts) if n), key=lambda i: -counts[i])

    def _said(self, value: str, language: str, rng: np.random.Generator | None = None) -> str:
        """A value in a language; with `rng` now and then by another word."""
        words = self._words[language].get(value.lower(), [])
        if language == "en" or not words:
            words = [value.lower(), *words]
        return words[0] if rng is None or rng.random() < 0.5 else words[int(rng.integers(len(words)))]


def _other(own: Any, drawn_from: Sequence[Any], rng: np.random.Generator) -> Any:
    """One that is not true of the item, as often as it is true of others."""
    for _ in range(20):
        one = drawn_from[int(rng.integers(len(drawn_from)))]
        if one not in own if isinstance(own, list) else one != own:
            return one
    return None


def variants(phrasing: str) -> list[str]:
    """`(can|could) you see it?` -> with each of the words between the bars; an empty one leaves no gap."""
    parts = re.split(r"\(([^()]*)\)", phrasing)  # the odd ones are groups
    groups = [part.split("|") if at % 2 else [part] for at, part in enumerate(parts)]
    return [re.sub(" +", " ", "".join(words)).strip() for words in itertools.product(*groups)]


def _phrasings(ways: Mapping[str, Sequence[str]]) -> Phrasings:
    return {language: [variants(way) for way in written] for language, written in ways.items()}


def _one(phrasings: Sequence[Sequence[str]], rng: np.random.Generator) -> str:
    ways = phrasings[int(rng.integers(len(phrasings)))]
    return ways[int(rng.integers(len(ways)))]


def _check(data: Mapping[str, Any], path: str) -> None:
    """ValueError names what a file of questions lacks."""
    tables = [(key, data.get(key)) for key in ("yes", "no", "synonyms")]
    for number, about in enumerate(data.get("about", []), start=1):
        if not about.get("attributes"):
            raise ValueError(f"{path}: about {number} says no attributes")
        tables += [(f"about {number}: {key}", about.get(key)) for key in ("ask", "whether")]
    if THINGS in data:
        tables += [(f"{THINGS}: {key}", data[THINGS].get(key)) for key in ("ask", "whether")]
        if not data[THINGS].get("words"):
            raise ValueError(f'{path}: {THINGS}: words is missing: name|name in Chinese = "words for it"')
    languages = data.get("yes", {})
    for name, table in tables:
        lacks = [language for language in languages if language not in (table or {})]
        if not table or lacks:
            raise ValueError(f"{path}: {name} is missing{' for ' + ', '.join(lacks) if lacks else ''}")
    if "about" not in data and THINGS not in data:
        raise ValueError(f"{path}: it has neither about nor {THINGS}")


def _read(path: str) -> dict[str, Any]:
    file = Path(path)
    if not file.is_file():
        file = Path(str(resources.files("textmm"))) / "recipes" / path
    return tomllib.loads(file.read_text(encoding="utf-8"))
