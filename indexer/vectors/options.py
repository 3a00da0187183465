"""What a new segment should be."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("auto", "exact", "codes", "graph", "lists")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    kind: str = "auto"
    """One of KINDS"""
    recall: float = 0.98
    """Recall@10 that an approximate index must reach."""
    exact_rows: int = 20_000
    """Up to so many rows exact search is fast enough."""
    memory_mb: float = 0.0
    """Of the approximate index; 0: no limit. A graph goes through the exact rows, which count; lists and codes have
    bytes of their own, and the exact rows, mapped from their file, need not stay in memory."""
    threads: int = 1
