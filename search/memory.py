"""Keeping a server small: what glibc's malloc would hold on to."""

from __future__ import annotations

import ctypes
import sys

ARENAS = 2
"""Heaps that threads share. By default each of some twenty threads keeps one of its own, with what it freed."""
M_ARENA_MAX = -8
"""mallopt's number for it (malloc.h)."""


def limit_arenas() -> None:
    """Call before threads start. Does nothing where the C library is not glibc."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Freed memory goes back to the system; a few milliseconds. Does nothing where the C library is not glibc."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
