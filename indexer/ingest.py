"""Items to rows: read, decode, encode, write; the stages overlap. The only file here that imports textmm."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from indexer.config import IngestConfig
from indexer.database import Database
from indexer.errors import BadItem
from indexer.files import Blobs
from indexer.hashing import MIN_QUALITY, perceptual_hash, sha256
from indexer.naming import check_key
from indexer.problems import key_problem, type_problem, words_problem
from indexer.report import Failure, IngestReport
from indexer.store.collections import Collection, Collections, check_generation
from indexer.store.images import ImageRecord, Images, NewImage
from textmm.encoder import Encoder
from textmm.sources import Item, read_bytes
from textmm.transforms import MAX_PIXELS, ImageTooLarge, ImageUnreadable, decode_image, thumbnail_jpeg

AHEAD = 3
"""Batches that are decoded ahead of the encoder."""


@dataclass(frozen=True)
class _Decoded:
    """A picture ready to be encoded, with what its row needs."""

    item: Item
    fitted: Image.Image
    sha256: str
    width: int
    height: int
    thumbnail: bytes | None
    pdq: tuple[bytes, int] | None
    data: bytes | None
    """The bytes, when they have no home of their own."""


class Ingest:
    """Puts pictures into collections. Made once a process."""

    def __init__(self, database: Database, encoder: Encoder, blobs: Blobs, config: IngestConfig) -> None:
        self._images = Images(database)
        self._collections = Collections(database)
        self._encoder = encoder
        self._blobs = blobs
        self._config = config

    def run(self, items: Iterable[Item], collection: Collection, *, source: str) -> Iterator[IngestReport]:
        """Put all items, a transaction a batch; yields a report a batch, until the source ends.

        What is there already with the same bytes and words is left alone. A picture that cannot be read is
        reported, and the rest goes in. Raises Conflict when the collection belongs to another model.
        """
        generation_id = self._generation(collection)
        pool = ThreadPoolExecutor(self._config.decode_threads, "decode")
        writer = ThreadPoolExecutor(1, "write")
        chunks = _batched(items, self._config.batch_size)
        ahead: deque[tuple[IngestReport, list[Future[_Decoded | Failure | None]]]] = deque()
        writes: deque[tuple[IngestReport, Future[None]]] = deque()
        seen: set[str] = set()
        try:
            for chunk in itertools.chain(chunks, itertools.repeat(None, AHEAD)):
                if chunk is not None:
                    ahead.append(self._start(chunk, collection, source, seen, pool))
                if ahead and (chunk is None or len(ahead) > AHEAD - 1):
                    report, decoded = self._finish_decoding(*ahead.popleft())
                    rows = self._encode(decoded, source, report)
                    writes.append(
                        (report, writer.submit(self._write, rows, collection, generation_id, report))
                    )
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
        encoder = self._encoder
        check_generation(collection, model_id=encoder.model_id, embed_dim=encoder.embed_dim)
        decoded = self._decode(item, data, keep=True, bank=collection.is_bank, max_pixels=max_pixels)
        generation_id = self._generation(collection)
        report = IngestReport()
        (row,) = self._encode([decoded], None, report)
        self._write([row], collection, generation_id, report)
        return self._images.get(collection.collection_id, item.key), report.added == 1

    def _generation(self, collection: Collection) -> int:
        encoder = self._encoder
        return self._collections.ensure_generation(
            collection.collection_id,
            model_id=encoder.model_id,
            embed_dim=encoder.embed_dim,
            preprocessing=encoder.preprocessing,
        ).generation_id

    def _start(
        self,
        items: Sequence[Item],
        collection: Collection,
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
                futures.append(
                    pool.submit(self._read, item, known.get(item.key), source, collection.is_bank, report)
                )
        return report, futures

    def _read(
        self, item: Item, known: ImageRecord | None, source: str, bank: bool, report: IngestReport
    ) -> _Decoded | Failure | None:
        """In a decode thread. None: nothing has changed."""
        started = time.perf_counter()
        try:
            data = read_bytes(item.locator)
            read_at = time.perf_counter()
            report.spent("read", read_at - started)
            if known is not None and _unchanged(item, known, sha256(data), source):
                return None
            decoded = self._decode(item, data, keep=False, bank=bank)
            report.spent("decode", time.perf_counter() - read_at)
            return decoded
        except (ImageUnreadable, ImageTooLarge) as error:
            return Failure(item.key, str(error))
        except OSError as error:
            return Failure(item.key, f"cannot be read: {error.strerror or error}")

    def _decode(
        self, item: Item, data: bytes, *, keep: bool, bank: bool, max_pixels: int = MAX_PIXELS
    ) -> _Decoded:
        image = decode_image(data, max_pixels=max_pixels)
        pdq = perceptual_hash(image) if bank else None
        side = self._config.thumbnail_side
        return _Decoded(
            item,
            self._encoder.fit(image),
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
        self, decoded: Sequence[_Decoded], source: str | None, report: IngestReport
    ) -> list[NewImage]:
        started = time.perf_counter()
        image_vectors = self._encoder.encode_images([d.fitted for d in decoded])
        texts = list(dict.fromkeys(t for d in decoded for t in d.item.texts))
        text_vectors = dict(zip(texts, self._encoder.encode_texts(texts), strict=True))
        empty = np.empty((0, self._encoder.embed_dim), np.float32)
        rows = []
        for one, vector in zip(decoded, image_vectors, strict=True):
            own = one.item.texts
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
                    texts=own,
                    attributes=one.item.attributes,
                    image_vector=vector,
                    text_vectors=np.stack([text_vectors[t] for t in own]) if own else empty,
                    perceptual_hash=one.pdq,
                )
            )
            if one.data is not None:
                self._blobs.put(one.data)
        report.spent("encode", time.perf_counter() - started)
        return rows

    def _write(
        self, rows: Sequence[NewImage], collection: Collection, generation_id: int, report: IngestReport
    ) -> None:
        started = time.perf_counter()
        if rows:
            put = self._images.put(collection.collection_id, generation_id, rows)
            report.added, report.updated = len(put.added), len(put.updated)
        report.spent("write", time.perf_counter() - started)


def _problem(item: Item, collection: Collection) -> str | None:
    words = words_problem(item.title, item.attributes, (*item.captions, item.locator))
    return words or type_problem(item.attributes, collection)


def _written(report: IngestReport, write: Future[None]) -> IngestReport:
    write.result()
    return report


def _unchanged(item: Item, known: ImageRecord, digest: str, source: str) -> bool:
    return (known.sha256, known.title, known.texts, dict(known.attributes), known.locator, known.source) == (
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
