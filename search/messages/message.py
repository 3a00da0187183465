"""What all messages share: the names of fields, parsing, validation, JSON."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

T = TypeVar("T")

Target = Literal["images", "texts"]
Kind = Literal["exact", "near_copy", "similar"]
AttributeType = Literal["string", "number", "bool", "datetime", "strings"]
AttributeValue = str | int | float | bool | list[str]
NO_NUL = r"^[^\x00]*$"
"""What a database takes as text."""
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=NO_NUL)]
Key = Annotated[str, Meta(min_length=1, max_length=512, pattern=NO_NUL)]
Style = Annotated[str, Meta(min_length=1, max_length=64)]
Language = Literal["en", "zh"]

MAX_K = 1000
MAX_FACETS = 20
MAX_DIM = 4096
"""Numbers of a vector from elsewhere."""
Edges = Annotated[list[str | int | float], Meta(max_length=100)]
MAX_TEXT = 20_000
"""Characters of a query or a text; the model reads its first tokens."""
Text = Annotated[str, Meta(max_length=MAX_TEXT, pattern=NO_NUL)]
Word = Annotated[str, Meta(pattern=NO_NUL)]

MAX_DRAWN = 8
MAX_LABELS = 1000
MAX_TEMPLATES = 32
Label = Annotated[str, Meta(min_length=1, max_length=200, pattern=NO_NUL)]


class BadRequest(ValueError):
    """A request that is wrong in itself; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Request(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a caller sends."""


class Response(Struct):
    """What comes back. A client takes fields that it does not know as news, not as errors."""


def parse(kind: type[T], data: bytes | str) -> T:
    """A request from JSON. BadRequest names the field and what is wrong with it."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deep") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def convert(kind: type[T], data: Any) -> T:
    """A request from Python values. BadRequest as in `parse`."""
    try:
        return msgspec.convert(data, type=kind)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from error


def to_json(message: object) -> bytes:
    return msgspec.json.encode(message)


_WHERE = r" - at (?:`key` in )?`\$\.?([^`]*)`"
"""How msgspec says where something is wrong."""


def _bad(said: str) -> BadRequest:
    """msgspec's message -> ours, with the field: "… unknown field `x`", "… missing required field `x`", "… at
    `$.x`".
    """
    named = re.search(r"field `([^`]+)`", said)
    where = re.search(_WHERE, said)
    path = where and where[1].replace("[...]", "")  # msgspec's word for "some key of this object"
    param = ".".join(part for part in (path, named and named[1]) if part) or None
    reason = re.sub(_WHERE, "", said)
    if "unknown field" in said:
        return BadRequest(f"unknown field {param}", param)
    if "missing required field" in said:
        return BadRequest(f"{param} is missing", param)
    if "matching regex" in said:
        return BadRequest(f"{param or 'the body'} holds a NUL character", param)
    return BadRequest(f"{param or 'the body'}: {reason[:1].lower()}{reason[1:]}", param)
