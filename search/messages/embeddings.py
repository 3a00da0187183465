"""Vectors and models, in OpenAI's shape."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from search.messages.message import Request, Response


class EmbeddingsRequest(Request, kw_only=True):
    input: str | list[str | int | list[int]]
    """texts or pictures as data URIs; token arrays are refused"""
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
    modality: Literal["text", "image"] | None = None
    """image: every input is a data URI or base64; by default a data URI of a picture is one"""


class EmbeddingRow(Response):
    index: int
    embedding: list[float] | str
    object: str = "embedding"


class Usage(Response):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(Response):
    data: list[EmbeddingRow]
    model: str
    usage: Usage
    object: str = "list"


class Model(Response):
    id: str
    created: int
    object: str = "model"
    owned_by: str = "textmm"
    dimensions: list[int] = []
    """sizes that vectors may have; of several the last is the whole"""


class ModelList(Response):
    data: list[Model]
    object: str = "list"
