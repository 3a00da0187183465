"""Keeping a server small: what glibc's malloc would hold on to."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ARENAS = 2
"""Heaps that threads share. By default each of some twenty threads keeps one of its own, with what it freed."""
M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3
"""mallopt's numbers (malloc.h)."""
MEGABYTE = 1 << 20


def limit_arenas() -> None:
    """Call before threads start. Does nothing where the C library is not glibc."""
    _mallopt(M_ARENA_MAX, ARENAS)


@contextmanager
def loading() -> Iterator[None]:
    """While weights are read: what they pass through is mapped, so that it leaves no holes in the heap.

    Afterwards tensors of a forward pass come from the heap again: mapping each anew would be slow.
    """
    _mallopt(M_MMAP_THRESHOLD, MEGABYTE // 4)
    yield
    _mallopt(M_MMAP_THRESHOLD, 32 * MEGABYTE)
    give_back()


def give_back() -> None:
    """Freed memory goes back to the system; a few milliseconds. Does nothing where the C library is not glibc."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _mallopt(option: int, value: int) -> None:
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(option, value)
