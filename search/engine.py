"""SearchEngine: what every skin calls."""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.database import Database
from indexer.errors import Conflict, NotFound
from indexer.files import Blobs
from indexer.filters import allowed_ids
from indexer.ingest import Ingest
from indexer.live import LiveIndex, View
from indexer.naming import check_key
from indexer.store.collections import Collection, Collections
from indexer.store.embeddings import Embeddings
from indexer.store.images import ImageRecord, Images
from search import messages as m
from search.batching import Batching
from search.captions import Captioner
from search.config import Config
from search.contents import Contents
from search.errors import NotReady
from search.memory import give_back
from search.messages import BadRequest
from search.uploads import Uploads
from textmm.encoder import Encoder
from textmm.sources import Item

logger = logging.getLogger(__name__)
Rows = NDArray[np.float32]
T = TypeVar("T")

SWEEP_EVERY_S = 3600.0
GIVE_BACK_EVERY_S = 5.0


@dataclass
class Timer:
    """Milliseconds of each stage of a request."""

    took_ms: m.TookMs = field(default_factory=m.TookMs)
    _start: float = field(default_factory=time.perf_counter)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        setattr(
            self.took_ms, name, round((time.perf_counter() - started) * 1e3 + getattr(self.took_ms, name), 3)
        )

    def total(self) -> m.TookMs:
        self.took_ms.total = round((time.perf_counter() - self._start) * 1e3, 3)
        return self.took_ms


class SearchEngine:
    def __init__(self, config: Config, database: Database, encoder: Encoder) -> None:
        self.config = config
        self.encoder = encoder
        self.batching = Batching(encoder, queue=config.server.queue)
        self.collections = Collections(database)
        self.images = Images(database)
        blobs = Blobs(config.data / "blobs")
        self.contents = Contents(blobs)
        self.captioner = Captioner(encoder, database, self.contents)
        self.uploads = Uploads(
            max_bytes=config.server.max_image_bytes, max_pixels=config.server.max_image_pixels
        )
        self.live = LiveIndex(database, config.data / "indexes", config.index)
        self._ingest = Ingest(database, encoder, blobs, config.ingest)
        self._blobs = blobs
        self._embeddings = Embeddings(database)
        self._stop = threading.Event()
        self._maintenance: threading.Thread | None = None

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load every collection's view and keep them up to date in a maintenance thread."""
        for collection in self.collections.all():
            self.live.view(collection)
        self.batching.encode_texts(["warm"])
        self._maintenance = threading.Thread(target=self._maintain, name="maintenance", daemon=True)
        self._maintenance.start()

    def close(self) -> None:
        self._stop.set()
        if self._maintenance is not None:
            self._maintenance.join()
        self.batching.close()

    def check_ready(self) -> None:
        """Do a tiny real query. Raises NotReady."""
        try:
            (vector,) = self.batching.encode_texts(["ready"])
            self._embeddings.seqs()
            for collection in self.collections.all():
                view = self.live.view(collection)
                if view is not None and view.generation.model_id == self.encoder.model_id:
                    _, ids = view.images.vectors.search(vector[None], 1)
                    self.images.records(ids[0].tolist())
                    break
        except Exception as error:
            logger.exception("not ready")
            raise NotReady(f"a small query failed: {type(error).__name__}") from error

    def _maintain(self) -> None:
        swept = time.monotonic() - SWEEP_EVERY_S
        gave_back = 0.0
        while not self._stop.wait(self.config.index.poll_s):
            try:
                self.live.poll()
                if time.monotonic() - swept > SWEEP_EVERY_S:
                    swept = time.monotonic()
                    self._blobs.sweep(self.images.blobs_in_use())
                if time.monotonic() - gave_back > GIVE_BACK_EVERY_S:
                    gave_back = time.monotonic()
                    give_back()
            except Exception:
                logger.exception("maintenance failed; it is tried again")

    # -- search ----------------------------------------------------------------------------------

    def search(self, request: m.SearchRequest, *, image: bytes | None = None) -> m.SearchResponse:
        """The hits for words, a picture, a stored picture or a vector. `image`: the bytes of an uploaded one.

        Raises BadRequest, FilterError, NotFound, Conflict, ImageUnreadable, ImageTooLarge, Overloaded.
        """
        timer = Timer()
        collection = self.collections.get(request.collection)
        style = self.captioner.style(request.caption_style, collection.caption_style)
        if request.captions or request.caption_style:
            self.captioner.check_style(style, "caption_style")
        view = self._view(collection)
        query = self._query(request, image, collection, timer)
        response = m.SearchResponse(
            request_id=new_request_id(),
            collection=collection.name,
            model_id=self.encoder.model_id,
            took_ms=timer.took_ms,
        )
        if request.target == "texts":
            self._search_texts(request, view, query, response, timer)
            response.caption = None
            if query.picture is not None and self.encoder.styles:
                with timer.stage("caption"):
                    response.caption = self.captioner.caption(query.picture(), style)
        else:
            found = self._search_images(request, view, query, timer)
            captions: Sequence[m.Caption | None] = [None] * len(found)
            if request.captions:
                with timer.stage("caption"):
                    captions = self.captioner.caption_hits([record for record, _ in found], style)
            response.hits = [
                self._hit(collection, *one, caption) for one, caption in zip(found, captions, strict=True)
            ]
        timer.total()
        return response

    def _search_images(
        self, request: m.SearchRequest, view: View | None, query: _Query, timer: Timer
    ) -> list[tuple[ImageRecord, float]]:
        if view is None:
            return []

        def others(ids: list[int]) -> dict[int, ImageRecord]:
            return {i: record for i, record in self.images.records(ids).items() if record.key != query.key}

        return self._best(request, view, query, timer, others)

    def _search_texts(
        self,
        request: m.SearchRequest,
        view: View | None,
        query: _Query,
        response: m.SearchResponse,
        timer: Timer,
    ) -> None:
        found = [] if view is None else self._best(request, view, query, timer, self.images.text_records)
        response.texts = [m.TextHit(t.text, score, t.image.key) for t, score in found]

    def _best(
        self,
        request: m.SearchRequest,
        view: View,
        query: _Query,
        timer: Timer,
        records: Callable[[list[int]], dict[int, T]],
    ) -> list[tuple[T, float]]:
        """The k best whose rows are still there. Rows that died since the view was made are dropped at the
        row
        join, so more are fetched until k are left or there are no more."""
        target = view.target(request.target)
        with timer.stage("search"):
            allowed = allowed_ids(request.filter, target.attributes) if request.filter else None
        fetch = request.k + 1
        while True:
            with timer.stage("search"):
                scores, ids = target.vectors.search(query.vector[None], fetch, allowed=allowed)
            with timer.stage("rows"):
                found = records(ids[0].tolist())
            best = [
                (found[i], cosine(s)) for i, s in zip(ids[0].tolist(), scores[0], strict=True) if i in found
            ]
            if len(best) >= request.k or ids.shape[1] < fetch:
                return best[: request.k]
            fetch *= 2

    def _query(
        self, request: m.SearchRequest, image: bytes | None, collection: Collection, timer: Timer
    ) -> _Query:
        given = {
            "text": request.text,
            "image": request.image if image is None else image,
            "image_key": request.image_key,
            "vector": request.vector,
        }
        names = [name for name, value in given.items() if value is not None]
        if len(names) != 1 or (image is not None and request.image is not None):
            raise BadRequest(
                f"give exactly one of text, image, image_key, vector; got {' and '.join(names) or 'none'}"
            )
        with timer.stage("encode"):
            if request.text is not None:
                return _Query(self._encode_text(request.text))
            if request.vector is not None:
                return _Query(self._checked_vector(request.vector))
            if request.image_key is not None:
                return self._stored_query(collection, request.image_key)
            decoded = self.uploads.decode(self.uploads.bytes_of(given["image"]))  # type: ignore[arg-type]
            fitted = self.encoder.fit(decoded)
            return _Query(self.batching.encode_images([fitted])[0], picture=lambda: fitted)

    def _encode_text(self, text: str) -> Rows:
        if not text.strip():
            raise BadRequest("text is empty", "text")
        row: Rows = self.batching.encode_texts([text])[0]
        return row

    def _checked_vector(self, vector: list[float]) -> Rows:
        dim = self.encoder.embed_dim
        if len(vector) != dim:
            raise BadRequest(
                f"vector has {len(vector)} numbers, {self.encoder.model_id} makes {dim}", "vector"
            )
        row = np.array(vector, dtype=np.float64)
        largest = float(np.abs(row).max())
        if not 0 < largest < np.inf:
            raise BadRequest("vector must be finite and not zero", "vector")
        row /= largest  # so that no square overflows
        return (row / np.linalg.norm(row)).astype(np.float32)

    def _stored_query(self, collection: Collection, key: str) -> _Query:
        record = self.images.get(collection.collection_id, key)
        assert collection.generation is not None
        vector = self.images.vector(record.image_id, collection.generation.generation_id)
        if vector is None:
            raise NotFound("image", key)

        def picture() -> Image.Image:
            try:
                return self.encoder.fit(self.uploads.decode(self.contents.read(record)))
            except OSError as error:
                raise NotFound("image", key) from error

        return _Query(vector, key=key, picture=picture)

    def _view(self, collection: Collection) -> View | None:
        """Raises Conflict when the collection's vectors come from another model."""
        self.check_model(collection)
        return self.live.view(collection)

    def check_model(self, collection: Collection) -> None:
        """Raises Conflict: vectors of two models are never compared."""
        generation = collection.generation
        if generation is not None and generation.model_id != self.encoder.model_id:
            raise Conflict(
                f"collection {collection.name!r} holds vectors of {generation.model_id}, "
                f"this server runs {self.encoder.model_id}: index it again or serve its model"
            )

    def _hit(
        self, collection: Collection, record: ImageRecord, score: float, caption: m.Caption | None
    ) -> m.Hit:
        at = f"/v1/collections/{quote(collection.name)}"
        key = quote(record.key)
        return m.Hit(
            key=record.key,
            score=score,
            title=record.title,
            caption=caption,
            attributes=dict(record.attributes),
            width=record.width,
            height=record.height,
            content_url=f"{at}/contents/{key}",
            thumbnail_url=f"{at}/thumbnails/{key}",
        )

    # -- images ----------------------------------------------------------------------------------

    def put_image(
        self, name: str, key: str, request: m.PutImageRequest, *, image: bytes | None
    ) -> tuple[m.Image, bool]:
        """Add or replace; (the record, whether it is new). Searchable here when it returns.

        Raises BadRequest, NotFound, Conflict, TooLarge, ImageUnreadable, ImageTooLarge.
        """
        collection = self.collections.get(name)
        check_request_key(key)
        if (image is None) == (request.image is None):
            raise BadRequest("give the picture once: image as base64 or data URI, or as a file", "image")
        data = self.uploads.bytes_of(image if image is not None else request.image or "")
        for text in request.texts:
            if not text.strip():
                raise BadRequest("texts holds an empty text", "texts")
        item = Item(key, "", request.title or None, tuple(request.texts), dict(request.attributes))
        record, new = self._ingest.put(item, data, collection, max_pixels=self.config.server.max_image_pixels)
        self.live.take_up(self.collections.get(name))
        return image_message(record, collection.name), new

    def get_image(self, name: str, key: str) -> m.Image:
        collection = self.collections.get(name)
        return image_message(self.images.get(collection.collection_id, key), collection.name)

    def list_images(self, name: str, *, after: str, limit: int) -> m.ImageList:
        """By key. Raises BadRequest for a limit out of 1..1000, NotFound."""
        if not 1 <= limit <= m.MAX_K:
            raise BadRequest(f"limit must be 1..{m.MAX_K}, got {limit}", "limit")
        collection = self.collections.get(name)
        records = self.images.page(collection.collection_id, after=after, limit=limit)
        last = records[-1].key if len(records) == limit else None
        return m.ImageList(images=[image_message(r, collection.name) for r in records], after=last)

    def stored_caption(self, name: str, key: str, style: str) -> m.Caption:
        """Of a stored picture, remembered. Raises NotFound."""
        record = self.images.get(self.collections.get(name).collection_id, key)
        (found,) = self.captioner.caption_hits([record], style)
        if found is None:
            raise NotFound("image", key)
        return found

    def delete_images(self, name: str, keys: Sequence[str]) -> list[str]:
        """The keys that were there. They are gone from every answer when it returns."""
        collection = self.collections.get(name)
        gone = self.images.delete(collection.collection_id, keys)
        self.live.take_up(self.collections.get(name))
        return gone

    def content(self, name: str, key: str, *, thumbnail: bool) -> tuple[bytes, str]:
        """(bytes, their sha256 or that of what they were made from). Raises NotFound."""
        record = self.images.get(self.collections.get(name).collection_id, key)
        try:
            data = self.contents.thumbnail(record) if thumbnail else self.contents.read(record)
        except OSError as error:
            logger.warning("bytes of image %s: %s", key, error)
            raise NotFound("image", key) from error
        return data, record.sha256

    # -- collections -----------------------------------------------------------------------------

    def put_collection(self, name: str, request: m.PutCollectionRequest) -> tuple[m.Collection, bool]:
        """Make it, or change limits and style of the one there is; (its record, whether it is new).

        Raises BadRequest, Conflict (a collection does not become a bank).
        """
        if request.caption_style is not None:
            self.captioner.check_style(request.caption_style, "caption_style")
        there = self.collections.find(name)
        if there is None:
            limits = limits_dict(request.limits or m.Limits())
            try:
                made = self.collections.create(
                    name, is_bank=request.bank, limits=limits, caption_style=request.caption_style
                )
            except ValueError as error:
                raise BadRequest(str(error), "collection") from error
            return self.collection_message(made), True
        if there.is_bank != request.bank:
            raise Conflict(f"collection {name!r} exists and is {'a bank' if there.is_bank else 'no bank'}")
        limits = limits_dict(request.limits) if request.limits else dict(there.limits)
        self.collections.set(
            there.collection_id, limits=limits, caption_style=request.caption_style or there.caption_style
        )
        return self.collection_message(self.collections.get(name)), False

    def collection_message(self, collection: Collection) -> m.Collection:
        images, texts = self.collections.counts(collection.collection_id)
        view = self.live.view(collection)
        return m.Collection(
            name=collection.name,
            bank=collection.is_bank,
            limits=limits_message(collection.limits),
            caption_style=collection.caption_style or "photo",
            images=images,
            texts=texts,
            model_id=collection.generation.model_id if collection.generation else None,
            attributes=view.images.attributes.types() if view is not None else {},
        )

    def list_collections(self) -> m.CollectionList:
        return m.CollectionList([self.collection_message(c) for c in self.collections.all()])


@dataclass(frozen=True)
class _Query:
    vector: Rows
    key: str | None = None
    """Of the stored picture that asks; it is not among its own hits."""
    picture: Callable[[], Image.Image] | None = None


def cosine(product: float) -> float:
    """The score that is shown: -1..1. A stored vector is rounded, so a product can be a hair beyond."""
    return round(min(1.0, max(-1.0, float(product))), 6)


def new_request_id() -> str:
    """Sorts by time."""
    return f"{time.time_ns() // 1_000_000:011x}{secrets.token_hex(7)}"


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


def limits_dict(limits: m.Limits) -> dict[str, float]:
    return {"near_copy": limits.near_copy, "similar": limits.similar}


def _iso(at: dt.datetime) -> str:
    utc = at.astimezone(dt.UTC) if at.tzinfo else at  # SQLite gives UTC back without saying so
    return utc.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
