"""Vectors as rows, and the changes that a process has not seen yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, func, select

from indexer.attributes import Type
from indexer.database import Database
from indexer.tables import collection, embedding, image, text

Target = Literal["images", "texts"]


@dataclass(frozen=True)
class Born:
    """New embeddings of one target, ascending by id."""

    embedding_ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    """[n, embed_dim]"""
    attributes: list[Mapping[str, Any]]
    """Of the image that each belongs to."""


@dataclass(frozen=True)
class Changes:
    through_seq: int
    """Everything up to here is in."""
    types: Mapping[str, Type]
    """Of attributes, as of that change."""
    images: Born
    texts: Born
    dead: NDArray[np.int64]
    """Embedding ids, of both targets."""


class Embeddings:
    def __init__(self, database: Database) -> None:
        self._database = database

    def seqs(self) -> dict[int, tuple[int, int | None]]:
        """collection_id -> (change_seq, active generation), for all collections: is there anything new?"""
        with self._database.read() as connection:
            rows = connection.execute(
                select(collection.c.id, collection.c.change_seq, collection.c.generation_id)
            )
            return {row.id: (row.change_seq, row.generation_id) for row in rows}

    def changes(self, collection_id: int, generation_id: int, *, since_seq: int, embed_dim: int) -> Changes:
        """What was born and what died after `since_seq`; rows that did both are left out."""
        mine = (embedding.c.collection_id == collection_id, embedding.c.generation_id == generation_id)
        with self._database.read() as connection:
            through, types = _state(connection, collection_id)
            new = (*mine, embedding.c.born_seq > since_seq, embedding.c.dead_seq.is_(None))
            images = _born(connection, "images", new, embed_dim)
            texts = _born(connection, "texts", new, embed_dim)
            dead = connection.scalars(
                select(embedding.c.id)
                .where(*mine, embedding.c.dead_seq > since_seq, embedding.c.born_seq <= since_seq)
                .order_by(embedding.c.id)
            ).all()
        return Changes(through, types, images, texts, np.array(dead, dtype=np.int64))

    def attributes(
        self, collection_id: int, generation_id: int, *, through_seq: int
    ) -> tuple[Mapping[str, Type], dict[Target, tuple[NDArray[np.int64], list[Mapping[str, Any]]]]]:
        """Types, and ids and attributes of the living embeddings born up to `through_seq`: what a segment file
        lacks."""
        where = (
            embedding.c.collection_id == collection_id,
            embedding.c.generation_id == generation_id,
            embedding.c.born_seq <= through_seq,
            embedding.c.dead_seq.is_(None),
        )
        out: dict[Target, tuple[NDArray[np.int64], list[Mapping[str, Any]]]] = {}
        with self._database.read() as connection:
            _, types = _state(connection, collection_id)
            for target in _TARGETS:
                rows = connection.execute(_join(target, where, vectors=False)).all()
                ids = np.array([row.id for row in rows], dtype=np.int64)
                out[target] = (ids, [row.attributes for row in rows])
        return types, out

    def alive(self, collection_id: int, generation_id: int) -> int:
        """How many living vectors there are."""
        with self._database.read() as connection:
            count = connection.scalar(
                select(func.count()).where(
                    embedding.c.collection_id == collection_id,
                    embedding.c.generation_id == generation_id,
                    embedding.c.dead_seq.is_(None),
                )
            )
        return int(count or 0)


_TARGETS: tuple[Target, ...] = ("images", "texts")


def _state(connection: Connection, collection_id: int) -> tuple[int, Mapping[str, Type]]:
    """(change_seq, types of attributes); a collection that is gone has neither."""
    row = connection.execute(
        select(collection.c.change_seq, collection.c.inferred_types, collection.c.declared_types).where(
            collection.c.id == collection_id
        )
    ).first()
    return (0, {}) if row is None else (row[0], {**(row[1] or {}), **(row[2] or {})})


def _join(target: Target, where: tuple[ColumnElement[bool], ...], *, vectors: bool) -> Any:
    columns = [embedding.c.id, image.c.attributes, *([embedding.c.vector] if vectors else [])]
    if target == "images":
        joined = embedding.join(image, embedding.c.image_id == image.c.id)
    else:
        joined = embedding.join(text, embedding.c.text_id == text.c.id).join(
            image, text.c.image_id == image.c.id
        )
    return select(*columns).select_from(joined).where(*where).order_by(embedding.c.id)


def _born(
    connection: Connection, target: Target, where: tuple[ColumnElement[bool], ...], embed_dim: int
) -> Born:
    ids: list[int] = []
    parts: list[bytes] = []
    attributes: list[Mapping[str, Any]] = []
    for row in _stream(connection, _join(target, where, vectors=True)):
        ids.append(row.id)
        parts.append(row.vector)
        attributes.append(row.attributes)
    vectors = np.frombuffer(b"".join(parts), dtype="<f2").reshape(len(ids), embed_dim).astype(np.float32)
    return Born(np.array(ids, dtype=np.int64), vectors, attributes)


def _stream(connection: Connection, statement: Any) -> Iterator[Any]:
    yield from connection.execute(statement, execution_options={"yield_per": 2000})
