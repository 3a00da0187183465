"""The filter language. So far: an object of equalities, all of which must hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.attributes import AttributeIndex


class FilterError(ValueError):
    """A filter that makes no sense here; the message names the attribute and what there is."""


def allowed_ids(where: Mapping[str, Any], attributes: AttributeIndex) -> NDArray[np.int64]:
    """Ids of the embeddings that pass, ascending.

    Raises FilterError for an attribute no image has, and for no attribute at all: what has none would pass too.
    """
    if not where:
        raise FilterError("the filter names no attribute: leave it out to allow everything")
    out: NDArray[np.int64] | None = None
    for name, value in where.items():
        if name not in attributes.names:
            there = ", ".join(attributes.names) or "none"
            raise FilterError(f"no image here has the attribute {name!r}; there are: {there}")
        if isinstance(value, dict | list) or value is None:
            raise FilterError(f"filter.{name} must be a string, a number or true/false, got {value!r}")
        found = attributes.equal(name, value)
        out = found if out is None else np.intersect1d(out, found, assume_unique=True)
    assert out is not None
    return out
