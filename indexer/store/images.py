"""Images with their texts, attributes and vectors."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update
from sqlalchemy import text as sql

from indexer.attributes import Type, type_of, widened
from indexer.database import Database, now
from indexer.errors import GenerationSwitched, NotFound
from indexer.hashing import HASH_BYTES
from indexer.tables import caption, collection, embedding, generation, image, perceptual_hash, text

IDS_A_QUERY = 500
"""Values in one IN (…); SQLite allows some thousands."""

KEYS_A_PART = 5000

Attributes = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class NewImage:
    """An image to put, with its vectors: float32, L2-normalised."""

    key: str
    source: str | None
    sha256: str | None
    """This and the size are None where a vector came without a picture."""
    width: int | None
    height: int | None
    locator: str | None
    """Where the bytes lie; None: among the blobs, under their sha256."""
    thumbnail_sha256: str | None
    """None: the picture is small enough to be its own."""
    title: str | None
    texts: tuple[str, ...]
    """The title first, then given captions."""
    attributes: Attributes
    image_vector: NDArray[np.float32]
    text_vectors: NDArray[np.float32]
    """[len(texts), embed_dim]"""
    beside: Mapping[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = field(default_factory=dict)
    """generation_id -> (image vector, text vectors), of generations that are kept beside."""
    perceptual_hash: tuple[bytes, int] | None = None
    """PDQ and its quality; of bank items."""


@dataclass(frozen=True)
class ImageRecord:
    image_id: int
    collection_id: int
    key: str
    source: str | None
    sha256: str | None
    """None, as is the size: a vector came without a picture."""
    width: int | None
    height: int | None
    locator: str | None
    thumbnail_sha256: str | None
    title: str | None
    attributes: Attributes
    created_at: dt.datetime
    updated_at: dt.datetime
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class VectorRecord:
    """What a vector that came without a picture is compared by, to see whether it is new."""

    source: str | None
    title: str | None
    attributes: Attributes
    vector: bytes
    """As it is stored: float16, little-endian."""


@dataclass(frozen=True)
class TextRecord:
    text: str
    image: ImageRecord


@dataclass(frozen=True)
class PutReport:
    added: list[str] = field(default_factory=list)
    """Keys"""
    updated: list[str] = field(default_factory=list)
    change_seq: int = 0


# Every search asks one of these two: made once, since making a statement takes longer than running it.
_ASKED = (
    embedding.c.id.in_(bindparam("embedding_ids", expanding=True)),
    embedding.c.dead_seq.is_(None),
)
_RECORDS = (
    select(image, embedding.c.id.label("embedding_id"))
    .join(embedding, embedding.c.image_id == image.c.id)
    .where(*_ASKED)
)
_TEXT_RECORDS = (
    select(image, embedding.c.id.label("embedding_id"), text.c.text)
    .join(text, text.c.image_id == image.c.id)
    .join(embedding, embedding.c.text_id == text.c.id)
    .where(*_ASKED)
)


class Images:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, collection_id: int, generation_id: int, images: Sequence[NewImage]) -> PutReport:
        """Add or replace by key, all in one transaction.

        Raises ValueError when a key occurs twice, GenerationSwitched when none of the generations given serves now.
        """
        if not images:
            return PutReport()
        twice = next((key for key, n in Counter(new.key for new in images).items() if n > 1), None)
        if twice is not None:
            raise ValueError(f"key {twice!r} occurs twice in one put: which picture is it?")
        with self._database.write() as connection:
            seq = next_seq(connection, collection_id)
            _check_generation(connection, collection_id, {generation_id, *images[0].beside})
            at = now()
            there = _ids(connection, collection_id, [new.key for new in images])
            _forget(connection, list(there.values()), seq)
            rows = {new.key: _row(new, at) for new in images}
            changed = [{"image_id": there[key], **row} for key, row in rows.items() if key in there]
            if changed:
                connection.execute(update(image).where(image.c.id == bindparam("image_id")), changed)
            made = {"collection_id": collection_id, "created_at": at}
            ids = there | _inserted(connection, [row | made for key, row in rows.items() if key not in there])
            owned = [(ids[new.key], new) for new in images]
            _insert_parts(connection, collection_id, generation_id, seq, owned)
            _widen_types(connection, collection_id, [new.attributes for new in images])
        return PutReport(
            [key for key in rows if key not in there], [key for key in rows if key in there], seq
        )

    def analyze(self) -> None:
        """Let PostgreSQL see that the tables have grown: until it does so by itself, after a minute or more, it goes
        on by plans for empty tables, which look at every row for every key."""
        if not self._database.is_sqlite:
            with self._database.write() as connection:
                connection.execute(sql("ANALYZE image, embedding"))

    def delete(self, collection_id: int, keys: Sequence[str]) -> list[str]:
        """The keys that were there and are gone now."""
        with self._database.write() as connection:
            there = _ids(connection, collection_id, keys)
            if there:
                seq = next_seq(connection, collection_id)
                _forget(connection, list(there.values()), seq)
                for ids in _parts(list(there.values())):
                    connection.execute(delete(image).where(image.c.id.in_(ids)))
        return list(there)

    def get(self, collection_id: int, key: str) -> ImageRecord:
        """With its texts. Raises NotFound."""
        with self._database.read() as connection:
            row = connection.execute(
                select(image).where(image.c.collection_id == collection_id, image.c.key == key)
            ).first()
            if row is None:
                raise NotFound("image", key)
            return _record(row, _texts(connection, [row.id]).get(row.id, ()))

    def find(self, collection_id: int, keys: Sequence[str]) -> dict[str, ImageRecord]:
        """Those of `keys` that are there, with their texts."""
        out: dict[str, ImageRecord] = {}
        with self._database.read() as connection:
            for part in _parts(keys):
                rows = connection.execute(
                    select(image).where(image.c.collection_id == collection_id, image.c.key.in_(part))
                ).all()
                texts = _texts(connection, [row.id for row in rows])
                out |= {row.key: _record(row, texts.get(row.id, ())) for row in rows}
        return out

    def find_vectors(
        self, collection_id: int, generation_id: int, keys: Sequence[str]
    ) -> dict[str, VectorRecord]:
        """Those of `keys` that are there, with their vectors."""
        out: dict[str, VectorRecord] = {}
        asked = (
            select(image.c.key, image.c.source, image.c.title, image.c.attributes, embedding.c.vector)
            .join(embedding, embedding.c.image_id == image.c.id)
            .where(image.c.collection_id == collection_id, embedding.c.generation_id == generation_id)
            .where(embedding.c.dead_seq.is_(None))
        )
        with self._database.read() as connection:
            for part in _parts(keys):
                for row in connection.execute(asked.where(image.c.key.in_(part))):
                    out[row.key] = VectorRecord(row.source, row.title, row.attributes, row.vector)
        return out

    def page(self, collection_id: int, *, after: str = "", limit: int = 100) -> list[ImageRecord]:
        """Up to `limit` images by key, beginning behind the key `after`."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(image)
                .where(image.c.collection_id == collection_id, image.c.key > after)
                .order_by(image.c.key)
                .limit(limit)
            ).all()
            texts = _texts(connection, [row.id for row in rows])
        return [_record(row, texts.get(row.id, ())) for row in rows]

    def keys_of_source(self, collection_id: int, source: str) -> Iterator[Sequence[str]]:
        """Keys of what came from a source, some thousand at a time."""
        asked = select(image.c.key).where(image.c.collection_id == collection_id, image.c.source == source)
        with self._database.read() as connection:
            found = connection.scalars(asked, execution_options={"yield_per": KEYS_A_PART})
            yield from found.partitions()

    def records(self, embedding_ids: Sequence[int]) -> dict[int, ImageRecord]:
        """The images that living image embeddings belong to. Dead and deleted ones are left out."""
        out: dict[int, ImageRecord] = {}
        with self._database.read() as connection:
            for part in _parts(embedding_ids):
                rows = connection.execute(_RECORDS, {"embedding_ids": part})
                out |= {row.embedding_id: _record(row) for row in rows}
        return out

    def text_records(self, embedding_ids: Sequence[int]) -> dict[int, TextRecord]:
        """The texts that living text embeddings belong to, each with its image."""
        out: dict[int, TextRecord] = {}
        with self._database.read() as connection:
            for part in _parts(embedding_ids):
                rows = connection.execute(_TEXT_RECORDS, {"embedding_ids": part})
                out |= {row.embedding_id: TextRecord(row.text, _record(row)) for row in rows}
        return out

    def vector(self, image_id: int, generation_id: int) -> NDArray[np.float32] | None:
        """The living image vector, float32 [embed_dim], or None."""
        with self._database.read() as connection:
            data = connection.scalar(
                select(embedding.c.vector).where(
                    embedding.c.image_id == image_id,
                    embedding.c.generation_id == generation_id,
                    embedding.c.dead_seq.is_(None),
                )
            )
        return None if data is None else np.frombuffer(data, dtype="<f2").astype(np.float32)

    def with_sha256(self, collection_id: int, sha256: str) -> list[str]:
        """Keys of the images with these bytes."""
        with self._database.read() as connection:
            return list(
                connection.scalars(
                    select(image.c.key)
                    .where(image.c.collection_id == collection_id, image.c.sha256 == sha256)
                    .order_by(image.c.key)
                )
            )

    def perceptual_hashes(self, collection_id: int) -> tuple[list[str], NDArray[np.uint8]]:
        """Keys and PDQ hashes [n, 32] of a bank's images that have one."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(image.c.key, perceptual_hash.c.pdq)
                .join(perceptual_hash, perceptual_hash.c.image_id == image.c.id)
                .where(image.c.collection_id == collection_id)
                .order_by(image.c.key)
            ).all()
        hashes = np.frombuffer(b"".join(row.pdq for row in rows), dtype=np.uint8)
        return [row.key for row in rows], hashes.reshape(-1, HASH_BYTES)

    def blobs_in_use(self) -> set[str]:
        """sha256 of every blob that an image refers to."""
        with self._database.read() as connection:
            return blobs_of(connection)


def blobs_of(connection: Connection) -> set[str]:
    """sha256 of every blob that an image of this state of the database refers to."""
    own = connection.scalars(
        select(image.c.sha256).where(image.c.locator.is_(None), image.c.sha256.is_not(None))
    ).all()
    small = connection.scalars(
        select(image.c.thumbnail_sha256).where(image.c.thumbnail_sha256.is_not(None))
    ).all()
    return {digest for digest in (*own, *small) if digest}


def next_seq(connection: Connection, collection_id: int) -> int:
    """The number of this write transaction; the row stays locked until it ends, so numbers commit in order."""
    seq = connection.execute(
        update(collection)
        .where(collection.c.id == collection_id)
        .values(change_seq=collection.c.change_seq + 1)
        .returning(collection.c.change_seq)
    ).scalar()
    if seq is None:
        raise NotFound("collection", str(collection_id))
    return int(seq)


def _check_generation(connection: Connection, collection_id: int, given: set[int]) -> None:
    active = connection.scalar(select(collection.c.generation_id).where(collection.c.id == collection_id))
    if active is not None and active not in given:
        raise GenerationSwitched(
            "the collection was switched to another model while pictures were encoded: put them again"
        )


def _widen_types(connection: Connection, collection_id: int, rows: Sequence[Attributes]) -> None:
    """The types of attributes, in the transaction that brings their values."""
    chosen = collection.c.id == collection_id
    known = connection.scalar(select(collection.c.inferred_types).where(chosen))
    types: dict[str, Type] = dict(known or {})
    for row in rows:
        for name, value in row.items():
            types[name] = widened(types.get(name), type_of(value))
    if types != known:
        connection.execute(update(collection).where(chosen).values(inferred_types=types))


def _ids(connection: Connection, collection_id: int, keys: Sequence[str]) -> dict[str, int]:
    out: dict[str, int] = {}
    for part in _parts(keys):
        rows = connection.execute(
            select(image.c.key, image.c.id).where(
                image.c.collection_id == collection_id, image.c.key.in_(part)
            )
        )
        out |= {row.key: row.id for row in rows}
    return out


def _inserted(connection: Connection, rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """key -> image_id of new rows, a thousand a statement: told apart by their keys, since SQLAlchemy keeps order in
    SQLite only by a statement a row."""
    if not rows:
        return {}
    return {
        row.key: row.id for row in connection.execute(insert(image).returning(image.c.key, image.c.id), rows)
    }


def _forget(connection: Connection, image_ids: Sequence[int], seq: int) -> None:
    """Vectors die (their bytes are freed); texts, captions and hashes of the images go."""
    for ids in _parts(image_ids):
        texts = select(text.c.id).where(text.c.image_id.in_(ids))
        for column, which in ((embedding.c.image_id, ids), (embedding.c.text_id, texts)):
            connection.execute(
                update(embedding)
                .where(column.in_(which), embedding.c.dead_seq.is_(None))
                .values(dead_seq=seq, vector=b"")
            )
        for table in (text, caption, perceptual_hash):
            connection.execute(delete(table).where(table.c.image_id.in_(ids)))


def _insert_parts(
    connection: Connection,
    collection_id: int,
    generation_id: int,
    seq: int,
    images: Sequence[tuple[int, NewImage]],
) -> None:
    texts = [
        {"image_id": image_id, "ordinal": i, "text": said}
        for image_id, new in images
        for i, said in enumerate(new.texts)
    ]
    text_ids: Sequence[int] = []
    if texts:
        made = insert(text).returning(text.c.id, sort_by_parameter_order=True)
        text_ids = connection.scalars(made, texts).all()
    for each in _kept(connection, generation_id, images):
        alive = {"collection_id": collection_id, "generation_id": each, "born_seq": seq}
        given = [
            (new.image_vector, new.text_vectors) if each == generation_id else new.beside[each]
            for _, new in images
        ]
        vectors: list[dict[str, Any]] = [
            {**alive, "image_id": image_id, "text_id": None, "vector": stored_bytes(vector)}
            for (image_id, _), (vector, _) in zip(images, given, strict=True)
        ]
        rows = [row for _, said in given for row in said]
        vectors += [
            {**alive, "image_id": None, "text_id": text_id, "vector": stored_bytes(row)}
            for text_id, row in zip(text_ids, rows, strict=True)
        ]
        connection.execute(insert(embedding), vectors)
    hashes = [
        {"image_id": image_id, "pdq": new.perceptual_hash[0], "quality": new.perceptual_hash[1]}
        for image_id, new in images
        if new.perceptual_hash is not None
    ]
    if hashes:
        connection.execute(insert(perceptual_hash), hashes)


def _kept(connection: Connection, generation_id: int, images: Sequence[tuple[int, NewImage]]) -> list[int]:
    """Generations that these images have vectors of and that are there still: one may have been dropped meanwhile."""
    beside = [each for each in images[0][1].beside if all(each in new.beside for _, new in images)]
    asked = select(generation.c.id).where(generation.c.id.in_([generation_id, *beside]))
    return list(connection.scalars(asked))


def _row(new: NewImage, at: dt.datetime) -> dict[str, Any]:
    return {
        "key": new.key,
        "source": new.source,
        "sha256": new.sha256,
        "width": new.width,
        "height": new.height,
        "locator": new.locator,
        "thumbnail_sha256": new.thumbnail_sha256,
        "title": new.title,
        "attributes": dict(new.attributes),
        "updated_at": at,
    }


def stored_bytes(vector: NDArray[np.float32]) -> bytes:
    """Little-endian float16: what is stored is what exact search means."""
    return vector.astype("<f2").tobytes()


def _texts(connection: Connection, image_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    out: dict[int, tuple[str, ...]] = {}
    for ids in _parts(image_ids):
        for row in connection.execute(
            select(text.c.image_id, text.c.text)
            .where(text.c.image_id.in_(ids))
            .order_by(text.c.image_id, text.c.ordinal)
        ):
            out[row.image_id] = (*out.get(row.image_id, ()), row.text)
    return out


def _record(row: Row[Any], texts: tuple[str, ...] = ()) -> ImageRecord:
    return ImageRecord(
        row.id,
        row.collection_id,
        row.key,
        row.source,
        row.sha256,
        row.width,
        row.height,
        row.locator,
        row.thumbnail_sha256,
        row.title,
        row.attributes,
        row.created_at,
        row.updated_at,
        texts,
    )


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[i : i + IDS_A_QUERY] for i in range(0, len(values), IDS_A_QUERY))
