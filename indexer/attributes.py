"""Attribute values beside the index: which embeddings have a value. Immutable; a change makes a new one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
_Value = tuple[str, object]


class AttributeIndex:
    """(attribute, value) -> the embedding ids that have it. A list holds each of its elements."""

    def __init__(self, postings: Mapping[str, Mapping[_Value, tuple[Ids, ...]]] | None = None) -> None:
        self._postings = postings or {}

    @property
    def names(self) -> list[str]:
        return sorted(self._postings)

    def with_rows(self, ids: Ids, attributes: Iterable[Mapping[str, Any]]) -> AttributeIndex:
        """One that has these rows too."""
        new: dict[str, dict[_Value, list[int]]] = {}
        for embedding_id, row in zip(ids.tolist(), attributes, strict=True):
            for name, value in row.items():
                for one in value if isinstance(value, list) else [value]:
                    new.setdefault(name, {}).setdefault(_tagged(one), []).append(embedding_id)
        postings = dict(self._postings)
        for name, values in new.items():
            merged = dict(postings.get(name, {}))
            for value, found in values.items():
                merged[value] = (*merged.get(value, ()), np.array(found, dtype=np.int64))
            postings[name] = merged
        return AttributeIndex(postings)

    def only(self, ids: Ids) -> AttributeIndex:
        """One that has these rows (ascending) alone, each value's in one array; values of no row are gone."""
        postings: dict[str, dict[_Value, tuple[Ids, ...]]] = {}
        for name, values in self._postings.items():
            for value, parts in values.items():
                kept = np.intersect1d(np.concatenate(parts), ids)
                if len(kept):
                    postings.setdefault(name, {})[value] = (kept,)
        return AttributeIndex(postings)

    def equal(self, name: str, value: Any) -> Ids:
        """Ids whose attribute is, or as a list holds, this value. Ids of dead rows may be among them."""
        parts = self._postings.get(name, {}).get(_tagged(value), ())
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)

    def types(self) -> dict[str, str]:
        """Attribute -> string, number or bool; the first value's."""
        return {name: next(iter(values))[0] for name, values in sorted(self._postings.items())}


def _tagged(value: Any) -> _Value:
    """Keep true apart from 1; 3 and 3.0 are one number."""
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int | float):
        return "number", value
    return "string", str(value)
