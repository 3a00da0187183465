"""What is wrong with an item, known before anything of it is read or stored. None: nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from indexer.attributes import stored, text_of
from indexer.naming import check_key
from indexer.store.collections import Collection

NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""NUL is no text to PostgreSQL, half of a surrogate pair (from JSON, or a path that is not UTF-8) to nobody."""


def key_problem(key: str) -> str | None:
    try:
        check_key(key)
    except ValueError as error:
        return str(error)
    return None


def words_problem(title: str | None, attributes: Mapping[str, Any], more: Iterable[str] = ()) -> str | None:
    """Of a title, of names and values of attributes, and of what else comes with them."""
    words = [title or "", *more, *attributes]
    for value in attributes.values():
        words += value if isinstance(value, list) else [str(value)]
    bad = NO_TEXT.search("\n".join(words))
    return None if bad is None else f"its words or its path hold {bad[0]!r}, which is no character of text"


def type_problem(attributes: Mapping[str, Any], collection: Collection) -> str | None:
    """A value that cannot be of the type which the collection's owner declared."""
    for name, kind in collection.declared_types.items():
        try:
            stored(attributes.get(name), kind)
        except ValueError as error:
            return f"{name} is declared a {kind}, and {text_of(attributes[name])!r} {error}"
    return None
