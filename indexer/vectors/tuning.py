"""What was measured of an approximate index: recall against latency, and from it the effort that a search takes.

Each segment is measured on its own rows when it is built (`indexer/vectors/choice.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """One effort, measured."""

    k: int
    effort: int
    recall: float
    """Recall@k against exact search."""
    ms: float
    """A query, in a batch on one thread."""


@dataclass(frozen=True)
class Tuning:
    target: float
    """Recall that was asked for."""
    points: tuple[Point, ...]
    """The curve: for each k, effort ascending until the target is reached."""
    exact_ms: float
    """A query by exact search over all rows of the segment."""
    build_s: float
    tried: Mapping[str, float]
    """Milliseconds at the target of each kind that was built; of those that never reached it, none."""
    coded: tuple[Point, ...] = ()
    """The curve of codes, by which filters are answered; empty without codes."""

    @property
    def ks(self) -> list[int]:
        return sorted({point.k for point in self.points})

    def at(self, k: int) -> Point:
        """The first point that reached the target for this k, one of `ks`."""
        return self._reached(self.points, k)

    def _reached(self, points: tuple[Point, ...], k: int) -> Point:
        curve = [point for point in points if point.k == k]
        return next((point for point in curve if point.recall >= self.target), curve[-1])

    def effort(self, k: int) -> int:
        """For the best k: between the measured ones by interpolation, beyond the last in proportion."""
        return round(self._between(self.points, k, lambda point: point.effort))

    def ms(self, k: int) -> float:
        """Expected of a query for the best k."""
        return self._between(self.points, k, lambda point: point.ms)

    def coded_effort(self, k: int) -> int:
        """As `effort`, of codes."""
        return round(self._between(self.coded, k, lambda point: point.effort))

    def coded_ms(self, k: int) -> float:
        """Expected of a query for the best k by the codes of all rows."""
        return self._between(self.coded, k, lambda point: point.ms)

    def _between(self, points: tuple[Point, ...], k: int, of: Callable[[Point], float]) -> float:
        low, *more = [self._reached(points, one) for one in self.ks]
        if k <= low.k:
            return float(of(low))
        for high in more:
            if k <= high.k:
                share = (k - low.k) / (high.k - low.k)
                return of(low) + share * (of(high) - of(low))
            low = high
        return of(low) * k / low.k

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Tuning | None:
        """From what `as_json` gave; None when nothing was measured."""
        if "points" not in said:
            return None
        fields = {name: said[name] for name in ("target", "exact_ms", "build_s", "tried")}
        points, coded = (
            tuple(Point(**point) for point in said.get(name, ())) for name in ("points", "coded")
        )
        return cls(points=points, coded=coded, **fields)
