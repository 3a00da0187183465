"""From a turn of a dialogue to its operation: slots by the lexicon, the intent by the nearest phrasings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from search import numbers
from search.intents import PLACEHOLDERS, Intents, frame_pieces, frame_words
from search.lexicon import Lexicon, Mention, is_chinese
from search.numbers import Limits, Place
from search.operations import (
    Asked,
    Bound,
    Cheaper,
    Choices,
    Describe,
    Exclude,
    NewSearch,
    NextPage,
    Operation,
    OutOfScope,
    Question,
    Refine,
    Replace,
    Reset,
    Similar,
)

LEAST_SCORE = 0.55
"""Score of the nearest intent below which a turn that names nothing of the collection is out of scope. Chosen by hand,
not measured: what is out of scope is mostly told by its own phrasings."""
NAMED = 0.1
"""What naming a value or a limit takes off the score of what is out of scope."""
_CLAUSES = re.compile(r"[,;，；。]|(?<![a-z])but(?![a-z])|但是?")


@dataclass(frozen=True)
class Context:
    """What the turns before have left."""

    asked: Asked | None = None
    """The search that hits were last shown of."""
    picture: bool = False
    """There is a picture in the conversation."""


@dataclass(frozen=True)
class Slots:
    values: tuple[Mention, ...]
    limits: tuple[Limits, ...]
    places: tuple[Place, ...]
    masked: str
    """The text with placeholders for them."""
    rest: str
    """What is left of it without them and without the words that phrasings are made of."""

    @property
    def where(self) -> dict[str, tuple[str, ...]]:
        out: dict[str, tuple[str, ...]] = {}
        for mention in self.values:
            if mention.value not in out.get(mention.attribute, ()):
                out[mention.attribute] = (*out.get(mention.attribute, ()), mention.value)
        return out

    def bounds(self, attribute: str | None) -> tuple[Bound, ...]:
        if attribute is None:
            return ()
        return tuple(Bound(attribute, sign, number) for one in self.limits for sign, number in one.sides)

    @property
    def hit(self) -> int | None:
        return self.places[0].hit if self.places else None

    @property
    def named(self) -> bool:
        return bool(self.values or self.limits)


def understood(text: str, context: Context, lexicon: Lexicon, intents: Intents) -> Operation:
    """What a turn asks for, given what the turns before have left."""
    clauses = _clauses(text, lexicon)
    slots = [slots_of(clause, lexicon) for clause in clauses]
    scores = intents.scores([one.masked for one in slots])
    operations: list[Operation] = []
    for one, score in zip(slots, scores, strict=True):
        before = context if not operations else Context(Asked(), context.picture)
        operations.append(_operation(one, score, before, lexicon))
    first, *others = operations
    for other in others:
        first = _joined(first, other)
    return first


def _clauses(text: str, lexicon: Lexicon) -> list[str]:
    """The parts of a turn, when each of them names something: 'a red dress, not striped'."""
    parts = [part.strip() for part in _CLAUSES.split(text) if part.strip()]
    named = all(slots_of(part, lexicon).named for part in parts)
    return parts if len(parts) > 1 and named else [text]


def slots_of(text: str, lexicon: Lexicon) -> Slots:
    """What a turn names: values of the collection, limits, places among hits."""
    lower = text.lower()
    limits, places = numbers.limits(lower), numbers.places(lower)
    taken = [(one.start, one.end) for one in limits] + [(one.start, one.end) for one in places]

    def free(start: int, end: int) -> bool:
        return all(end <= a or start >= b for a, b in taken)

    values = lexicon.mentions(lower, free)
    taken += [(mention.start, mention.end) for mention in values]
    near = _near(lower, taken, lexicon)
    values = sorted([*values, *near], key=lambda mention: mention.start)
    stretches = [(m.start, m.end, lexicon.roles[m.attribute]) for m in values]
    stretches += [(one.start, one.end, "price") for one in limits]
    stretches += [(one.start, one.end, "ordinal") for one in places]
    masked = _masked(lower, stretches)
    rest = _rest(lower, [(start, end) for start, end, _ in stretches])
    return Slots(tuple(values), tuple(limits), tuple(places), masked, rest)


def _near(text: str, taken: list[tuple[int, int]], lexicon: Lexicon) -> list[Mention]:
    """Values that words mean which are none of their forms."""
    words = [
        (m.start(), m.end())
        for m in re.finditer(r"[a-z]{3,}(?:['’][a-z]+)?|[\u3400-\u9fff]{2,4}", _blank(text, taken))
        if m[0] not in frame_words()
    ]
    words = [
        (a, b)
        for a, b in words
        if not is_chinese(text[a:b]) or not any(p in text[a:b] for p in frame_pieces())
    ]
    found = lexicon.nearest([text[start:end] for start, end in words])
    return [Mention(a, b, *pair) for (a, b), pair in zip(words, found, strict=True) if pair is not None]


def _masked(text: str, stretches: Sequence[tuple[int, int, str]]) -> str:
    out, at = [], 0
    language = "zh" if is_chinese(text) else "en"
    for start, end, slot in sorted(stretches):
        stand_in = _stand_in(text[start:end], slot, language)
        out += [text[at:start], stand_in]
        at = end
    return "".join([*out, text[at:]])


def _stand_in(words: str, slot: str, language: str) -> str:
    """With the words around a number kept: 'under 50', 第二个."""
    if slot == "ordinal":
        return "第二个" if language == "zh" else ("the second one" if " " in words else "second")
    if slot == "price":
        digits = re.compile(r"\d+(?:[.,]\d+)?|[一二两三四五六七八九十百千万]{1,}")
        return digits.sub("50", words)
    return PLACEHOLDERS[slot][language]


def _rest(text: str, stretches: list[tuple[int, int]]) -> str:
    """The words that are no slot and no part of a phrasing."""
    blank = _blank(text, stretches)
    english = [word for word in re.findall(r"[a-z][a-z'’-]*", blank) if word not in frame_words()]
    chinese = []
    for run in re.findall(r"[\u3400-\u9fff]+", blank):
        for piece in frame_pieces():
            run = run.replace(piece, " ")
        chinese += run.split()
    return " ".join([*english, *chinese])


def _blank(text: str, stretches: list[tuple[int, int]]) -> str:
    for start, end in stretches:
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def _operation(slots: Slots, scores: dict[str, float], context: Context, lexicon: Lexicon) -> Operation:
    possible = {name: score for name, score in scores.items() if _possible(name, slots, context)}
    if slots.named and "out_of_scope" in possible:
        possible["out_of_scope"] -= NAMED
    intent = max(possible, key=lambda name: possible[name])
    if not slots.named and not slots.places and possible[intent] < LEAST_SCORE:
        return OutOfScope()
    return _as_operation(intent, slots, context, lexicon)


def _possible(intent: str, slots: Slots, context: Context) -> bool:
    """Whether there is anything for an intent to be about."""
    seen = context.asked is not None or context.picture
    match intent:
        case "refine" | "replace" | "exclude":
            return (slots.named or intent == "refine") and seen
        case "next_page" | "reset":
            return context.asked is not None and not slots.values
        case "cheaper" | "dearer":
            return context.asked is not None and not slots.named
        case "similar" | "describe" | "question":
            return seen
        case _:
            return True


def _as_operation(intent: str, slots: Slots, context: Context, lexicon: Lexicon) -> Operation:
    where, bounds = slots.where, slots.bounds(lexicon.price)
    match intent:
        case "new_search":
            return NewSearch(slots.rest, where, bounds=bounds)
        case "exclude":
            return Exclude(where, bounds)
        case "refine" | "replace":
            return _changed(where, bounds, slots, context)
        case "similar":
            return Similar(slots.hit or _only_hit(context), where)
        case "describe":
            return Describe(slots.hit or _only_hit(context))
        case "question":
            return Question(slots.hit or _only_hit(context))
        case "cheaper" | "dearer":
            return Cheaper(dearer=intent == "dearer")
        case "next_page":
            return NextPage()
        case "reset":
            return Reset()
        case _:
            return OutOfScope()


def _only_hit(context: Context) -> int | None:
    """What 'this' is: the picture of the conversation, and the first hit where there is none."""
    return None if context.picture else 1


def _changed(where: Choices, bounds: tuple[Bound, ...], slots: Slots, context: Context) -> Operation:
    """A value of an attribute that has one already takes its place."""
    asked = context.asked or Asked()
    there = {name: values for name, values in where.items() if name in asked.where}
    if there:
        fresh = {
            name: tuple(v for v in values if v not in asked.where[name]) for name, values in there.items()
        }
        changed = {**where, **{name: values or where[name] for name, values in fresh.items()}}
        return Replace(changed, bounds=bounds)
    return Refine("" if slots.named else slots.rest, where, bounds=bounds)


def _joined(one: Operation, other: Operation) -> Operation:
    """Two clauses of one turn as one operation, as far as they can be."""
    if isinstance(one, NewSearch | Refine | Replace):
        if isinstance(other, Exclude):
            without = {**one.without, **other.without}
            return type(one)(**{**vars(one), "without": without, "bounds": one.bounds + other.bounds})
        if isinstance(other, NewSearch | Refine | Replace):
            where = {**one.where, **other.where}
            return type(one)(**{**vars(one), "where": where, "bounds": one.bounds + other.bounds})
    if isinstance(one, Exclude) and isinstance(other, NewSearch | Refine | Replace):
        return Replace(other.where, without=one.without, bounds=one.bounds + other.bounds)
    return one
