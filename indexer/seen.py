"""SeenKeys: which keys of a source have come already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from indexer.ids import Ids, is_in


class SeenKeys:
    """8 bytes a key, so that a source of millions is followed in little memory.

    Keys are told apart by 64 bits of their hash: of a million, two look the same once in 37 million runs.
    """

    def __init__(self) -> None:
        self._parts: list[Ids] = []
        """Hashes, ascending; parts of like size are joined, so there are few of them."""

    def add(self, keys: Sequence[str]) -> list[bool]:
        """Of each key, whether it came before, earlier in this call included."""
        hashes = _hashes(keys)
        known = self._known(hashes)
        new, first = np.unique(hashes, return_index=True)
        again = np.ones(len(hashes), dtype=bool)
        again[first] = False
        self._parts.append(new[~known[first]])
        while len(self._parts) > 1 and len(self._parts[-2]) <= 2 * len(self._parts[-1]):
            self._parts[-2:] = [np.sort(np.concatenate(self._parts[-2:]))]
        return (known | again).tolist()  # type: ignore[no-any-return]

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Those that have not come."""
        return [key for key, there in zip(keys, self._known(_hashes(keys)), strict=True) if not there]

    def _known(self, hashes: Ids) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        known = np.zeros(len(hashes), dtype=bool)
        for part in self._parts:
            known |= is_in(hashes, part)
        return known


def _hashes(keys: Sequence[str]) -> Ids:
    return np.fromiter(map(hash, keys), dtype=np.int64, count=len(keys))
