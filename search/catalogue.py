"""Collections and their images: put, get, list, delete, in the message shapes."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence

from msgspec.structs import asdict

from indexer.errors import Conflict, NotFound
from indexer.ingest import Ingest
from indexer.live import LiveIndex
from indexer.naming import check_key
from indexer.store.collections import Collection, Collections
from indexer.store.images import ImageRecord, Images
from search import messages as m
from search.captions import Captioner
from search.contents import Contents
from search.messages import BadRequest
from search.uploads import Uploads
from textmm.sources import Item

logger = logging.getLogger(__name__)


class Catalogue:
    def __init__(
        self,
        collections: Collections,
        images: Images,
        *,
        ingest: Ingest,
        live: LiveIndex,
        uploads: Uploads,
        contents: Contents,
        captioner: Captioner,
        max_pixels: int,
    ) -> None:
        self._collections, self._images = collections, images
        self._ingest, self._live = ingest, live
        self._uploads, self._contents, self._captioner = uploads, contents, captioner
        self._max_pixels = max_pixels

    def put_image(
        self, name: str, key: str, request: m.PutImageRequest, *, image: bytes | None
    ) -> tuple[m.Image, bool]:
        """Add or replace; (the record, whether it is new). Searchable here when it returns.

        Raises BadRequest, NotFound, Conflict, TooLarge, ImageUnreadable, ImageTooLarge.
        """
        collection = self._collections.get(name)
        check_request_key(key)
        if (image is None) == (request.image is None):
            raise BadRequest("give the picture once: image as base64 or data URI, or as a file", "image")
        data = self._uploads.bytes_of(image if image is not None else request.image or "")
        for text in request.texts:
            if not text.strip():
                raise BadRequest("texts holds an empty text", "texts")
        item = Item(key, "", request.title or None, tuple(request.texts), dict(request.attributes))
        record, new = self._ingest.put(item, data, collection, max_pixels=self._max_pixels)
        self._live.take_up(self._collections.get(name))
        return image_message(record, collection.name), new

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
        return data, record.sha256

    def put_collection(self, name: str, request: m.PutCollectionRequest) -> tuple[m.Collection, bool]:
        """Make it, or change limits and style of the one there is; (its record, whether it is new).

        Raises BadRequest, Conflict (a collection does not become a bank; a value cannot be of a declared type).
        """
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
            self._collections.declare_types(made.collection_id, request.attributes)
            return self.collection_message(self._collections.get(name)), True
        if request.bank not in (None, there.is_bank):
            raise Conflict(f"collection {name!r} exists and is {'a bank' if there.is_bank else 'no bank'}")
        self._collections.declare_types(
            there.collection_id, request.attributes
        )  # may refuse: nothing is set yet
        self._collections.set(
            there.collection_id,
            limits=changed_limits(there.limits, request.limits),
            caption_style=request.caption_style or there.caption_style,
        )
        self._live.take_up(self._collections.get(name))
        return self.collection_message(self._collections.get(name)), False

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
        )

    def delete_collection(self, name: str) -> None:
        """It is gone from every answer when this returns. Raises NotFound."""
        self._collections.delete(name)
        self._live.poll()

    def list_collections(self) -> m.CollectionList:
        return m.CollectionList([self.collection_message(c) for c in self._collections.all()])


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


def _iso(at: dt.datetime) -> str:
    utc = at.astimezone(dt.UTC) if at.tzinfo else at  # SQLite gives UTC back without saying so
    return utc.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
