"""What is said of a picture by its attributes: phrases to search with, captions to learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

import numpy as np

from textmm.sources import Item
from textmm.wording import read_translations


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """Ways to say attributes in a language."""

    share: float
    templates: tuple[str, ...]
    """`{base_colour} {article_type}`; one whose attributes a picture lacks is not used for it."""
    synonyms: str = ""
    """A CSV of textmm/translations: value, word. Empty: the values themselves, lower-cased."""
    synonym_share: float = 0.5
    """How often another word than the first is taken."""
    values_too: bool = True
    """Whether the value itself is a word of this language."""


@dataclass(frozen=True, kw_only=True)
class CaptionPhrase:
    """A caption made of attributes."""

    style: str
    template: str
    """`{base_colour} {article_type} for {gender}`; what a picture lacks is left out with its connecting word."""
    share: float
    """Of a source's captioning draws."""
    translations: str = ""
    """A CSV of textmm/translations whose first words stand for the values. Empty: the values, lower-cased."""


class Sayer:
    """Makes phrases of several languages."""

    def __init__(self, phrases: Sequence[Phrases]) -> None:
        self._phrases = phrases
        self._words = [read_translations(p.synonyms) if p.synonyms else {} for p in phrases]
        self._fields = [[fields_of(t) for t in p.templates] for p in phrases]
        shares = np.array([p.share for p in phrases])
        self._shares = shares / shares.sum() if len(phrases) else shares

    def phrases(
        self, item: Item, rng: np.random.Generator
    ) -> Iterator[tuple[str, frozenset[tuple[str, str]]]]:
        """Phrases true of the item, without end, each with the attribute values it speaks of."""
        values = {k: str(v) for k, v in item.attributes.items()}
        usable = [
            [i for i, fields in enumerate(templates) if all(f in values for f in fields)]
            for templates in self._fields
        ]
        if not any(usable):
            return
        while True:
            which = int(rng.choice(len(self._phrases), p=self._shares))
            if not usable[which]:
                continue
            template = usable[which][int(rng.integers(len(usable[which])))]
            fields = self._fields[which][template]
            words = {f: self._word(which, values[f], rng) for f in fields}
            yield (
                self._phrases[which].templates[template].format(**words),
                frozenset((f, values[f]) for f in fields),
            )

    def _word(self, which: int, value: str, rng: np.random.Generator) -> str:
        phrases = self._phrases[which]
        words = self._words[which].get(value.lower(), [])
        if phrases.values_too or not words:
            words = [value.lower(), *words]
        if len(words) > 1 and rng.random() < phrases.synonym_share:
            return words[int(rng.integers(1, len(words)))]
        return words[0]


def say(template: str, item: Item, words: Mapping[str, list[str]]) -> str:
    """The template with what the item has, in these words; what it lacks is left out with its connecting word."""
    values = {f: str(item.attributes.get(f, "")).lower() for f in fields_of(template)}
    values = {f: words.get(value, [value])[0] for f, value in values.items()}
    said = " ".join(template.format(**values).split()).lower()
    return said.removesuffix(" for")


def fields_of(template: str) -> list[str]:
    """The attributes that a template names. ValueError for one that cannot be read."""
    return [name for _, name, _, _ in Formatter().parse(template) if name]
