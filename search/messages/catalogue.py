"""Collections and their images."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from search.messages.message import (
    MAX_DIM,
    AttributeType,
    AttributeValue,
    Request,
    Response,
    Style,
    Text,
    Word,
)


class PutImageRequest(Request, kw_only=True):
    image: str | None = None
    """base64 or a data URI; as a file field in multipart"""
    vector: list[float] | None = None
    """instead of a picture, in a collection of model external; of any length but zero"""
    title: Text | None = None
    texts: list[Text] = []
    attributes: dict[Word, Word | int | float | bool | list[Word]] = {}


class Image(Response, kw_only=True):
    key: str
    collection: str
    title: str | None
    texts: list[str]
    attributes: dict[str, AttributeValue]
    sha256: str | None
    """null, as is the size: it came as a vector without a picture"""
    width: int | None
    height: int | None
    created_at: str
    updated_at: str


class ImageList(Response, kw_only=True):
    images: list[Image]
    after: str | None
    """give it back to get the next page; null at the end"""


class Limits(Response, kw_only=True):
    near_copy: int = 31
    """Hamming distance of PDQ hashes, at most"""
    similar: float = 0.9
    """cosine, at least"""


class LimitChanges(Request, kw_only=True):
    """What is not named stays as it is."""

    near_copy: Annotated[int, Meta(ge=0, le=256)] | None = None
    similar: Annotated[float, Meta(ge=-1, le=1)] | None = None


class PutCollectionRequest(Request, kw_only=True):
    bank: bool | None = None
    """a new collection is none unless this says so; one that is there stays what it is"""
    limits: LimitChanges | None = None
    caption_style: Style | None = None
    """style of its captions when a search names none"""
    attributes: dict[Word, AttributeType | None] = {}
    """types that the owner declares; null goes back to the inferred one"""
    model: Literal["external"] | None = None
    """the collection holds vectors that its owner made, of `dim` numbers"""
    dim: Annotated[int, Meta(ge=1, le=MAX_DIM)] | None = None


class Collection(Response, kw_only=True):
    name: str
    bank: bool
    limits: Limits
    caption_style: str
    images: int
    texts: int
    model_id: str | None
    attributes: dict[str, str]
    dim: int | None = None
    """numbers of a vector; null while there is no model"""


class CollectionList(Response):
    collections: list[Collection]
