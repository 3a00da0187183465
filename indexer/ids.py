"""Sets of embedding ids as ascending arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


def is_in(ids: Ids, those: Ids) -> NDArray[np.bool_]:
    """For each of `ids` whether it is among `those` (ascending)."""
    if not len(those):
        return np.zeros(len(ids), dtype=bool)
    at = np.searchsorted(those, ids)
    at[at == len(those)] = 0
    found: NDArray[np.bool_] = those[at] == ids
    return found


def places(ids: Ids, those: Ids) -> Ids:
    """Where in `ids` (ascending) those (ascending) are that are there, ascending, each once."""
    if not len(ids) or not len(those):
        return np.empty(0, dtype=np.int64)
    if len(those) > 8 * len(ids):
        return np.flatnonzero(is_in(ids, those))
    low, span = int(ids[0]), int(ids[-1] - ids[0]) + 1
    many, dense = 8 * len(those) > len(ids), span <= 8 * len(ids)
    if many and dense:  # a table is quicker than searching
        table = np.zeros(span, dtype=bool)
        table[those[(those >= low) & (those <= ids[-1])] - low] = True
        return np.flatnonzero(table[ids - low])
    those = np.unique(those)
    at = np.searchsorted(ids, those)
    inside = at < len(ids)
    found: Ids = at[inside][ids[at[inside]] == those[inside]]
    return found
