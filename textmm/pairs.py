"""Picture-text pairs for training, from sources: which picture goes with which words, drawn by (seed, step).

A batch depends on the seed, the stage and the step alone, so a run that was stopped goes on with the batches it
would have had.
"""

# n pairs of a batch, A attribute columns

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from itertools import islice, pairwise
from pathlib import Path
from string import Formatter

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textmm.drawings import draw_catalogue
from textmm.duplicates import same_pictures
from textmm.sources import Item, SourceError, read_bytes, read_source
from textmm.transforms import decode_image

Ints = NDArray[np.int64]
PHRASES_PER_PICTURE = 8
"""Phrases prepared for each picture, so that the distinct texts of a run are known before it starts."""
DRAWN = "drawn:"


@dataclass(frozen=True, kw_only=True)
class PairSource:
    source: str
    """What read_source takes, below the data folder; or `drawn:COUNT`, products drawn on the spot."""
    share: float
    """Part of a contrastive batch, relative to the other sources."""
    caption_share: float = 0.0
    """Part of a captioning batch, likewise."""
    views: int = 4
    """Views kept of a picture when its trunk is locked: itself, its mirror, random crops."""
    style: str = "photo"
    """Caption style of its own texts."""
    phrase_share: float = 0.0
    """Share of draws that take a phrase made of attributes instead of the picture's own text."""
    caption_phrase: str = ""
    """Template of the caption in style `attributes`."""
    caption_phrase_share: float = 0.0
    """Share of captioning draws that use it."""
    apart: bool = False
    """Compared only with sources that are apart too: drawings are no negatives for photos."""
    text_column: str = ""
    """Column that holds the words, where it is not one that read_source knows: `query` in a table of clicks."""


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


@dataclass(frozen=True)
class Draw:
    """One batch: row i of each belongs together."""

    picture_ids: Ints
    text_ids: Ints
    """Into Pairs.texts."""


@dataclass(frozen=True)
class CaptionDraw:
    picture_ids: Ints
    captions: list[str]
    styles: list[str]


@dataclass
class _Texts:
    """Distinct texts and, of a phrase, the attribute values it speaks of."""

    texts: list[str] = field(default_factory=list)
    says: list[frozenset[tuple[str, str]]] = field(default_factory=list)
    _ids: dict[tuple[str, frozenset[tuple[str, str]]], int] = field(default_factory=dict)

    def add(self, text: str, says: frozenset[tuple[str, str]] = frozenset()) -> int:
        at = (text, says)
        if at not in self._ids:
            self._ids[at] = len(self.texts)
            self.texts.append(text)
            self.says.append(says)
        return self._ids[at]


class Pairs:
    """All pictures of the sources with their texts and phrases."""

    def __init__(
        self,
        sources: Sequence[PairSource],
        phrases: Sequence[Phrases],
        *,
        data: Path,
        drawings: Path,
        seed: int,
    ) -> None:
        """`data` is the folder below which the sources lie, `drawings` where drawn ones go. Raises
        SourceError.
        """
        self.sources = tuple(sources)
        self.seed = seed
        self.items: list[Item] = []
        starts = [0]
        for source in sources:
            self.items += _items(source, data, drawings, seed)
            starts.append(len(self.items))
        self.ranges = [range(a, b) for a, b in pairwise(starts)]
        texts = _Texts()
        self._looks = same_pictures([item.locator for item in self.items])
        self._own: list[Ints] = [
            np.array([texts.add(t) for t in i.texts], dtype=np.int64) for i in self.items
        ]
        sayer = _Sayer(phrases)
        rng = np.random.default_rng([seed, 1])
        self._phrases: list[Ints] = []
        for source, span in zip(sources, self.ranges, strict=True):
            for i in span:
                said = islice(
                    sayer.phrases(self.items[i], rng), PHRASES_PER_PICTURE if source.phrase_share else 0
                )
                self._phrases.append(np.array([texts.add(*one) for one in said], dtype=np.int64))
        self._check_words()
        self.texts = texts.texts
        first = {text: i for i, text in reversed(list(enumerate(self.texts)))}
        self._wording = np.array([first[text] for text in self.texts], dtype=np.int64)
        self._says, self._has = _codes(texts.says, self.items)
        self._apart = np.concatenate(
            [np.full(len(span), s.apart) for s, span in zip(sources, self.ranges, strict=True)]
        )

    def _check_words(self) -> None:
        for source, span in zip(self.sources, self.ranges, strict=True):
            if source.share and not any(len(self._own[i]) or len(self._phrases[i]) for i in span):
                raise SourceError(
                    f"{source.source}: no picture of it has a text, or attributes that a phrase speaks of; "
                    "train on a manifest or on shards"
                )

    def caption_texts(self) -> Iterator[str]:
        """What the decoder may learn to say, for its vocabulary."""
        for source, span in zip(self.sources, self.ranges, strict=True):
            if source.caption_share:
                for i in span:
                    yield from self.items[i].texts
                    if source.caption_phrase_share:
                        yield _say(source.caption_phrase, self.items[i])

    def draw(self, batch_size: int, *, stage: int, step: int) -> Draw:
        """A contrastive batch."""
        rng = np.random.default_rng([self.seed, 2, stage, step])
        pictures, texts = [], []
        for source, span, count in self._counts([s.share for s in self.sources], batch_size):
            for i in _choose(span, count, rng):
                own, phrases = self._own[i], self._phrases[i]
                pool = (
                    phrases if len(phrases) and (rng.random() < source.phrase_share or not len(own)) else own
                )
                if len(pool):
                    pictures.append(i)
                    texts.append(int(rng.choice(pool)))
        return Draw(np.array(pictures), np.array(texts))

    def draw_captions(self, batch_size: int, *, stage: int, step: int) -> CaptionDraw:
        rng = np.random.default_rng([self.seed, 3, stage, step])
        pictures, captions, styles = [], [], []
        for source, span, count in self._counts([s.caption_share for s in self.sources], batch_size):
            for i in _choose(span, count, rng):
                own = self.items[i].texts
                if source.caption_phrase and (rng.random() < source.caption_phrase_share or not own):
                    captions.append(_say(source.caption_phrase, self.items[i]))
                    styles.append("attributes")
                elif own:
                    captions.append(own[int(rng.integers(len(own)))])
                    styles.append(source.style)
                else:
                    continue
                pictures.append(i)
        return CaptionDraw(np.array(pictures), captions, styles)

    def positives(self, draw: Draw) -> NDArray[np.bool_]:
        """[n, n]: picture i and text j belong together: the same picture or text, or a phrase true of i."""
        pictures, texts = draw.picture_ids, draw.text_ids
        wording = self._wording[texts]  # an own text and a phrase may be the same words
        looks = self._looks[pictures]
        same = (looks[:, None] == looks[None, :]) | (wording[:, None] == wording[None, :])
        says, has = self._says[texts], self._has[pictures]  # [n, A]
        true: NDArray[np.bool_] = np.ones((len(pictures), len(texts)), dtype=bool)
        for column in range(says.shape[1]):
            asked = says[None, :, column]
            true &= (asked < 0) | (asked == has[:, None, column])
        true &= np.any(says >= 0, axis=1)[None, :]
        true |= same
        return true

    def ignored(self, draw: Draw) -> NDArray[np.bool_]:
        """[n, n]: pairs that are neither right nor wrong: one of them is kept apart."""
        apart = self._apart[draw.picture_ids]
        out: NDArray[np.bool_] = apart[:, None] != apart[None, :]
        return out

    def _counts(self, shares: list[float], batch_size: int) -> Iterator[tuple[PairSource, range, int]]:
        total = sum(shares)
        for source, span, share in zip(self.sources, self.ranges, shares, strict=True):
            if share and len(span):
                yield source, span, round(batch_size * share / total)

    def picture(self, i: int) -> Image.Image:
        """The decoded picture of item i. Raises OSError, ImageUnreadable."""
        return decode_image(read_bytes(self.items[i].locator))


class _Sayer:
    def __init__(self, phrases: Sequence[Phrases]) -> None:
        self._phrases = phrases
        self._words = [read_translations(p.synonyms) if p.synonyms else {} for p in phrases]
        self._fields = [[_fields(t) for t in p.templates] for p in phrases]
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


def read_translations(name: str) -> dict[str, list[str]]:
    """value (lower-cased) -> words, the usual one first; a file path or a name in textmm/translations."""
    path = Path(name)
    if not path.is_file():
        path = Path(str(resources.files("textmm"))) / "translations" / name
    out: dict[str, list[str]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            out.setdefault(row["value"].lower(), []).append(row["translation"])
    return out


def _items(source: PairSource, data: Path, drawings: Path, seed: int) -> list[Item]:
    """Readable items. With a column of words, each picture once, with the words of all its rows."""
    if source.source.startswith(DRAWN):
        count = int(source.source.removeprefix(DRAWN))
        folder = drawings / f"drawn-{seed}-{count}"
        table = folder / "products.csv"
        path = str(table if table.exists() else draw_catalogue(folder, count, seed=seed))
    else:
        path = str(data / source.source)
    items = [item for item in read_source(path) if item.problem is None]
    return _by_picture(items, source.text_column) if source.text_column else items


def _by_picture(items: Sequence[Item], column: str) -> list[Item]:
    out: dict[str, Item] = {}
    for item in items:
        said = item.attributes.get(column)
        first = out.get(item.locator, item)
        out[item.locator] = first if said is None else replace(first, captions=(*first.captions, str(said)))
    return list(out.values())


def _codes(says: Sequence[frozenset[tuple[str, str]]], items: Sequence[Item]) -> tuple[Ints, Ints]:
    """Attribute values as integers: what each text speaks of [texts, A] and each picture has [items, A]; -1
    none.
    """
    columns = sorted({name for said in says for name, _ in said})
    codes: dict[tuple[str, str], int] = {}

    def rows(of: Sequence[Mapping[str, str]]) -> Ints:
        out = np.full((len(of), len(columns)), -1, dtype=np.int64)
        for i, row in enumerate(of):
            for at, column in enumerate(columns):
                if column in row:
                    out[i, at] = codes.setdefault((column, row[column]), len(codes))
        return out

    has = [{k: str(v) for k, v in item.attributes.items()} for item in items]
    return rows([dict(said) for said in says]), rows(has)


def _choose(span: range, count: int, rng: np.random.Generator) -> list[int]:
    """`count` of the pictures; none twice while there are enough."""
    chosen = rng.choice(len(span), size=count, replace=count > len(span))
    return [span[int(i)] for i in chosen]


def _say(template: str, item: Item) -> str:
    """The template with what the item has; what it lacks is left out with its connecting word."""
    values = {f: str(item.attributes.get(f, "")) for f in _fields(template)}
    said = " ".join(template.format(**values).split()).lower()
    return said.removesuffix(" for")


def _fields(template: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(template) if name]
