"""The filter language in words: to a condition and back.

colour = "red" and price < 50 and not brand in ("a", "b")
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from indexer.conditions import (
    DEEPEST,
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Exists,
    FilterError,
    Not,
    OneOf,
    Value,
    compare,
)

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<date>\d{4}-\d\d-\d\d(?:T[\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?(?![\w.-]))
    | (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.-]))
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<quoted>`(?:[^`]|``)+`)
    | (?P<sign><=|>=|!=|==|=|<|>)
    | (?P<mark>[(),])
    | (?P<word>[^\W\d][\w.-]*)
    )""",
    re.VERBOSE,
)
_KEYWORDS = ("and", "or", "not", "in", "exists", "prefix", "between")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def parse_text(text: str) -> Condition:
    """Raises FilterError that points at the place."""
    return _Text(text).parsed()


class _Text:
    """A recursive descent over the tokens of a filter in words."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._tokenised())
        self._next = 0
        self._depth = 0

    def parsed(self) -> Condition:
        if len(self._tokens) == 1:
            raise FilterError("the filter is empty: leave it out to allow everything")
        condition = self._or()
        if self._token.kind != "end":
            raise self._wrong("and, or, or the end", self._hint())
        return condition

    def _or(self) -> Condition:
        parts = [self._and()]
        while self._took("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _and(self) -> Condition:
        parts = [self._not()]
        while self._took("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _not(self) -> Condition:
        self._depth += 1
        if self._depth > DEEPEST:
            raise FilterError(f"the filter is nested more than {DEEPEST} deep")
        try:
            if self._took("not"):
                return Not(self._not())
            if self._took("("):
                inner = self._or()
                self._expect(")")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Condition:
        token = self._token
        if token.kind not in ("word", "quoted") or self._is_keyword(token):
            raise self._wrong("an attribute")
        name = token.text[1:-1].replace("``", "`") if token.kind == "quoted" else token.text
        self._next += 1
        if self._token.kind == "sign":
            sign = self._take().text
            return compare(name, "=" if sign == "==" else sign, self._value())
        if self._took("not"):
            if self._took("exists"):
                return Not(Exists(name))
            self._expect("in")
            return Not(OneOf(name, self._values()))
        if self._took("exists"):
            return Exists(name)
        if self._took("in"):
            return OneOf(name, self._values())
        if self._took("prefix"):
            return Compare(name, "prefix", self._value())
        if self._took("between"):
            low = self._value()
            self._expect("and")
            return AllOf((Compare(name, ">=", low), Compare(name, "<=", self._value())))
        raise self._wrong("a comparison (= != < <= > >= in, prefix, between, exists)")

    def _values(self) -> tuple[Value, ...]:
        self._expect("(")
        values = [self._value()]
        while self._took(","):
            values.append(self._value())
        self._expect(")")
        return tuple(values)

    def _value(self) -> Value:
        token = self._token
        if token.kind == "number":
            try:
                value = int(token.text) if re.fullmatch(r"[-+]?\d+", token.text) else float(token.text)
            except ValueError:  # Python reads no whole number of thousands of digits
                raise self._wrong("a shorter number") from None
            self._next += 1
            return value
        if token.kind == "date":
            self._next += 1
            return token.text
        if token.kind == "string":
            self._next += 1
            return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        if token.kind == "word" and not self._is_keyword(token):
            self._next += 1
            return {"true": True, "false": False}.get(token.text.lower(), token.text)
        raise self._wrong("a value")

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _took(self, text: str) -> bool:
        token = self._token
        if token.kind in ("word", "mark") and token.text.lower() == text:
            self._next += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._took(text):
            raise self._wrong(text)

    def _is_keyword(self, token: _Token) -> bool:
        return token.text.lower() in _KEYWORDS

    def _hint(self) -> str:
        """When words follow each other: perhaps they are one value."""
        before, token = self._tokens[self._next - 1], self._token
        if before.kind != "word" or token.kind not in ("word", "number"):
            return ""
        return f'; if it belongs to the value, quote it: "{before.text} {token.text}"'

    def _wrong(self, wanted: str, hint: str = "") -> FilterError:
        token = self._token
        found = "the end" if token.kind == "end" else repr(token.text)
        return _pointing(self._text, token.at, f"expected {wanted}, found {found}{hint}")

    def _tokenised(self) -> Iterator[_Token]:
        at = 0
        end = len(self._text.rstrip())
        while at < end:
            match = _TOKEN.match(self._text, at)
            if match is None or match.lastgroup is None:
                start = at + len(self._text[at:]) - len(self._text[at:].lstrip())
                said = (
                    "a string that does not end"
                    if self._text[start] in "\"'`"
                    else f"found {self._text[start]!r}"
                )
                raise _pointing(self._text, start, said)
            kind = match.lastgroup
            yield _Token(kind, match[kind], match.start(kind))
            at = match.end()
        yield _Token("end", "", end)


def _pointing(text: str, at: int, said: str) -> FilterError:
    """The error with the place in the text under it."""
    line = text[:at].rpartition("\n")[2] + text[at:].partition("\n")[0]
    column = len(text[:at].rpartition("\n")[2])
    start = max(0, column - 60)
    shown = f"  {line[start : column + 40]}\n  {' ' * (column - start)}^"
    return FilterError(f"filter, character {at + 1}: {said}\n{shown}")


def written(condition: Condition) -> str:
    """The condition in the string form."""
    match condition:
        case AllOf(conditions):
            return " and ".join(_bracketed(c) if isinstance(c, AnyOf) else written(c) for c in conditions)
        case AnyOf(conditions):
            return " or ".join(written(c) for c in conditions)
        case Not(inner):
            return f"not {_bracketed(inner) if isinstance(inner, AllOf | AnyOf) else written(inner)}"
        case Compare(name, sign, value):
            return f"{_name(name)} {sign} {literal(value)}"
        case OneOf(name, values):
            return f"{_name(name)} in ({', '.join(map(literal, values))})"
        case Exists(name):
            return f"{_name(name)} exists"


def _name(name: str) -> str:
    plain = re.fullmatch(r"[^\W\d][\w.-]*", name) and name.lower() not in _KEYWORDS
    return name if plain else "`" + name.replace("`", "``") + "`"


def literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)


def _bracketed(condition: Condition) -> str:
    return f"({written(condition)})"
