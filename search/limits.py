"""Limits of a bank: as they are stored, as a message, and changed."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import asdict

from search import messages as m


def limits_message(limits: Mapping[str, float]) -> m.Limits:
    usual = m.Limits()
    return m.Limits(
        near_copy=int(limits.get("near_copy", usual.near_copy)),
        similar=float(limits.get("similar", usual.similar)),
    )


def changed_limits(there: Mapping[str, float], changes: m.LimitChanges | None = None) -> dict[str, float]:
    """All limits, as they are stored: those that are named, else those that are there, else the usual ones."""
    named = {} if changes is None else {k: v for k, v in asdict(changes).items() if v is not None}
    return asdict(m.Limits()) | dict(there) | named
