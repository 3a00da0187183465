"""Picture-text pairs for training, from sources: which picture goes with which words, drawn by (seed, step).

A batch depends on the seed, the stage and the step alone, so a run that was stopped goes on with the batches it
would have had.
"""

# n pairs of a batch, A attribute columns

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textmm.brands import brand_names, without_brand
from textmm.drawings import draw_catalogue
from textmm.duplicates import same_pictures
from textmm.phrases import CaptionPhrase, Phrases, Sayer, say
from textmm.questions import Question, Questions
from textmm.sources import Item, SourceError, listed, one_per_picture, read_bytes, read_source
from textmm.transforms import decode_image
from textmm.wording import read_translations

Ints = NDArray[np.int64]
PHRASES_PER_PICTURE, QUESTIONS_PER_PICTURE = 8, 24
"""Prepared for each picture, so that the distinct texts of a run are known before it starts."""
DRAWN = "drawn:"
ZH_SHARE = 0.3
"""Of the questions; the others are English."""


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
    caption_phrases: tuple[CaptionPhrase, ...] = ()
    """Captions made of attributes."""
    strip_brands: bool = False
    """Whether captions are its texts without the names that they begin with."""
    question_share: float = 0.0
    """Part of a batch of questions, relative to the other sources."""
    question_column: str = ""
    """Column of a question to each picture, answered by `answer_column`. Empty: questions are made of attributes and
    sentences."""
    answer_column: str = "answer"
    apart: bool = False
    """Compared only with sources that are apart too: drawings are no negatives for photos."""
    text_column: str = ""
    """Column that holds the words, where it is not one that read_source knows: `query` in a table of clicks."""

    @property
    def is_read_by_decoder(self) -> bool:
        return self.caption_share > 0 or self.question_share > 0


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


@dataclass(frozen=True)
class QuestionDraw:
    picture_ids: Ints
    text_ids: Ints
    """The questions, in Pairs.texts."""
    answers: list[str]


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
        questions: str = "",
    ) -> None:
        """`data` is the folder below which the sources lie, `drawings` where drawn ones go, `questions` what
        `Questions` reads. Raises SourceError.
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
        sayer = Sayer(phrases)
        rng = np.random.default_rng([seed, 1])
        self._phrases: list[Ints] = []
        for source, span in zip(sources, self.ranges, strict=True):
            for i in span:
                said = islice(
                    sayer.phrases(self.items[i], rng), PHRASES_PER_PICTURE if source.phrase_share else 0
                )
                self._phrases.append(np.array([texts.add(*one) for one in said], dtype=np.int64))
        self._check_words()
        self._sayings = [
            _Captions(s, [self.items[i] for i in r]) for s, r in zip(sources, self.ranges, strict=True)
        ]
        self._asked: dict[int, list[tuple[int, str]]] = {}
        asked: list[int] = []
        for source, span in zip(sources, self.ranges, strict=True):
            if source.question_column:
                self._asked.update({i: _asked_in(source, self.items[i], texts) for i in span})
            elif source.question_share and not questions:
                raise SourceError(
                    f"{source.source} has a question_share: say the recipe's questions, a TOML file, or its own "
                    "question_column"
                )
            elif source.question_share:
                asked += span
        if questions:
            maker, rng = (
                Questions(questions, [self.items[i] for i in asked]),
                np.random.default_rng([seed, 9]),
            )
            for i in asked:
                drawn = _questions_about(self.items[i], maker, rng)
                self._asked[i] = [(texts.add(q.text), q.answer) for q in drawn]
        self._check_questions()
        self.texts = texts.texts
        # "Red dress" is no negative of "red dress"
        same = [" ".join(text.casefold().split()) for text in self.texts]
        first = {text: i for i, text in reversed(list(enumerate(same)))}
        self._wording = np.array([first[text] for text in same], dtype=np.int64)
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

    def _check_questions(self) -> None:
        for source, span in zip(self.sources, self.ranges, strict=True):
            if source.question_share and not any(self._asked.get(i) for i in span):
                said = (
                    f"columns {source.question_column} and {source.answer_column}"
                    if source.question_column
                    else "attributes or sentences that the questions speak of"
                )
                raise SourceError(f"{source.source} has a question_share, and no picture of it has {said}")

    def caption_texts(self) -> Iterator[str]:
        """What the decoder may learn to say, for its vocabulary."""
        for source, span, said in zip(self.sources, self.ranges, self._sayings, strict=True):
            if source.caption_share:
                for i in span:
                    yield from said.all(self.items[i])
            for i in span:
                yield from (answer for _, answer in self._asked.get(i, []))

    def draw(self, batch_size: int, *, stage: int, step: int) -> Draw:
        """A contrastive batch."""
        rng = np.random.default_rng([self.seed, 2, stage, step])
        pictures, texts = [], []
        for _, (source, span, count) in self._counts([s.share for s in self.sources], batch_size):
            for i in _choose(span, count, rng):
                own, phrases = self._own[i], self._phrases[i]
                pool = (
                    phrases if len(phrases) and (rng.random() < source.phrase_share or not len(own)) else own
                )
                if len(pool):
                    pictures.append(i)
                    texts.append(int(rng.choice(pool)))
        return Draw(np.array(pictures), np.array(texts))

    def draw_captions(self, batch_size: int, *, stage: int, step: int, style: str = "") -> CaptionDraw:
        """`style`: captions of that style only, of pictures that have one; empty: as the sources say."""
        rng = np.random.default_rng([self.seed, 3, stage, step])
        pictures, captions, styles = [], [], []
        for which, (_, span, count) in self._counts([s.caption_share for s in self.sources], batch_size):
            for i in _choose(span, count, rng):
                said = self._sayings[which].one(self.items[i], rng, style)
                if said is not None:
                    pictures.append(i)
                    styles.append(said[0])
                    captions.append(said[1])
        return CaptionDraw(np.array(pictures), captions, styles)

    def draw_questions(self, batch_size: int, *, stage: int, step: int) -> QuestionDraw:
        rng = np.random.default_rng([self.seed, 8, stage, step])
        pictures, texts, answers = [], [], []
        for _, (_, span, count) in self._counts([s.question_share for s in self.sources], batch_size):
            for i in _choose(span, count, rng):
                if asked := self._asked[i]:
                    text, answer = asked[int(rng.integers(len(asked)))]
                    pictures.append(i)
                    texts.append(text)
                    answers.append(answer)
        return QuestionDraw(np.array(pictures), np.array(texts), answers)

    def texts_of(self, i: int) -> tuple[Ints, Ints]:
        """Of item i, into `texts`: its own, and phrases made of its attributes."""
        return self._own[i], self._phrases[i]

    def sentences(self, style: str) -> dict[int, tuple[str, ...]]:
        """Of each picture whose own texts are captions of this style, those texts: what others' captions are measured
        against."""
        out = {}
        for source, span in zip(self.sources, self.ranges, strict=True):
            if source.caption_share and source.style == style:
                out.update({i: self.items[i].texts for i in span if self.items[i].texts})
        return out

    def source_of(self, picture_ids: Ints) -> Ints:
        """Which of `sources` each picture is from."""
        starts = [span.start for span in self.ranges]
        found: Ints = np.searchsorted(starts, picture_ids, side="right") - 1
        return found

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

    def _counts(
        self, shares: list[float], batch_size: int
    ) -> Iterator[tuple[int, tuple[PairSource, range, int]]]:
        """(which source, (source, its pictures, how many of them))"""
        total = sum(shares)
        for which, (source, span, share) in enumerate(zip(self.sources, self.ranges, shares, strict=True)):
            if share and len(span):
                yield which, (source, span, round(batch_size * share / total))

    def picture(self, i: int) -> Image.Image:
        """The decoded picture of item i. Raises OSError, ImageUnreadable."""
        return decode_image(read_bytes(self.items[i].locator))


class _Captions:
    """What may be said of the pictures of one source."""

    def __init__(self, source: PairSource, items: Sequence[Item]) -> None:
        self._source = source
        self._brands = brand_names(items) if source.strip_brands else frozenset()
        self._words = [
            read_translations(p.translations) if p.translations else {} for p in source.caption_phrases
        ]

    def one(self, item: Item, rng: np.random.Generator, style: str) -> tuple[str, str] | None:
        """(style, caption); None: nothing is to be said."""
        draw = rng.random()
        for phrase, words in zip(self._source.caption_phrases, self._words, strict=True):
            draw -= phrase.share
            if draw < 0 and style in ("", phrase.style):
                return phrase.style, say(phrase.template, item, words)
        if not item.texts or style not in ("", self._source.style):
            return None
        return self._source.style, self._stripped(item.texts[int(rng.integers(len(item.texts)))])

    def all(self, item: Item) -> Iterator[str]:
        yield from map(self._stripped, item.texts)
        for phrase, words in zip(self._source.caption_phrases, self._words, strict=True):
            yield say(phrase.template, item, words)

    def _stripped(self, text: str) -> str:
        return without_brand(text, self._brands) if self._brands else text


def _items(source: PairSource, data: Path, drawings: Path, seed: int) -> list[Item]:
    """Readable items, as `one_per_picture` joins them."""
    if source.source.startswith(DRAWN):
        count = int(source.source.removeprefix(DRAWN))
        folder = drawings / f"drawn-{seed}-{count}"
        table = folder / "products.csv"
        path = str(table if table.exists() else draw_catalogue(folder, count, seed=seed))
    else:
        path = str(data / source.source)
    items = (item for item in read_source(path) if item.problem is None)
    return one_per_picture(items, source.text_column)


def _asked_in(source: PairSource, item: Item, texts: _Texts) -> list[tuple[int, str]]:
    """The question of a row with each of its answers; none where one of both is missing."""
    question, answers = item.attributes.get(source.question_column), listed(item, source.answer_column)
    return [] if question is None else [(texts.add(str(question)), answer) for answer in answers]


def _questions_about(item: Item, maker: Questions, rng: np.random.Generator) -> list[Question]:
    shares = [ZH_SHARE if language == "zh" else 1 - ZH_SHARE for language in maker.languages]
    drawn = rng.choice(len(shares), QUESTIONS_PER_PICTURE, p=np.array(shares) / sum(shares))
    languages = [maker.languages[i] for i in drawn]
    made = [maker.ask(item, rng, language=language) for language in languages]
    return [question for question in made if question is not None]


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
