"""The OpenAPI document, generated from the message types and the table of routes."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from search import messages as m


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    does: str
    takes: type[msgspec.Struct] | None = None
    gives: type[msgspec.Struct] | str | None = None
    """A message, a media type, or None for no body."""
    status: int = 200
    multipart: bool = False
    query: tuple[tuple[str, str], ...] = ()
    """(name, JSON type) of the query parameters."""


ROUTES = (
    Route(
        "post",
        "/v1/search",
        "Search by text, image, image_key or vector",
        m.SearchRequest,
        m.SearchResponse,
        multipart=True,
    ),
    Route(
        "post", "/v1/caption", "Put a picture into words", m.CaptionRequest, m.CaptionResponse, multipart=True
    ),
    Route(
        "post",
        "/v1/captions",
        "Put pictures into words",
        m.CaptionsRequest,
        m.CaptionsResponse,
        multipart=True,
    ),
    Route(
        "post",
        "/v1/alt",
        "Alt text of pictures as CSV or as <img> lines",
        m.AltRequest,
        "text/csv",
        multipart=True,
    ),
    Route(
        "post",
        "/v1/classify",
        "How likely each of any labels is for pictures",
        m.ClassifyRequest,
        m.ClassifyResponse,
        multipart=True,
    ),
    Route(
        "post",
        "/v1/ask",
        "Answer a question about pictures, freely or by ranking given choices",
        m.AskRequest,
        m.AskResponse,
        multipart=True,
    ),
    Route(
        "post",
        "/v1/copy",
        "Title, description and attributes of products, generated from their pictures",
        m.CopyRequest,
        m.CopyResponse,
        multipart=True,
    ),
    Route(
        "post",
        "/v1/images/generations",
        "Pictures from words, in OpenAI's shape; or varied from a picture",
        m.DrawRequest,
        m.DrawResponse,
    ),
    Route("get", "/v1/collections", "All collections", None, m.CollectionList),
    Route(
        "put",
        "/v1/collections/{collection}",
        "Make a collection, or set limits, style, types and model",
        m.PutCollectionRequest,
        m.Collection,
        201,
    ),
    Route("get", "/v1/collections/{collection}", "One collection", None, m.Collection),
    Route("delete", "/v1/collections/{collection}", "Delete it with all images", None, None, 204),
    Route(
        "get",
        "/v1/collections/{collection}/images",
        "Images by key, a page at a time",
        None,
        m.ImageList,
        query=(("after", "string"), ("limit", "integer")),
    ),
    Route(
        "put",
        "/v1/collections/{collection}/images/{key}",
        "Add or replace an image, or a vector without one",
        m.PutImageRequest,
        m.Image,
        201,
        multipart=True,
    ),
    Route("get", "/v1/collections/{collection}/images/{key}", "The record of an image", None, m.Image),
    Route("delete", "/v1/collections/{collection}/images/{key}", "Delete an image", None, None, 204),
    Route("get", "/v1/collections/{collection}/contents/{key}", "The bytes of an image", None, "image/*"),
    Route("get", "/v1/collections/{collection}/thumbnails/{key}", "A small version of it", None, "image/*"),
    Route(
        "post",
        "/v1/embeddings",
        "Vectors for texts and pictures, in OpenAI's shape",
        m.EmbeddingsRequest,
        m.EmbeddingsResponse,
    ),
    Route(
        "post",
        "/v1/chat/completions",
        "Dialogue about pictures and over a collection, in OpenAI's shape; with stream as server-sent events",
        m.ChatRequest,
        m.ChatResponse,
    ),
    Route("get", "/v1/models", "The model that is served", None, m.ModelList),
    Route("get", "/v1/models/{name}", "One model", None, m.Model),
    Route(
        "post",
        "/v1/moderation/lookup",
        "Is this picture in a bank?",
        m.LookupRequest,
        m.LookupResponse,
        multipart=True,
    ),
    Route("get", "/livez", "The process runs", None, "text/plain"),
    Route("get", "/readyz", "A tiny real query just worked", None, "text/plain"),
    Route("get", "/metrics", "Rows, segments and recall of each index, for Prometheus", None, "text/plain"),
    Route("get", "/openapi.json", "This document", None, "application/json"),
)

ERRORS = {
    400: "invalid_request: a field is missing, unknown, of the wrong type or out of range; param names it",
    404: "not_found",
    409: "conflict",
    413: "too_large: the message names limit and value",
    415: "unsupported_media_type",
    422: "image_unreadable; cannot_draw: not what the generator has learnt",
    429: "overloaded: come back after Retry-After seconds",
    500: "internal: our bug, logged under the request id",
    503: "not_ready",
}


@functools.cache
def document() -> bytes:
    """The document as JSON."""
    messages = [t for route in ROUTES for t in (route.takes, route.gives) if isinstance(t, type)]
    types = list(dict.fromkeys([*messages, m.ErrorResponse]))
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type: dict[Any, Any] = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = _operation(route, by_type)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "textmm", "version": "1", "description": "Pictures and words in one space."},
            "paths": paths,
            "components": {"schemas": components},
        }
    )


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", route.path)
    parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    parameters += [{"name": n, "in": "query", "schema": {"type": kind}} for n, kind in route.query]
    error = {"application/json": {"schema": schemas[m.ErrorResponse]}}
    responses: dict[str, Any] = {str(s): {"description": d, "content": error} for s, d in ERRORS.items()}
    if route.status == 201:
        responses["200"] = {"description": "It was there and is changed", **_content(route.gives, schemas)}
    responses[str(route.status)] = {"description": route.does, **_content(route.gives, schemas)}
    operation: dict[str, Any] = {"summary": route.does, "parameters": parameters, "responses": responses}
    if route.takes is not None:
        content = {"application/json": {"schema": schemas[route.takes]}}
        if route.multipart:
            form = {"image": {"type": "string", "format": "binary"}, "request": schemas[route.takes]}
            content["multipart/form-data"] = {"schema": {"type": "object", "properties": form}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _content(gives: type[msgspec.Struct] | str | None, schemas: dict[Any, Any]) -> dict[str, Any]:
    if gives is None:
        return {}
    if isinstance(gives, str):
        return {"content": {gives: {}}}
    return {"content": {"application/json": {"schema": schemas[gives]}}}
