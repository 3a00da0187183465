"""The one table: exception to HTTP status and code."""

from __future__ import annotations

from indexer.conditions import FilterError
from indexer.errors import BadItem, Conflict, NotFound
from search.messages import BadRequest
from textmm.pretrained import WeightsMissing
from textmm.text_to_image.choosing import CannotDraw
from textmm.transforms import ImageTooLarge, ImageUnreadable


class TooLarge(ValueError):
    """Over a limit; the message names limit and value, `param` the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InputUnreadable(ImageUnreadable):
    """A picture in a list of inputs; `param` says which."""

    def __init__(self, error: ImageUnreadable, param: str) -> None:
        super().__init__(f"{param}: {error}")
        self.param = param


class InputTooLarge(ImageTooLarge):
    def __init__(self, error: ImageTooLarge, param: str) -> None:
        super().__init__(f"{param}: {error}")
        self.param = param


class Overloaded(RuntimeError):
    """The queue is full; come back in a moment."""


class NotReady(RuntimeError):
    """Model or index are not loaded; the message says what is missing."""


STATUS: dict[type[Exception], tuple[int, str]] = {
    BadRequest: (400, "invalid_request"),
    FilterError: (400, "invalid_request"),
    BadItem: (400, "invalid_request"),
    NotFound: (404, "not_found"),
    Conflict: (409, "conflict"),
    TooLarge: (413, "too_large"),
    ImageTooLarge: (413, "too_large"),
    ImageUnreadable: (422, "image_unreadable"),
    CannotDraw: (422, "cannot_draw"),
    Overloaded: (429, "overloaded"),
    NotReady: (503, "not_ready"),
    WeightsMissing: (503, "not_ready"),
}

HTTP_CODES = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}
"""What Flask itself refuses."""


def error_type(status: int) -> str:
    """OpenAI's word for a status."""
    match status:
        case 401:
            return "authentication_error"
        case 403:
            return "permission_error"
        case 429:
            return "rate_limit_error"
        case _:
            return "invalid_request_error" if status < 500 else "server_error"


def param_of(error: Exception) -> str | None:
    """The request field that an error is about."""
    if isinstance(error, BadRequest | TooLarge | InputUnreadable | InputTooLarge):
        return error.param
    if isinstance(error, NotFound):
        return "image_key" if error.what == "image" else error.what
    if isinstance(error, FilterError):
        return "filter"
    return "image" if isinstance(error, ImageUnreadable | ImageTooLarge) else None
