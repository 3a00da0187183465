"""Dialogue: turns in words and pictures to searches of a collection and answers about pictures.

It keeps no state: what a conversation has asked for is worked out again from its turns, and the hits that "the second"
means are those the client sends back, or else are searched again.
"""

from __future__ import annotations

import statistics
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.errors import NotFound
from search import messages as m
from search.ask import ask
from search.asked_attribute import asked_attribute, phrasings_of_questions
from search.engine import SearchEngine
from search.intents import Intents, phrasings
from search.lexicon import Lexicon, choices, is_chinese
from search.messages import BadRequest
from search.numbers import places
from search.operations import (
    Asked,
    Bound,
    Cheaper,
    Describe,
    Exclude,
    NextPage,
    Operation,
    OutOfScope,
    Question,
    Refine,
    Replace,
    Reset,
    Similar,
    applied,
    narrowed,
)
from search.replies import details_of, listed, query_in_words, said
from search.understanding import Context, Slots, slots_of, understood
from textmm.classify import probabilities
from textmm.wording import style_in

Rows = NDArray[np.float32]

MOST_TURNS = 32
"""User turns that are read, the last ones."""
MOST_CHARACTERS = 400
"""Of a turn, those that are understood; a longer one is read to here."""
PREPARED_AT_ONCE = 16
"""Phrasings; requests get the model in between."""
KEPT_TEXTS = 20_000
KEPT_LEXICONS = 16


@dataclass(frozen=True)
class Turn:
    """What a user said, and the keys of the hits of the reply if the client sent them back."""

    text: str
    pictures: tuple[str, ...] = ()
    """base64 or data URIs"""
    shown: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Reply:
    text: str
    operation: Operation
    asked: Asked | None
    """The search as it is after this turn."""
    hits: list[m.Hit] = field(default_factory=list)


@dataclass
class _State:
    """What the turns so far come to."""

    asked: Asked | None = None
    pictures: tuple[str, ...] = ()
    """All that were sent, in order."""
    shown: tuple[str, ...] | None = None
    """Keys of the last hits; None: search again to know them."""
    missed: int | None = None
    """The place that the last turn points at, where nothing is."""

    @property
    def picture(self) -> str | None:
        """The last one."""
        return self.pictures[-1] if self.pictures else None

    def points_at_pictures(self) -> bool:
        """Whether "the second" is a picture: before a search there are no hits that it could be."""
        return self.asked is None and bool(self.pictures)


class Dialogue:
    def __init__(self, engine: SearchEngine) -> None:
        self._engine = engine
        self._intents: Intents | None = None
        self._lexicons: OrderedDict[Any, Lexicon] = OrderedDict()
        self._rows: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.RLock()

    def reply(
        self, turns: Sequence[Turn], *, collection: str | None, page: int = 10, style: str | None = None
    ) -> Reply:
        """To the last turn, the ones before as context. `page`: hits of a reply; `style`: of captions.

        Raises BadRequest (no turn, or a search without a collection), NotFound, and what a search raises.
        """
        if not turns:
            raise BadRequest("messages holds no turn of a user", "messages")
        lexicon = self.lexicon(collection)
        state = _State()
        *before, last = turns[-MOST_TURNS:]
        for turn in before:
            self._take(turn, state, lexicon, collection, page)
        operation = self._take(last, state, lexicon, collection, page)
        return self._answered(last, operation, state, _Place(collection, page, style), lexicon)

    def operations(self, turns: Sequence[Turn], *, collection: str, page: int = 10) -> list[Operation]:
        """What each of the turns was understood to ask for."""
        lexicon, state = self.lexicon(collection), _State()
        return [self._take(turn, state, lexicon, collection, page) for turn in turns]

    # -- the conversation ------------------------------------------------------------------------

    def attribute_asked(self, say: str, names: Sequence[str]) -> str | None:
        """The attribute of these names that the question about a hit is about; None: it is about something else."""
        return asked_attribute(of_it(say.lower()), names, self.encode)

    def _take(
        self, turn: Turn, state: _State, lexicon: Lexicon, collection: str | None, page: int
    ) -> Operation:
        """What a turn asks for; the state after it."""
        state.pictures += turn.pictures
        state.missed = None
        text = turn.text[:MOST_CHARACTERS]
        context = Context(state.asked, state.picture is not None)
        operation: Operation = (
            understood(text, context, lexicon, self._meanings()) if text.strip() else Describe(None)
        )
        base = state.asked
        if base is None and state.picture is not None and isinstance(operation, Refine | Replace | Exclude):
            base = Asked(picture=state.picture)
        match operation:
            case Similar(hit, where):
                asked = self._similar(hit, state, collection, page)
                if asked is None:
                    state.missed = hit
                else:
                    state.asked, state.shown = narrowed(asked, where=where), None
            case Cheaper(dearer):
                state.asked = self._priced(base, lexicon, collection, page, dearer=dearer)
                state.shown = None
            case Describe() | Question() | OutOfScope():
                pass
            case _:
                state.asked = applied(base, operation, page)
                state.shown = None
        if turn.shown is not None and not isinstance(operation, Describe | Question | OutOfScope):
            state.shown = turn.shown
        return operation

    def _similar(self, hit: int | None, state: _State, collection: str | None, page: int) -> Asked | None:
        """The search for what is like a hit or a picture; what was excluded and the limits stay. None: there is no such
        hit."""
        kept = state.asked or Asked()
        if hit is None or state.points_at_pictures():
            picture = state.picture if hit is None else _at(state.pictures, hit)
            if hit is not None and picture is None:
                return None
            return replace(kept, words="", where={}, image_key=None, picture=picture, offset=0)
        key = self._key(hit, state, collection, page)
        if key is None:
            return None
        return replace(kept, words="", where={}, image_key=key, picture=None, offset=0)

    def _key(self, hit: int, state: _State, collection: str | None, page: int) -> str | None:
        if state.shown is None:
            found = () if state.asked is None else self._search(state.asked, collection, page)
            state.shown = tuple(one.key for one in found)
        return _at(state.shown, hit)

    def _priced(
        self, asked: Asked | None, lexicon: Lexicon, collection: str | None, page: int, *, dearer: bool
    ) -> Asked | None:
        """Beyond the middle price of the hits; the same search when they have none."""
        if asked is None or lexicon.price is None:
            return asked
        hits = self._search(asked, collection, page)
        prices = [p for hit in hits if isinstance(p := hit.attributes.get(lexicon.price), int | float)]
        if not prices:
            return asked
        bound = Bound(lexicon.price, ">" if dearer else "<", float(statistics.median(prices)))
        return narrowed(asked, bounds=(bound,))

    def _search(self, asked: Asked, collection: str | None, page: int) -> list[m.Hit]:
        """The page of hits that `asked` is at."""
        if collection is None:
            raise BadRequest(
                'collection is missing: name the collection to search, as "model": "…/shop" or "collection": "shop"',
                "collection",
            )
        k = asked.offset + page
        if k > m.MAX_K:
            return []
        text = asked.text or None
        if text is not None and asked.image_key is None and asked.picture is None:
            fields: dict[str, Any] = {"text": text}
        elif asked.image_key is not None:
            fields = {"image_key": asked.image_key}
        elif asked.picture is not None:
            fields = {"image": asked.picture}
        else:
            fields = {"text": "product"}  # limits alone: any order will do
        request = m.SearchRequest(collection=collection, k=k, filter=asked.filter(), **fields)
        return (self._engine.search(request).hits or [])[asked.offset :]

    # -- the reply -------------------------------------------------------------------------------

    def _answered(
        self, turn: Turn, operation: Operation, state: _State, place: _Place, lexicon: Lexicon
    ) -> Reply:
        say = turn.text
        match operation:
            case OutOfScope():
                return Reply(said("scope", say), operation, state.asked)
            case Reset():
                return Reply(said("reset", say), operation, None)
            case Describe(hit) | Question(hit):
                return self._about(turn, operation, hit, state, place, lexicon)
            case Exclude(without, bounds) if not without and not bounds:
                return Reply(said("unknown_value", say), operation, state.asked)
            case Similar() if state.missed is not None:
                return Reply(_nothing_at(state.missed, state, say), operation, state.asked)
        if state.asked is None:
            return Reply(said("scope", say), operation, None)
        hits = self._search(state.asked, place.collection, place.page)
        query = query_in_words(state.asked, say)
        if not hits:
            name = "no_more" if isinstance(operation, NextPage) else "nothing"
            return Reply(said(name, say, query=query), operation, state.asked)
        title = said("found", say, query=query)
        lines = listed(hits, 1)
        return Reply("\n".join([title, *lines]), operation, state.asked, hits)

    def _about(
        self,
        turn: Turn,
        operation: Operation,
        hit: int | None,
        state: _State,
        place: _Place,
        lexicon: Lexicon,
    ) -> Reply:
        """About a hit: what is known of it, then what is seen. About pictures, each of several: what is seen."""
        say = turn.text
        slots = slots_of(say[:MOST_CHARACTERS].lower(), lexicon)
        question = isinstance(operation, Question)
        if hit is not None and not state.points_at_pictures():
            key = self._key(hit, state, place.collection, place.page)
            if key is None or place.collection is None:
                return Reply(_nothing_at(hit, state, say), operation, state.asked)
            image = self._engine.catalogue.get_image(place.collection, key)
            text = self._known(say, slots, image, lexicon) if question else None
            if text is None and question:
                text = self._seen(say, slots, self._stored(place, key), lexicon)
            details = said("described", say, name=image.title or image.key, details=details_of(image))
            return Reply(text or details, operation, state.asked)
        one = state.picture if hit is None else _at(state.pictures, hit)
        if hit is not None and one is None:
            return Reply(_nothing_at(hit, state, say), operation, state.asked)
        pictures = turn.pictures if hit is None and turn.pictures else (one,)
        texts = [self._of_picture(say, slots, picture, place, lexicon, question) for picture in pictures]
        if len(texts) > 1:  # the numbers by which they can be pointed at
            first = len(state.pictures) - len(texts) + 1
            texts = [f"{number}. {text}" for number, text in enumerate(texts, first)]
        return Reply("\n".join(texts), operation, state.asked)

    def _of_picture(
        self, say: str, slots: Slots, picture: str | None, place: _Place, lexicon: Lexicon, question: bool
    ) -> str:
        """The answer to a question about it, or its description."""
        shown = self._decoded(picture)
        answer = self._seen(say, slots, shown, lexicon) if question else None
        if answer is not None:
            return answer
        seen = self._caption(say, shown, place)
        knows = not question or shown is None or not self._engine.encoder.styles
        return seen if knows else said("do_not_know", say, seen=seen)

    def _known(self, say: str, slots: Slots, image: m.Image, lexicon: Lexicon) -> str | None:
        """From the attributes of a stored picture."""
        if slots.where:
            name, wanted = next(iter(slots.where.items()))
            value = image.attributes.get(name)
            if value is None:
                return None
            has = value if isinstance(value, list) else [str(value)]
            return said("yes" if set(wanted) & set(has) else "no", say, value=", ".join(has))
        names = list(image.attributes)
        name_asked = self.attribute_asked(say, names)
        if name_asked is None:
            return None
        return said("value", say, attribute=name_asked, value=details_value(image.attributes[name_asked]))

    def _seen(self, say: str, slots: Slots, shown: Image.Image | None, lexicon: Lexicon) -> str | None:
        """From the picture itself: the model's own answer; where it does not know or answers no questions, the nearest
        value of the attribute that is asked about, if that is as probable as an answer has to be."""
        if shown is None:
            return None
        encoder = self._engine.encoder
        if encoder.asks:
            request = m.AskRequest(question=say[:MOST_CHARACTERS])
            (answered,) = ask(self._engine.batching, [shown], request, calibration=encoder.calibration)
            if answered.known:
                return said("answer", say, answer=answered.answer[:1].upper() + answered.answer[1:])
        name = next(iter(slots.where), None) or self.attribute_asked(say, list(lexicon.values))
        if name is None:
            return None
        row = self._engine.batching.encode_images([shown])[0]
        cosines = (lexicon.vectors(name) @ row)[None]
        (shares,) = probabilities(cosines, encoder.calibration.temperature)
        if shares.max() < encoder.calibration.answer_at_least:
            return None
        best = lexicon.values[name][int(shares.argmax())]
        if name in slots.where:
            return said("yes" if best in slots.where[name] else "no", say, value=best)
        return said("value", say, attribute=name, value=best)

    def _caption(self, say: str, shown: Image.Image | None, place: _Place) -> str:
        captioner = self._engine.captioner
        if shown is None or not self._engine.encoder.styles:
            return said("unknown", say)
        usual = None
        if place.collection is not None:
            usual = self._engine.collections.get(place.collection).caption_style
        style = captioner.style(place.style, usual)
        chinese = style_in(style, "zh")
        if is_chinese(say) and chinese in self._engine.encoder.styles:
            return said("caption_in_chinese", say, caption=captioner.caption(shown, chinese).text)
        return said("caption", say, caption=captioner.caption(shown, style).text)

    def _decoded(self, picture: str | None) -> Image.Image | None:
        if picture is None:
            return None
        uploads = self._engine.uploads
        return self._engine.encoder.fit(uploads.decode(uploads.bytes_of(picture)))

    def _stored(self, place: _Place, key: str) -> Image.Image | None:
        if place.collection is None:
            return None
        try:
            data, _ = self._engine.catalogue.content(place.collection, key, thumbnail=False)
        except NotFound:
            return None
        return self._engine.encoder.fit(self._engine.uploads.decode(data))

    # -- what is kept between calls --------------------------------------------------------------

    def encode(self, texts: Sequence[str]) -> Rows:
        """Rows of texts by the model of this process, those seen before without asking it: a conversation comes again
        with every turn."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._rows]
            known = {text: self._rows[text] for text in texts if text in self._rows}
        if new:
            known.update(zip(new, self._engine.encoder.encode_texts(new), strict=True))
        with self._lock:
            self._rows.update(known)
            while len(self._rows) > KEPT_TEXTS:
                self._rows.popitem(last=False)
        return np.stack([known[text] for text in texts])

    def prepare(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Encode the phrasings, some at a time, so that the first turn need not wait for them; until `stop` says so."""
        texts = [
            *(phrasing.filled for phrasing in phrasings()),
            *(text for _, text in phrasings_of_questions()),
        ]
        for start in range(0, len(texts), PREPARED_AT_ONCE):
            if stop():
                return
            self.encode(texts[start : start + PREPARED_AT_ONCE])
        self._meanings()

    def _meanings(self) -> Intents:
        with self._lock:
            if self._intents is None:
                self._intents = Intents(self.encode)
            return self._intents

    def lexicon(self, collection: str | None) -> Lexicon:
        """Of the collection as it is now; an empty one for none. Raises NotFound."""
        values: Mapping[str, Sequence[str]] = {}
        numbers: Sequence[str] = ()
        if collection is not None:
            view = self._engine.live.view(self._engine.collections.get(collection))
            if view is not None:
                values, numbers = choices(view.images.attributes)
        key = (tuple((name, tuple(given)) for name, given in values.items()), tuple(numbers))
        with self._lock:
            if key not in self._lexicons:
                self._lexicons[key] = Lexicon(values, numbers, self.encode)
                while len(self._lexicons) > KEPT_LEXICONS:
                    self._lexicons.popitem(last=False)
            self._lexicons.move_to_end(key)
            return self._lexicons[key]


@dataclass(frozen=True)
class _Place:
    """What a request names beside its turns."""

    collection: str | None
    page: int
    style: str | None


def _at(things: Sequence[str], place: int) -> str | None:
    """Counted from 1, or from the end by -1; None: nothing is there."""
    at = place - 1 if place > 0 else place
    return things[at] if -len(things) <= at < len(things) else None


def _nothing_at(place: int, state: _State, say: str) -> str:
    name = "no_picture" if state.points_at_pictures() else "no_hit"
    return said(name, say, hit=str(place))


def of_it(question: str) -> str:
    """The question with "it" in place of "the second one": how it is pointed at is no part of what is asked."""
    for place in sorted(places(question), key=lambda place: -place.start):
        it = "它" if is_chinese(question) else "it"
        gap = " " if question[place.end - 1].isspace() else ""
        question = question[: place.start] + it + gap + question[place.end :]
    return question


def details_value(value: m.AttributeValue) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
