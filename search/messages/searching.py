"""Searches: what is asked, hits, texts, facets."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType, field

from search.messages.message import (
    MAX_FACETS,
    MAX_K,
    MAX_TEXT,
    AttributeValue,
    Edges,
    Key,
    Name,
    Request,
    Response,
    Style,
    Target,
)


class SearchRequest(Request, kw_only=True):
    collection: Name
    text: Annotated[str, Meta(max_length=MAX_TEXT)] | None = None
    image: str | None = None
    """base64 or a data URI"""
    image_key: Key | None = None
    """a stored picture: more like this"""
    vector: list[float] | None = None
    k: Annotated[int, Meta(ge=1, le=MAX_K)] = 10
    filter: Annotated[str, Meta(max_length=MAX_TEXT)] | dict[str, Any] = {}
    """an expression, or an object: attribute: value, [values] or {"<": value, …}; all must hold"""
    generated: bool = False
    """whether pictures that a generator drew may be hits; a filter that speaks of `generated` decides itself"""
    facets: Annotated[list[str | dict[str, Edges]], Meta(max_length=MAX_FACETS)] = []
    """attributes whose values are counted over what the filter lets through; {attribute: edges} by ranges"""
    explain: bool = False
    """say how it was searched"""
    target: Target = "images"
    captions: bool = False
    """caption the hits"""
    caption_style: Style | None = None


class TookMs(Response):
    encode: float = 0.0
    search: float = 0.0
    rows: float = 0.0
    caption: float = 0.0
    total: float = 0.0


class Caption(Response):
    text: str
    score: float
    """cosine of the caption with its picture"""
    generated: bool = True


class Hit(Response):
    key: str
    score: float
    """cosine, -1..1, higher is closer"""
    title: str | None
    caption: Caption | None
    attributes: dict[str, AttributeValue]
    width: int | None
    """null, as are height and addresses: it came as a vector without a picture"""
    height: int | None
    content_url: str | None
    thumbnail_url: str | None


class TextHit(Response):
    text: str
    score: float
    key: str
    """of the picture that the text belongs to"""


class FacetValue(Response):
    value: str | float | bool
    count: int


class FacetRange(Response):
    start: str | int | float | None = field(name="from")
    """itself in; null: from the lowest"""
    end: str | int | float | None = field(name="to")
    """itself not in; null: to the highest"""
    count: int


class Facet(Response, kw_only=True, omit_defaults=True):
    missing: int
    """without the attribute"""
    values: list[FacetValue] | None = None
    """at most 100, the most frequent first"""
    distinct: int | None = None
    """values there are"""
    ranges: list[FacetRange] | None = None


class Explain(Response):
    filter: str | None
    """as it was understood"""
    plan: str
    rows: int
    """that the index holds"""
    allowed: int
    """that the filter lets through"""


class SearchResponse(Response, kw_only=True, omit_defaults=True):
    request_id: str
    collection: str
    model_id: str
    took_ms: TookMs
    hits: list[Hit] | None = None
    """for target images"""
    texts: list[TextHit] | None = None
    """for target texts"""
    caption: Caption | UnsetType | None = UNSET
    """for target texts: of the query when it is a picture, else null"""
    facets: dict[str, Facet] | None = None
    explain: Explain | None = None
