"""Which pictures of a set are the same file: they are no negatives of each other's texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textmm.sources import read_bytes, split_locator


def same_pictures(locators: Sequence[str]) -> NDArray[np.int64]:
    """A number for each picture, equal where the bytes are.

    Only files that have a size in common are read, one at a time. One that cannot be read is like no other; who
    needs its picture will say so.
    """
    sizes = np.array([_size(locator) for locator in locators], dtype=np.int64)
    _, which, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    out = np.arange(len(locators), dtype=np.int64)
    first: dict[bytes, int] = {}
    for i in np.flatnonzero((counts[which] > 1) & (sizes >= 0)).tolist():
        try:
            digest = hashlib.sha256(read_bytes(locators[i])).digest()
        except OSError:
            continue
        out[i] = first.setdefault(digest, i)
    return out


def _size(locator: str) -> int:
    """Bytes; -1 for a file that is not there."""
    path, _, size = split_locator(locator)
    if size is not None:
        return size
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1
