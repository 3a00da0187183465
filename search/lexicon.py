"""Lexicon: the values of a collection's attributes, found in what people write, in English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from indexer.attributes import AttributeIndex
from indexer.columns import Lists, Words
from search.phrasings import rows
from textmm.wording import read_translations

Rows = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Rows]

MOST_VALUES = 500
"""An attribute of more values is a name or a text, not a choice."""
LEAST_LIKENESS = 0.85
"""Cosine from which a word that is no form of any value is taken for the nearest value. Chosen by eye on some thirty
words: at .8 'stuff' was clothing."""
LONGEST = 4
"""Words of a form."""
_CJK = re.compile(r"[\u3400-\u9fff]")
_WORD = re.compile(r"[a-z0-9]+(?:['’-][a-z0-9]+)*")


@dataclass(frozen=True)
class Mention:
    """A value where it stands in a text."""

    start: int
    end: int
    attribute: str
    value: str


def is_chinese(text: str) -> bool:
    return _CJK.search(text) is not None


class Lexicon:
    """Of one state of a collection's attributes. Making one encodes the values' words."""

    def __init__(self, values: Mapping[str, Sequence[str]], numbers: Sequence[str], encode: Encode) -> None:
        """`values`: of each attribute of few strings; `numbers`: attributes of numbers."""
        self._encode = encode
        self.values = {name: tuple(given) for name, given in values.items()}
        self._pairs = [(name, value) for name, given in self.values.items() for value in given]
        self._rows = encode([value for _, value in self._pairs]) if self._pairs else None
        self.roles = self._find_roles()
        self._forms = self._all_forms()
        self.price = self._nearest_name(numbers, "price")
        """The attribute that a limit in numbers is about; None: there is none."""

    def mentions(self, text: str, free: Callable[[int, int], bool]) -> list[Mention]:
        """Values in lower-case text, in order, none overlapping; `free` says whether a stretch may be taken."""
        found: list[Mention] = []

        def open_(start: int, end: int) -> bool:
            return free(start, end) and all(end <= m.start or start >= m.end for m in found)

        for start, end, form in _candidates(text):
            if form in self._forms and open_(start, end):
                name, value = self._forms[form]
                found.append(Mention(start, end, name, value))
        return sorted(found, key=lambda m: m.start)

    def nearest(self, words: Sequence[str]) -> list[tuple[str, str] | None]:
        """(attribute, value) that each of the words means, though it is no form of it; None: none is near."""
        if self._rows is None or not words:
            return [None] * len(words)
        likeness = self._encode(words) @ self._rows.T
        best = likeness.argmax(axis=1)
        return [
            self._pairs[j] if likeness[i, j] >= LEAST_LIKENESS else None for i, j in enumerate(best.tolist())
        ]

    def vectors(self, attribute: str) -> Rows:
        """[values, embed_dim], in the order of `values`."""
        assert self._rows is not None
        return self._rows[[i for i, (name, _) in enumerate(self._pairs) if name == attribute]]

    def _all_forms(self) -> dict[str, tuple[str, str]]:
        """Form -> what it means. A value's own words come first, then the usual ones of a translation."""
        out: dict[str, tuple[str, str]] = {}
        for pair in self._pairs:
            out.setdefault(normal(pair[1]), pair)
        claims: dict[str, list[tuple[int, tuple[str, str]]]] = {}
        for pair in self._pairs:
            for rank, form in _translations(pair[1]):
                claims.setdefault(form, []).append((rank, pair))
                if self.roles[pair[0]] == "colour" and len(form) == 2 and form[1] == "色":
                    claims.setdefault(form[0], []).append((rank, pair))  # 红的 is 红色的
        for form, claimed in claims.items():
            out.setdefault(form, min(claimed)[1])
        return out

    def _find_roles(self) -> dict[str, str]:
        """Of each attribute the slot of the phrasings that its values fill: whose examples lie nearest to them."""
        roles = _roles()
        examples = self._encode([example for _, example in roles])
        out = {}
        for name in self.values:
            likeness = (self.vectors(name) @ examples.T).max(axis=0)
            score: dict[str, list[float]] = {}
            for (role, _), one in zip(roles, likeness.tolist(), strict=True):
                score.setdefault(role, []).append(one)
            out[name] = max(score, key=lambda role: sum(score[role]) / len(score[role]))
        return out

    def _nearest_name(self, names: Sequence[str], word: str) -> str | None:
        if not names:
            return None
        rows = self._encode([word, *names])
        return names[int((rows[1:] @ rows[0]).argmax())]


def choices(attributes: AttributeIndex) -> tuple[dict[str, list[str]], list[str]]:
    """(values of the attributes that are choices among a few strings, names of those of numbers)"""
    values: dict[str, list[str]] = {}
    for name in attributes.names:
        if attributes.types[name] in ("string", "strings"):
            columns = [c for part in attributes.parts if isinstance(c := part.column(name), Words | Lists)]
            if any(len(column.words) > MOST_VALUES for column in columns):
                continue
            words = {word for column in columns for word in column.words}
            if len(words) <= MOST_VALUES:
                values[name] = sorted(words)
    return values, [name for name in attributes.names if attributes.types[name] == "number"]


def normal(text: str) -> str:
    """Words as they are compared: lower case, in the singular, no hyphens. Chinese as it is."""
    if is_chinese(text):
        return text.lower()
    return " ".join(_singular(word) for word in _WORD.findall(text.lower().replace("-", " ")))


def _singular(word: str) -> str:
    word = re.sub(r"['’]s?$", "", word)
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + instead
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def _candidates(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, form) of what may be a value: the longest first."""
    words = [(m.start(), m.end()) for m in re.finditer(r"[a-z0-9]+(?:['’][a-z]+)?", text)]
    for n in range(LONGEST + 1, 0, -1):
        for i in range(len(words) - n + 1):
            start, end = words[i][0], words[i + n - 1][1]
            yield start, end, normal(text[start:end])
    runs = [(m.start(), m.end()) for m in re.finditer(r"[\u3400-\u9fffA-Za-z]+", text) if is_chinese(m[0])]
    longest = max((end - start for start, end in runs), default=0)
    for n in range(min(8, longest), 0, -1):
        for start, end in runs:
            for i in range(start, end - n + 1):
                yield i, i + n, text[i : i + n]


@cache
def _tables() -> tuple[dict[str, list[str]], ...]:
    """value -> forms, in each language: those that training saw, and words of shops."""
    shop: dict[str, list[str]] = {}
    for row in rows("values.csv"):
        shop.setdefault(row["value"].lower(), []).append(row["form"])
    return shop, read_translations("en.csv"), read_translations("zh.csv")


@cache
def _meaning() -> dict[str, set[str]]:
    """Form -> values of the tables that it is a form of."""
    out: dict[str, set[str]] = {}
    for table in _tables():
        for value, forms in table.items():
            for form in [value, *forms]:
                out.setdefault(normal(form), set()).add(value)
    return out


def _translations(value: str) -> Iterable[tuple[int, str]]:
    """(rank, form): forms of the same thing in both languages, the usual ones with a low rank."""
    own = normal(value)
    for known in sorted(_meaning().get(own, ()), key=lambda known: normal(known) != own):
        far = 0 if normal(known) == own else 1000
        for behind, table in zip((0, 100, 100), _tables(), strict=True):
            for rank, form in enumerate(table.get(known, [])):
                yield far + behind + rank, normal(form)


@cache
def _roles() -> tuple[tuple[str, str], ...]:
    """(slot of the phrasings, an example of a value), from phrasings/roles.csv."""
    return tuple((row["role"], row["example"]) for row in rows("roles.csv"))
