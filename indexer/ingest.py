"""Items to rows: read, decode, encode, write; the stages overlap. The only file here that imports textmm."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.config import IngestConfig
from indexer.database import Database
from indexer.errors import BadItem, GenerationSwitched
from indexer.files import Blobs
from indexer.hashing import MIN_QUALITY, perceptual_hash, sha256
from indexer.naming import check_key
from indexer.problems import key_problem, type_problem, words_problem
from indexer.report import Failure, IngestReport
from indexer.store.collections import Collection, Collections, check_generation
from indexer.store.generations import Generations
from indexer.store.images import ImageRecord, Images, NewImage
from textmm.encoder import Encoder
from textmm.marks import is_generated
from textmm.sources import Item, read_bytes
from textmm.transforms import MAX_PIXELS, ImageTooLarge, ImageUnreadable, decode_image, thumbnail_jpeg

Rows = NDArray[np.float32]
TRIES = 3
"""How often a put begins anew because its collection was switched to another model meanwhile."""
GENERATED = "generated"
"""Attribute of pictures that carry the mark of a generator; searches leave them out unless they are asked for."""
AHEAD = 3
"""Batches that are decoded ahead of the encoder."""


@dataclass(frozen=True)
class _Decoded:
    """A picture ready to be encoded, with what its row needs."""

    item: Item
    fitted: tuple[Image.Image, ...]
    """As each model takes it."""
    sha256: str
    width: int
    height: int
    thumbnail: bytes | None
    pdq: tuple[bytes, int] | None
    data: bytes | None
    """The bytes, when they have no home of their own."""


@dataclass(frozen=True)
class _Into:
    """The generations that vectors are made for, and what makes them: the one that serves, then those beside it."""

    generations: tuple[int, ...]
    encoders: tuple[Encoder, ...]


class Ingest:
    """Puts pictures into collections. Made once a process."""

    def __init__(
        self,
        database: Database,
        encoder: Encoder,
        blobs: Blobs,
        config: IngestConfig,
        *,
        encoders: Callable[[str], Encoder | None] = lambda model_id: None,
    ) -> None:
        """`encoder`: of collections without vectors; `encoders`: by model_id, those that are loaded, for the others."""
        self._images = Images(database)
        self._collections = Collections(database)
        self._generations = Generations(database)
        self._encoder = encoder
        self._encoders = encoders
        self._blobs = blobs
        self._config = config

    def run(self, items: Iterable[Item], collection: Collection, *, source: str) -> Iterator[IngestReport]:
        """Put all items, a transaction a batch; yields a report a batch, until the source ends.

        What is there already with the same bytes and words is left alone. A picture that cannot be read is
        reported, and the rest goes in. Raises Conflict when the collection belongs to another model.
        """
        into = self._into(collection)
        pool = ThreadPoolExecutor(self._config.decode_threads, "decode")
        writer = ThreadPoolExecutor(1, "write")
        chunks = _batched(items, self._config.batch_size)
        ahead: deque[tuple[IngestReport, list[Future[_Decoded | Failure | None]]]] = deque()
        writes: deque[tuple[IngestReport, Future[None]]] = deque()
        seen: set[str] = set()
        try:
            for chunk in itertools.chain(chunks, itertools.repeat(None, AHEAD)):
                if chunk is not None:
                    ahead.append(self._start(chunk, collection, into, source, seen, pool))
                if ahead and (chunk is None or len(ahead) > AHEAD - 1):
                    report, decoded = self._finish_decoding(*ahead.popleft())
                    rows = self._encode(decoded, into, source, report)
                    writes.append((report, writer.submit(self._write, rows, collection, into, report)))
                while writes and (len(writes) > 1 or chunk is None):
                    yield _written(*writes.popleft())
        finally:
            pool.shutdown(cancel_futures=True)
            writer.shutdown()

    def put(
        self, item: Item, data: bytes, collection: Collection, *, max_pixels: int = MAX_PIXELS
    ) -> tuple[ImageRecord, bool]:
        """Put one picture whose bytes are given; (its record, whether it is new). All is on disk on return.

        Raises ImageUnreadable, ImageTooLarge, ValueError (the key), BadItem (words, attributes), Conflict.
        """
        check_key(item.key)
        problem = _problem(item, collection)
        if problem:
            raise BadItem(problem)
        first = self._of(collection)
        check_generation(collection, model_id=first.model_id, embed_dim=first.embed_dim)
        image = decode_image(data, max_pixels=max_pixels)
        for _ in range(TRIES):
            into = self._into(collection)
            report = IngestReport()
            (row,) = self._encode(
                [self._decoded(item, data, image, into, collection, keep=True)], into, None, report
            )
            try:
                self._write([row], collection, into, report)
                break
            except GenerationSwitched:
                continue
        else:
            raise GenerationSwitched(
                f"collection {collection.name!r} changes its model again and again: try later"
            )
        return self._images.get(collection.collection_id, item.key), report.added == 1

    def _of(self, collection: Collection) -> Encoder:
        """What makes vectors for the generation that serves; our own when that model is not here."""
        there = collection.generation
        return self._encoder if there is None else self._encoders(there.model_id) or self._encoder

    def _into(self, collection: Collection) -> _Into:
        """Raises Conflict when the generation that serves is of a model that is not here."""
        own = self._of(self._collections.get(collection.name))  # what serves now
        active = self._collections.ensure_generation(
            collection.collection_id,
            model_id=own.model_id,
            embed_dim=own.embed_dim,
            preprocessing=own.preprocessing,
        )
        beside = [
            (one.generation_id, encoder)
            for one in self._generations.beside().get(collection.collection_id, [])
            if (encoder := self._encoders(one.model_id)) is not None
        ]
        ids = (active.generation_id, *(generation_id for generation_id, _ in beside))
        return _Into(ids, (own, *(encoder for _, encoder in beside)))

    def _start(
        self,
        items: Sequence[Item],
        collection: Collection,
        into: _Into,
        source: str,
        seen: set[str],
        pool: ThreadPoolExecutor,
    ) -> tuple[IngestReport, list[Future[_Decoded | Failure | None]]]:
        """Leave out what is wrong or unchanged; the rest begins to decode."""
        report = IngestReport()
        known = self._images.find(collection.collection_id, [i.key for i in items if i.problem is None])
        futures = []
        for item in items:
            again = "the key occurs twice in this source" if item.key in seen else None
            problem = item.problem or again or key_problem(item.key) or _problem(item, collection)
            seen.add(item.key)
            if problem:
                report.failed.append(Failure(item.key, problem))
            else:
                there = known.get(item.key)
                futures.append(pool.submit(self._read, item, there, source, collection, into, report))
        return report, futures

    def _read(
        self,
        item: Item,
        known: ImageRecord | None,
        source: str,
        collection: Collection,
        into: _Into,
        report: IngestReport,
    ) -> _Decoded | Failure | None:
        """In a decode thread. None: nothing has changed."""
        started = time.perf_counter()
        try:
            data = read_bytes(item.locator)
            read_at = time.perf_counter()
            report.spent("read", read_at - started)
            if known is not None and _unchanged(item, known, sha256(data), source):
                return None
            decoded = self._decoded(item, data, decode_image(data), into, collection, keep=False)
            report.spent("decode", time.perf_counter() - read_at)
            return decoded
        except (ImageUnreadable, ImageTooLarge) as error:
            return Failure(item.key, str(error))
        except OSError as error:
            return Failure(item.key, f"cannot be read: {error.strerror or error}")

    def _decoded(
        self, item: Item, data: bytes, image: Image.Image, into: _Into, collection: Collection, *, keep: bool
    ) -> _Decoded:
        item = _marked(item, data, collection)
        pdq = perceptual_hash(image) if collection.is_bank else None
        side = self._config.thumbnail_side
        return _Decoded(
            item,
            tuple(encoder.fit(image) for encoder in into.encoders),
            sha256(data),
            image.width,
            image.height,
            thumbnail_jpeg(image, side) if max(image.size) > side else None,
            pdq if pdq is not None and pdq[1] >= MIN_QUALITY else None,
            data if keep else None,
        )

    def _finish_decoding(
        self, report: IngestReport, futures: list[Future[_Decoded | Failure | None]]
    ) -> tuple[IngestReport, list[_Decoded]]:
        decoded = []
        for future in futures:
            match future.result():
                case None:
                    report.unchanged += 1
                case Failure() as failure:
                    report.failed.append(failure)
                case done:
                    decoded.append(done)
        return report, decoded

    def _encode(
        self, decoded: Sequence[_Decoded], into: _Into, source: str | None, report: IngestReport
    ) -> list[NewImage]:
        started = time.perf_counter()
        made = [_vectors(encoder, i, decoded) for i, encoder in enumerate(into.encoders)]
        rows = []
        for at, one in enumerate(decoded):
            beside = {
                which: vectors[at] for which, vectors in zip(into.generations[1:], made[1:], strict=True)
            }
            rows.append(
                NewImage(
                    key=one.item.key,
                    source=source,
                    sha256=one.sha256,
                    width=one.width,
                    height=one.height,
                    locator=None if one.data is not None else one.item.locator,
                    thumbnail_sha256=self._blobs.put(one.thumbnail) if one.thumbnail is not None else None,
                    title=one.item.title,
                    texts=one.item.texts,
                    attributes=one.item.attributes,
                    image_vector=made[0][at][0],
                    text_vectors=made[0][at][1],
                    beside=beside,
                    perceptual_hash=one.pdq,
                )
            )
            if one.data is not None:
                self._blobs.put(one.data)
        report.spent("encode", time.perf_counter() - started)
        return rows

    def _write(
        self, rows: Sequence[NewImage], collection: Collection, into: _Into, report: IngestReport
    ) -> None:
        started = time.perf_counter()
        if rows:
            put = self._images.put(collection.collection_id, into.generations[0], rows)
            report.added, report.updated = len(put.added), len(put.updated)
        report.spent("write", time.perf_counter() - started)


def _vectors(encoder: Encoder, which: int, decoded: Sequence[_Decoded]) -> list[tuple[Rows, Rows]]:
    """Of each picture, and of its texts, by one of the models."""
    pictures = encoder.encode_images([one.fitted[which] for one in decoded])
    texts = list(dict.fromkeys(said for one in decoded for said in one.item.texts))
    vector_of = dict(zip(texts, encoder.encode_texts(texts), strict=True))
    empty = np.empty((0, encoder.embed_dim), np.float32)
    return [
        (picture, np.stack([vector_of[said] for said in one.item.texts]) if one.item.texts else empty)
        for picture, one in zip(pictures, decoded, strict=True)
    ]


def _problem(item: Item, collection: Collection) -> str | None:
    words = words_problem(item.title, item.attributes, (*item.captions, item.locator))
    return words or type_problem(item.attributes, collection)


def _marked(item: Item, data: bytes, collection: Collection) -> Item:
    """With the attribute that says so, if a generator drew it; what the item itself says of that stands, and so does a
    type that the owner declared."""
    if GENERATED in item.attributes or not is_generated(data):
        return item
    attributes = {**item.attributes, GENERATED: True}
    return item if type_problem(attributes, collection) else replace(item, attributes=attributes)


def _written(report: IngestReport, write: Future[None]) -> IngestReport:
    write.result()
    return report


def _unchanged(item: Item, known: ImageRecord, digest: str, source: str) -> bool:
    attributes = dict(known.attributes)
    if GENERATED not in item.attributes:
        attributes.pop(GENERATED, None)  # it came from the bytes, which are compared
    return (known.sha256, known.title, known.texts, attributes, known.locator, known.source) == (
        digest,
        item.title,
        item.texts,
        dict(item.attributes),
        item.locator,
        source,
    )


def _batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
