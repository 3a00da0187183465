"""SearchEngine: what every skin calls."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote

from indexer.database import Database
from indexer.files import Blobs
from indexer.ingest import Ingest
from indexer.live import LiveIndex, View
from indexer.store.collections import Collection, Collections
from indexer.store.embeddings import Embeddings
from indexer.store.images import ImageRecord, Images
from indexer.vector_ingest import VectorIngest
from search import messages as m
from search.attendance import Attendance
from search.captions import Captioner
from search.catalogue import Catalogue
from search.config import Config
from search.contents import Contents
from search.errors import NotReady
from search.maintenance import GIVE_BACK_EVERY_S, SWEEP_EVERY_S, Job, Maintenance
from search.memory import give_back
from search.models import Models
from search.queries import Queries, Query
from search.selection import Selection
from search.uploads import Uploads
from textmm.encoder import Encoder

logger = logging.getLogger(__name__)
T = TypeVar("T")


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
        self.models = Models(encoder, load=self.load_model, queue=config.server.queue)
        self.batching = self.models.own.batching
        self.collections = Collections(database)
        self.images = Images(database)
        blobs = Blobs(config.data / "blobs")
        contents = Contents(blobs)
        self.captioner = Captioner(encoder, self.batching, database, contents)
        self.uploads = Uploads(
            max_bytes=config.server.max_image_bytes, max_pixels=config.server.max_image_pixels
        )
        self.live = LiveIndex(database, config.data / "indexes", config.index)
        self.catalogue = Catalogue(
            self.collections,
            self.images,
            ingest=Ingest(database, encoder, blobs, config.ingest, encoders=self.models.encoder),
            vectors=VectorIngest(database),
            live=self.live,
            uploads=self.uploads,
            contents=contents,
            captioner=self.captioner,
        )
        self._queries = Queries(self.models, self.images, self.uploads, contents)
        self._embeddings = Embeddings(database)
        self._attendance = Attendance(database, self.models, self.live)
        self.maintenance = Maintenance(
            {
                "maintenance": [
                    Job("tell", self._attendance.tell, config.index.poll_s),
                    Job("poll", self.live.poll, config.index.poll_s),
                    Job("give back", give_back, GIVE_BACK_EVERY_S),
                ],
                "models": [Job("attend", self._attendance.attend, config.index.poll_s)],
                "folding": [
                    Job("fold", self.live.fold_due, config.index.poll_s),
                    Job("recall", self.live.check_recall, config.index.recall_check_s),
                    Job("sweep", lambda: blobs.sweep(self.images.blobs_in_use()), SWEEP_EVERY_S, True),
                ],
            }
        )

    def start(self) -> None:
        """Load every collection's view, and the models of generations; keep them up to date in threads."""
        self._attendance.attend()
        self._attendance.tell()
        for collection in self.collections.all():
            self.live.view(collection)
        self.batching.encode_texts(["warm"])
        self.maintenance.start()

    def close(self) -> None:
        self.maintenance.close()
        self._attendance.close()
        self.models.close()

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
        with timer.stage("encode"):
            query = self._queries.of(request, image, collection)
        response = m.SearchResponse(
            request_id=new_request_id(),
            collection=collection.name,
            model_id=self.encoder.model_id if view is None else view.generation.model_id,
            took_ms=timer.took_ms,
        )
        with timer.stage("search"):
            chosen = None if view is None else Selection.of(request, view.target(request.target))
            if chosen is not None and request.facets:
                response.facets = chosen.facets(request.facets)
            if chosen is not None and request.explain:
                response.explain = chosen.explain(request.k)
        if request.target == "texts":
            response.texts = self._search_texts(request, chosen, query, timer)
            response.caption = None
            if query.picture is not None and self.encoder.styles:
                with timer.stage("caption"):
                    response.caption = self.captioner.caption(query.picture(), style)
        else:
            found = self._search_images(request, chosen, query, timer)
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
        self, request: m.SearchRequest, chosen: Selection | None, query: Query, timer: Timer
    ) -> list[tuple[ImageRecord, float]]:
        if chosen is None:
            return []

        def others(ids: list[int]) -> dict[int, ImageRecord]:
            return {i: record for i, record in self.images.records(ids).items() if record.key != query.key}

        return self._best(request, chosen, query, timer, others)

    def _search_texts(
        self, request: m.SearchRequest, chosen: Selection | None, query: Query, timer: Timer
    ) -> list[m.TextHit]:
        found = [] if chosen is None else self._best(request, chosen, query, timer, self.images.text_records)
        return [m.TextHit(t.text, score, t.image.key) for t, score in found]

    def _best(
        self,
        request: m.SearchRequest,
        chosen: Selection,
        query: Query,
        timer: Timer,
        records: Callable[[list[int]], dict[int, T]],
    ) -> list[tuple[T, float]]:
        """The k best whose rows are still there. Rows that died since the view was made are dropped at the
        row join, so more are fetched until k are left or there are no more."""
        fetch = request.k + 1
        while True:
            with timer.stage("search"):
                scores, ids = chosen.view.search(query.vector[None], fetch, chosen.allowed)
            with timer.stage("rows"):
                found = records(ids[0].tolist())
            best = [
                (found[i], cosine(s)) for i, s in zip(ids[0].tolist(), scores[0], strict=True) if i in found
            ]
            if len(best) >= request.k or ids.shape[1] < fetch:
                return best[: request.k]
            fetch *= 2

    def _view(self, collection: Collection) -> View | None:
        """Raises Conflict when the collection's vectors come from a model that is not loaded."""
        self.models.of(collection)
        return self.live.view(collection)

    def load_model(self, name: str) -> Encoder:
        """Beside the one that is served. Raises ValueError, WeightsMissing."""
        config, model = self.config, self.config.model
        return Encoder.load(
            name, config.trunks, models=config.models, device=model.device, threads=model.threads
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
            content_url=None if record.sha256 is None else f"{at}/contents/{key}",
            thumbnail_url=None if record.sha256 is None else f"{at}/thumbnails/{key}",
        )


def cosine(product: float) -> float:
    """The score that is shown: -1..1. A stored vector is rounded, so a product can be a hair beyond."""
    return round(min(1.0, max(-1.0, float(product))), 6)


def new_request_id() -> str:
    """Sorts by time."""
    return f"{time.time_ns() // 1_000_000:011x}{secrets.token_hex(7)}"
