"""Generations of vectors beside each other: back-fill one while the other serves, switch, go back, drop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, select, update

from indexer.database import Database, now
from indexer.errors import Conflict, NotFound
from indexer.store.collections import EXTERNAL, Generation, new_generation
from indexer.store.embeddings import Target
from indexer.store.images import next_seq, stored_bytes
from indexer.tables import collection, embedding, generation, image, index_build, text

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class State:
    """A generation that is kept, and how far it is."""

    generation: Generation
    state: str
    """active: serves. building: is being filled. retired: has served, and can again."""
    images: int
    """Living vectors of images there are."""
    texts: int


@dataclass(frozen=True)
class Lacking:
    """An image or a text that has no vector in a generation yet."""

    image_id: int
    key: str
    text_id: int | None
    """None: the image itself."""
    text: str
    based_on: int | None
    """Of an image: its vector in the active generation; when that has died, the picture is another one."""


class Generations:
    def __init__(self, database: Database) -> None:
        self._database = database

    def start(
        self, collection_id: int, *, model_id: str, model_name: str, embed_dim: int, preprocessing: str
    ) -> Generation:
        """A second generation, to be filled; the one there is when it was started already.

        Raises Conflict when the collection is empty, has vectors of its owner's, is of this model already, or when
        another generation is being filled.
        """
        with self._database.write() as connection:
            active = _locked(connection, collection_id)
            if active is None:
                raise Conflict("the collection has no vectors yet: index it with the new model")
            kept = _kept(connection, collection_id)
            if active.model_id == EXTERNAL:
                raise Conflict("the collection holds its owner's vectors: no model makes them")
            if active.model_id == model_id:
                raise Conflict(f"the collection is of model {model_id} already")
            for one, state in kept:
                if one.model_id == model_id:
                    return one
                if state == "building":
                    raise Conflict(
                        f"generation {one.model_id} is being filled: switch to it or drop it first"
                    )
            return new_generation(
                connection,
                collection_id,
                model_id=model_id,
                model_name=model_name,
                embed_dim=embed_dim,
                preprocessing=preprocessing,
                state="building",
            )

    def kept(self, collection_id: int) -> list[State]:
        """All generations of a collection, the active one first."""
        with self._database.read() as connection:
            counts: dict[int, tuple[int, int]] = {
                row.generation_id: (row.images, row.texts)
                for row in connection.execute(
                    select(
                        embedding.c.generation_id,
                        func.count(embedding.c.image_id).label("images"),
                        func.count(embedding.c.text_id).label("texts"),
                    )
                    .where(embedding.c.collection_id == collection_id, embedding.c.dead_seq.is_(None))
                    .group_by(embedding.c.generation_id)
                )
            }
            return [
                State(one, state, *counts.get(one.generation_id, (0, 0)))
                for one, state in _kept(connection, collection_id)
            ]

    def all(self) -> set[tuple[int, int]]:
        """(collection_id, generation_id) of every one."""
        with self._database.read() as connection:
            rows = connection.execute(select(generation.c.collection_id, generation.c.id))
            return {(row.collection_id, row.id) for row in rows}

    def beside(self) -> dict[int, list[Generation]]:
        """collection_id -> its generations that are not active, for all collections that have some."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(generation).where(generation.c.state != "active").order_by(generation.c.id)
            ).all()
        out: dict[int, list[Generation]] = {}
        for row in rows:
            out.setdefault(row.collection_id, []).append(_generation(row))
        return out

    def lacking(
        self, collection_id: int, generation_id: int, target: Target, *, after: int, limit: int
    ) -> list[Lacking]:
        """Up to `limit` images, or texts, that have no vector in a generation, by id, beginning behind `after`."""
        with self._database.read() as connection:
            find = _lacking_images if target == "images" else _lacking_texts
            return find(connection, collection_id, generation_id, after, limit)

    def fill(self, collection_id: int, generation_id: int, vectors: Sequence[tuple[Lacking, Vector]]) -> int:
        """Put vectors of a generation; how many were taken. What was replaced, deleted or filled by another process
        since it was found lacking is left out."""
        with self._database.write() as connection:
            seq = next_seq(connection, collection_id)
            taken = [(one, vector) for one, vector in vectors if _still(connection, generation_id, one)]
            if not taken:
                connection.rollback()
                return 0
            connection.execute(
                insert(embedding),
                [
                    {
                        "collection_id": collection_id,
                        "generation_id": generation_id,
                        "image_id": one.image_id if one.text_id is None else None,
                        "text_id": one.text_id,
                        "vector": stored_bytes(vector),
                        "born_seq": seq,
                    }
                    for one, vector in taken
                ],
            )
        return len(taken)

    def switch(self, collection_id: int, generation_id: int) -> None:
        """Make a generation the active one, in one transaction; the one before it is retired.

        Raises Conflict while images or texts lack their vector in it, NotFound when it is not there.
        """
        with self._database.write() as connection:
            active = _locked(connection, collection_id)
            asked = next(
                (g for g, _ in _kept(connection, collection_id) if g.generation_id == generation_id), None
            )
            if asked is None or active is None:
                raise NotFound("generation", str(generation_id))
            images, texts = _lacks(connection, collection_id, generation_id)
            if images or texts:
                raise Conflict(f"{images} images and {texts} texts have no vector of {asked.model_id} yet")
            next_seq(connection, collection_id)
            for state, which in (("retired", active.generation_id), ("active", generation_id)):
                connection.execute(
                    update(generation).where(generation.c.id == which).values(state=state, switched_at=now())
                )
            connection.execute(
                update(collection).where(collection.c.id == collection_id).values(generation_id=generation_id)
            )

    def previous(self, collection_id: int) -> Generation | None:
        """The one that was active before."""
        with self._database.read() as connection:
            row = connection.execute(
                select(generation)
                .where(generation.c.collection_id == collection_id, generation.c.state == "retired")
                .order_by(generation.c.switched_at.desc())
                .limit(1)
            ).first()
        return None if row is None else _generation(row)

    def drop(self, collection_id: int) -> list[Generation]:
        """All generations but the active one, with their vectors; which they were."""
        with self._database.write() as connection:
            _locked(connection, collection_id)
            gone = [one for one, state in _kept(connection, collection_id) if state != "active"]
            ids = [one.generation_id for one in gone]
            next_seq(connection, collection_id)
            for table in (index_build, embedding):
                mine = (table.c.collection_id == collection_id, table.c.generation_id.in_(ids))
                connection.execute(delete(table).where(*mine))
            connection.execute(delete(generation).where(generation.c.id.in_(ids)))
        return gone

    def lacks(self, collection_id: int, generation_id: int) -> tuple[int, int]:
        """How many (images, texts) have no vector in a generation."""
        with self._database.read() as connection:
            return _lacks(connection, collection_id, generation_id)


def _locked(connection: Connection, collection_id: int) -> Generation | None:
    """The active generation, of a row that is locked until the transaction ends."""
    chosen = collection.c.id == collection_id
    row = connection.execute(select(collection.c.generation_id).where(chosen).with_for_update()).first()
    if row is None:
        raise NotFound("collection", str(collection_id))
    active = connection.execute(select(generation).where(generation.c.id == row.generation_id)).first()
    return None if active is None else _generation(active)


def _kept(connection: Connection, collection_id: int) -> list[tuple[Generation, str]]:
    rows = connection.execute(
        select(generation).where(generation.c.collection_id == collection_id).order_by(generation.c.id)
    ).all()
    return sorted(((_generation(row), row.state) for row in rows), key=lambda one: one[1] != "active")


def _lacks(connection: Connection, collection_id: int, generation_id: int) -> tuple[int, int]:
    own = (image.c.collection_id == collection_id, embedding.c.id.is_(None))
    images = connection.scalar(
        select(func.count()).select_from(image.outerjoin(embedding, _of_image(generation_id))).where(*own)
    )
    texts = connection.scalar(
        select(func.count())
        .select_from(
            text.join(image, text.c.image_id == image.c.id).outerjoin(embedding, _of_text(generation_id))
        )
        .where(*own)
    )
    return int(images or 0), int(texts or 0)


def _of_image(generation_id: int) -> ColumnElement[bool]:
    return and_(
        embedding.c.image_id == image.c.id,
        embedding.c.generation_id == generation_id,
        embedding.c.dead_seq.is_(None),
    )


def _of_text(generation_id: int) -> ColumnElement[bool]:
    return and_(
        embedding.c.text_id == text.c.id,
        embedding.c.generation_id == generation_id,
        embedding.c.dead_seq.is_(None),
    )


def _lacking_images(
    connection: Connection, collection_id: int, generation_id: int, after: int, limit: int
) -> list[Lacking]:
    other = embedding.alias("active")
    based_on = and_(
        other.c.image_id == image.c.id,
        other.c.generation_id == collection.c.generation_id,
        other.c.dead_seq.is_(None),
    )
    rows = connection.execute(
        select(image.c.id, image.c.key, other.c.id.label("based_on"))
        .select_from(
            image.join(collection, collection.c.id == image.c.collection_id)
            .outerjoin(embedding, _of_image(generation_id))
            .outerjoin(other, based_on)
        )
        .where(image.c.collection_id == collection_id, image.c.id > after, embedding.c.id.is_(None))
        .order_by(image.c.id)
        .limit(limit)
    ).all()
    return [Lacking(row.id, row.key, None, "", row.based_on) for row in rows]


def _lacking_texts(
    connection: Connection, collection_id: int, generation_id: int, after: int, limit: int
) -> list[Lacking]:
    rows = connection.execute(
        select(image.c.id, image.c.key, text.c.id.label("text_id"), text.c.text)
        .select_from(
            text.join(image, text.c.image_id == image.c.id).outerjoin(embedding, _of_text(generation_id))
        )
        .where(image.c.collection_id == collection_id, text.c.id > after, embedding.c.id.is_(None))
        .order_by(text.c.id)
        .limit(limit)
    ).all()
    return [Lacking(row.id, row.key, row.text_id, row.text, None) for row in rows]


def _still(connection: Connection, generation_id: int, one: Lacking) -> bool:
    """Whether what was found lacking is there as it was, and lacks its vector still."""
    mine = embedding.c.image_id == one.image_id if one.text_id is None else embedding.c.text_id == one.text_id
    has = connection.scalar(
        select(embedding.c.id).where(
            mine, embedding.c.generation_id == generation_id, embedding.c.dead_seq.is_(None)
        )
    )
    if has is not None:
        return False
    if one.text_id is not None:
        return connection.scalar(select(text.c.id).where(text.c.id == one.text_id)) is not None
    alive = select(embedding.c.id).where(embedding.c.id == one.based_on, embedding.c.dead_seq.is_(None))
    return connection.scalar(alive) is not None


def _generation(row: Row[Any]) -> Generation:
    return Generation(row.id, row.model_id, row.embed_dim, row.preprocessing, row.model_name)
