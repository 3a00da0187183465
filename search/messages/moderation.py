"""Is a picture known?"""

from __future__ import annotations

import msgspec

from search.messages.message import Kind, Name, Request, Response


class LookupRequest(Request, kw_only=True):
    image: str | None = None
    banks: list[Name] | None = None
    """all banks when not given"""
    kinds: list[Kind] = msgspec.field(default_factory=lambda: ["exact", "near_copy", "similar"])


class Match(Response, kw_only=True, omit_defaults=True):
    bank: str
    key: str
    kind: Kind
    distance: int | None = None
    """near_copy: Hamming, lower is closer"""
    score: float | None = None
    """similar: cosine, higher is closer"""
    limit: float | int | None = None
    """the bank's limit that was applied"""
    signal: str | None = None


class LookupResponse(Response):
    matches: list[Match]
    model_id: str
