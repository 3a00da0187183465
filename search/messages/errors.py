"""Errors on the wire."""

from __future__ import annotations

from search.messages.message import Response


class Error(Response, kw_only=True):
    code: str
    type: str
    message: str
    param: str | None = None
    request_id: str | None = None


class ErrorResponse(Response):
    error: Error
