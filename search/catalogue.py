"""Collections and their images: put, get, list, delete, in the message shapes."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence

import numpy as np

from indexer.errors import Conflict, NoPicture, NotFound
from indexer.ingest import Ingest
from indexer.live import LiveIndex
from indexer.naming import check_key
from indexer.store.collections import Collection, Collections
from indexer.store.images import ImageRecord, Images
from indexer.vector_ingest import VectorIngest, external_generation, vector_problem
from search import messages as m
from search.captions import Captioner
from search.contents import Contents
from search.limits import changed_limits, limits_message
from search.messages import BadRequest
from search.uploads import Uploads
from textmm.sources import Item
from textmm.vector_sources import VectorItem

logger = logging.getLogger(__name__)


class Catalogue:
    def __init__(
        self,
        collections: Collections,
        images: Images,
        *,
        ingest: Ingest,
        vectors: VectorIngest,
        live: LiveIndex,
        uploads: Uploads,
        contents: Contents,
        captioner: Captioner,
    ) -> None:
        self._collections, self._images = collections, images
        self._ingest, self._vectors, self._live = ingest, vectors, live
        self._uploads, self._contents, self._captioner = uploads, contents, captioner

    def put_image(
        self, name: str, key: str, request: m.PutImageRequest, *, image: bytes | None
    ) -> tuple[m.Image, bool]:
        """Add or replace; (the record, whether it is new). Searchable here when it returns.

        Raises BadRequest, NotFound, Conflict, TooLarge, ImageUnreadable, ImageTooLarge.
        """
        collection = self._collections.get(name)
        check_request_key(key)
        if request.vector is not None:
            if image is not None or request.image is not None:
                raise BadRequest("give a picture or its vector, not both", "vector")
            record, new = self._put_vector(key, request, request.vector, collection)
        else:
            record, new = self._put_picture(key, request, image, collection)
        self._live.take_up(self._collections.get(name))
        return image_message(record, collection.name), new

    def _put_picture(
        self, key: str, request: m.PutImageRequest, image: bytes | None, collection: Collection
    ) -> tuple[ImageRecord, bool]:
        if (image is None) == (request.image is None):
            raise BadRequest("give the picture once: image as base64 or data URI, or as a file", "image")
        data = self._uploads.bytes_of(image if image is not None else request.image or "")
        for text in request.texts:
            if not text.strip():
                raise BadRequest("texts holds an empty text", "texts")
        item = Item(key, "", request.title or None, tuple(request.texts), dict(request.attributes))
        return self._ingest.put(item, data, collection, max_pixels=self._uploads.max_pixels)

    def _put_vector(
        self, key: str, request: m.PutImageRequest, vector: list[float], collection: Collection
    ) -> tuple[ImageRecord, bool]:
        given = np.array(vector, dtype=np.float64)
        problem = vector_problem(given, external_generation(collection).embed_dim)
        if problem:
            raise BadRequest(f"image {key!r}: {problem}", "vector")
        if request.texts:
            raise BadRequest(
                f"texts of image {key!r}: collection {collection.name!r} holds vectors that its owner made, and "
                "nothing here makes vectors of their space for texts; give a title or attributes",
                "texts",
            )
        return self._vectors.put(
            VectorItem(key, given, request.title or None, dict(request.attributes)), collection
        )

    def get_image(self, name: str, key: str) -> m.Image:
        collection = self._collections.get(name)
        return image_message(self._images.get(collection.collection_id, key), collection.name)

    def list_images(self, name: str, *, after: str, limit: int) -> m.ImageList:
        """By key. Raises BadRequest for a limit out of 1..1000, NotFound."""
        if not 1 <= limit <= m.MAX_K:
            raise BadRequest(f"limit must be 1..{m.MAX_K}, got {limit}", "limit")
        collection = self._collections.get(name)
        records = self._images.page(collection.collection_id, after=after, limit=limit)
        last = records[-1].key if len(records) == limit else None
        return m.ImageList(images=[image_message(r, collection.name) for r in records], after=last)

    def stored_caption(self, name: str, key: str, style: str) -> m.Caption:
        """Of a stored picture, remembered. Raises NotFound."""
        record = self._images.get(self._collections.get(name).collection_id, key)
        if record.sha256 is None:
            raise NoPicture(key)
        (found,) = self._captioner.caption_hits([record], style)
        if found is None:
            raise NotFound("image", key)
        return found

    def delete_images(self, name: str, keys: Sequence[str]) -> list[str]:
        """The keys that were there. They are gone from every answer when it returns."""
        collection = self._collections.get(name)
        gone = self._images.delete(collection.collection_id, keys)
        self._live.take_up(self._collections.get(name))
        return gone

    def content(self, name: str, key: str, *, thumbnail: bool) -> tuple[bytes, str]:
        """(bytes, their sha256 or that of what they were made from). Raises NotFound."""
        record = self._images.get(self._collections.get(name).collection_id, key)
        try:
            data = self._contents.thumbnail(record) if thumbnail else self._contents.read(record)
        except OSError as error:
            logger.warning("bytes of image %s: %s", key, error)
            raise NotFound("image", key) from error
        assert record.sha256 is not None  # there are bytes
        return data, record.sha256

    def put_collection(self, name: str, request: m.PutCollectionRequest) -> tuple[m.Collection, bool]:
        """Make it, or change limits and style of the one there is; (its record, whether it is new).

        Raises BadRequest, Conflict (a collection does not become a bank; a value cannot be of a declared type; it
        holds other vectors).
        """
        _check_model(request)
        if request.caption_style is not None:
            self._captioner.check_style(request.caption_style, "caption_style")
        there = self._collections.find(name)
        if there is None:
            try:
                made = self._collections.create(
                    name,
                    is_bank=bool(request.bank),
                    limits=changed_limits({}, request.limits),
                    caption_style=request.caption_style,
                )
            except ValueError as error:
                raise BadRequest(str(error), "collection") from error
            self._declare(made, request)
            return self.collection_message(self._collections.get(name)), True
        if request.bank not in (None, there.is_bank):
            raise Conflict(f"collection {name!r} exists and is {'a bank' if there.is_bank else 'no bank'}")
        self._declare(there, request)  # may refuse: nothing is set yet
        self._collections.set(
            there.collection_id,
            limits=changed_limits(there.limits, request.limits),
            caption_style=request.caption_style or there.caption_style,
        )
        self._live.take_up(self._collections.get(name))
        return self.collection_message(self._collections.get(name)), False

    def _declare(self, collection: Collection, request: m.PutCollectionRequest) -> None:
        """What it holds, and of what types. Only one of the two can refuse: a new model means that it is empty."""
        if request.dim is not None:
            self._collections.make_external(collection.collection_id, request.dim)
        self._collections.declare_types(collection.collection_id, request.attributes)

    def collection_message(self, collection: Collection) -> m.Collection:
        images, texts = self._collections.counts(collection.collection_id)
        return m.Collection(
            name=collection.name,
            bank=collection.is_bank,
            limits=limits_message(collection.limits),
            caption_style=collection.caption_style or "photo",
            images=images,
            texts=texts,
            model_id=collection.generation.model_id if collection.generation else None,
            attributes=dict(sorted(collection.types.items())),
            dim=collection.generation.embed_dim if collection.generation else None,
        )

    def delete_collection(self, name: str) -> None:
        """It is gone from every answer when this returns. Raises NotFound."""
        self._collections.delete(name)
        self._live.poll()

    def list_collections(self) -> m.CollectionList:
        return m.CollectionList([self.collection_message(c) for c in self._collections.all()])


def _check_model(request: m.PutCollectionRequest) -> None:
    """Raises BadRequest."""
    if (request.model is None) != (request.dim is None):
        lacks = "dim" if request.dim is None else "model"
        raise BadRequest(
            f'{lacks} is missing: {{"model": "external", "dim": 256}}, as long as your vectors', lacks
        )
    if request.model is not None and request.bank:
        raise BadRequest("a bank compares pictures: it cannot hold vectors from elsewhere", "model")


def check_request_key(key: str) -> None:
    """Raises BadRequest."""
    try:
        check_key(key)
    except ValueError as error:
        raise BadRequest(str(error), "key") from error


def image_message(record: ImageRecord, collection: str) -> m.Image:
    return m.Image(
        key=record.key,
        collection=collection,
        title=record.title,
        texts=list(record.texts),
        attributes=dict(record.attributes),
        sha256=record.sha256,
        width=record.width,
        height=record.height,
        created_at=_iso(record.created_at),
        updated_at=_iso(record.updated_at),
    )


def _iso(at: dt.datetime) -> str:
    utc = at.astimezone(dt.UTC) if at.tzinfo else at  # SQLite gives UTC back without saying so
    return utc.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
