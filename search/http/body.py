"""Reading a request's body and writing an answer."""

from __future__ import annotations

from typing import TypeVar

from flask import Request, Response
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from search import messages as m
from search.messages import BadRequest

T = TypeVar("T")


def answer(message: object, status: int = 200) -> Response:
    return Response(m.to_json(message), status, mimetype="application/json")


def read_json(request: Request, kind: type[T]) -> T:
    """The request in a JSON body; no body counts as {}.

    Raises BadRequest, UnsupportedMediaType, RequestEntityTooLarge.
    """
    if request.mimetype and not request.is_json:
        raise UnsupportedMediaType(f"the content type is {request.mimetype}: send application/json")
    data = request.get_data()
    limit = request.max_content_length
    if request.content_length is None and limit is not None and len(data) >= limit:
        raise RequestEntityTooLarge  # a chunked body is read up to the limit and cut there
    return m.parse(kind, data or b"{}")


def read(request: Request, kind: type[T]) -> tuple[T, bytes | None]:
    """(the request, the bytes of an uploaded picture): JSON, or multipart with the file `image` and the rest
    as a JSON field `request`. Raises BadRequest, UnsupportedMediaType."""
    message, files = read_many(request, kind)
    return message, files[0] if files else None


def read_many(request: Request, kind: type[T]) -> tuple[T, list[bytes]]:
    """As `read`, with all the files that are named `image`, in order."""
    if request.mimetype != "multipart/form-data":
        return read_json(request, kind), []
    unknown = (set(request.files) - {"image"}) | (set(request.form) - {"request"})
    if unknown:
        name = sorted(unknown)[0]
        raise BadRequest(
            f"unknown field {name}: multipart takes the file image and the JSON field request", name
        )
    message = m.parse(kind, request.form.get("request", "{}"))
    return message, [file.read() for file in request.files.getlist("image")]
