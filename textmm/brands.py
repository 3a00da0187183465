"""Titles without the brands they begin with: no picture shows a brand's name, so nothing should learn to say it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from textmm.sources import Item, listed

MOST_WORDS, MIN_TITLES = 4, 3
"""A name has so many words at most and stands in so many titles at least."""
BEGINS = 0.7
"""A word is of a brand when so large a part of its occurrences begin a title, or what a name leaves of it."""
GOES_ON, OF_ITS_OWN = 0.8, 0.05
"""Or when it follows a name in so large a part of the titles with that name, and so large a part of the word's own
occurrences stand there: `U.S. Polo`, though polo shirts are of all brands."""


def brand_names(items: Sequence[Item]) -> frozenset[tuple[str, ...]]:
    """The names of brands that titles begin with, word by word; the beginning of a name is a name too.

    A word that an item's own attributes say (`Men`, `Black`) is never of its brand. How a name goes on is only found
    where there are attributes: without them `Acme Men` of a shop for men looks just like `U.S. Polo`. An attribute that
    is called brand says it.
    """
    rows = [(title.split(), _said(item)) for item in items for title in item.texts]
    told = any(said for _, said in rows)
    heads = [_head(words, said) for words, said in rows]
    names = {name for item in items for title in item.texts for name in _told(item, title.split())}
    for length in range(1, MOST_WORDS + 1):
        grown = Counter(head[:length] for head in heads if len(head) >= length)
        grown = Counter({n: count for n, count in grown.items() if length == 1 or n[:-1] in names})
        begins: Counter[str] = Counter()
        for name, count in grown.items():
            begins[name[-1]] += count
        left = Counter(w for words, _ in rows for w in set(words[_length(words, names) :]))
        with_name = Counter(tuple(words[: length - 1]) for words, _ in rows)
        for name, count in grown.items():
            word = name[-1]
            first = begins[word] >= max(MIN_TITLES, BEGINS * left[word])
            on = told and length > 1 and count >= max(MIN_TITLES, GOES_ON * with_name[name[:-1]])
            if first or (on and count >= OF_ITS_OWN * left[word]):
                names.add(name)
    return frozenset(names)


def without_brand(title: str, names: frozenset[tuple[str, ...]]) -> str:
    """The title without the brand's name that it begins with; one that is nothing else keeps its last word."""
    words = title.split()
    return " ".join(words[min(_length(words, names), len(words) - 1) :]) if words else title


def _told(item: Item, words: Sequence[str]) -> list[tuple[str, ...]]:
    """The beginnings of the title that are its brand by an attribute of that name."""
    brands = [
        v.lower().split() for column in item.attributes if _is_brand(column) for v in listed(item, column)
    ]
    longest = max((len(b) for b in brands if [w.lower() for w in words[: len(b)]] == b), default=0)
    return [tuple(words[:length]) for length in range(1, longest + 1)]


def _said(item: Item) -> frozenset[str]:
    """The words of the item's attributes, lower-cased; of its brand and of whole sentences none."""
    values = [v.lower().split() for c in item.attributes if not _is_brand(c) for v in listed(item, c)]
    return frozenset(word for words in values if len(words) <= MOST_WORDS for word in words)


def _is_brand(column: str) -> bool:
    return "brand" in column.lower() or "品牌" in column


def _head(words: Sequence[str], said: frozenset[str]) -> tuple[str, ...]:
    """What may be a brand's name: the words before the first that the attributes say."""
    at = next((i for i, word in enumerate(words) if word.lower() in said), len(words))
    return tuple(words[: min(at, MOST_WORDS)])


def _length(words: Sequence[str], names: frozenset[tuple[str, ...]] | set[tuple[str, ...]]) -> int:
    """Words of the name that these begin with."""
    at = 0
    while at < len(words) and tuple(words[: at + 1]) in names:
        at += 1
    return at
