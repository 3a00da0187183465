"""Collections and banks, and the generation of vectors that each holds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from indexer.attributes import Type, stored, text_of
from indexer.database import Database, now
from indexer.errors import Conflict, NotFound
from indexer.naming import check_name
from indexer.tables import collection, generation, image, text

EXTERNAL = "external"
"""The model_id of vectors that their owner made: nothing here can make another one for their space."""


@dataclass(frozen=True)
class Generation:
    generation_id: int
    model_id: str
    embed_dim: int
    preprocessing: str
    model_name: str | None = None
    """Under which a process loads the model, where it is not the one of its settings."""


@dataclass(frozen=True)
class Collection:
    collection_id: int
    name: str
    is_bank: bool
    limits: Mapping[str, float]
    """Of a bank: near_copy (Hamming distance, at most) and similar (cosine, at least)."""
    caption_style: str | None
    """Style of its captions when a request names none."""
    inferred_types: Mapping[str, Type]
    """Of attributes: the types that hold all values ever put."""
    declared_types: Mapping[str, Type]
    """What the owner says instead."""
    generation: Generation | None
    """None until the first picture, or until it is said to hold vectors from elsewhere."""
    change_seq: int
    created_at: dt.datetime

    @property
    def types(self) -> dict[str, Type]:
        """Of every attribute."""
        return {**self.inferred_types, **self.declared_types}

    @property
    def is_external(self) -> bool:
        """Whether it holds vectors that its owner made, and no pictures."""
        return self.generation is not None and self.generation.model_id == EXTERNAL


class Collections:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str, *, is_bank: bool, limits: Mapping[str, float], caption_style: str | None = None
    ) -> Collection:
        """Raises Conflict when the name is taken, ValueError when it is no name."""
        check_name(name)
        row = {
            "name": name,
            "is_bank": is_bank,
            "limits": dict(limits),
            "caption_style": caption_style,
            "inferred_types": {},
            "declared_types": {},
            "change_seq": 0,
            "created_at": now(),
        }
        try:
            with self._database.write() as connection:
                connection.execute(insert(collection).values(row))
        except IntegrityError as error:
            raise Conflict(f"collection {name!r} exists already") from error
        return self.get(name)

    def get(self, name: str) -> Collection:
        """Raises NotFound."""
        found = self.find(name)
        if found is None:
            raise NotFound("collection", name)
        return found

    def find(self, name: str) -> Collection | None:
        with self._database.read() as connection:
            row = connection.execute(_NAMED, {"name": name}).first()
        return None if row is None else _collection(row)

    def all(self) -> list[Collection]:
        """By name."""
        with self._database.read() as connection:
            return [_collection(row) for row in connection.execute(_select().order_by(collection.c.name))]

    def set(self, collection_id: int, *, limits: Mapping[str, float], caption_style: str | None) -> None:
        with self._database.write() as connection:
            connection.execute(
                update(collection)
                .where(collection.c.id == collection_id)
                .values(limits=dict(limits), caption_style=caption_style)
            )

    def declare_types(self, collection_id: int, types: Mapping[str, Type | None]) -> None:
        """Say what attributes are; None takes back what was said. Views take it up as any change.

        Raises Conflict, naming an image, when a value that is there cannot be of its new type.
        """
        with self._database.write() as connection:
            chosen = collection.c.id == collection_id
            row = connection.execute(select(collection).where(chosen).with_for_update()).first()
            if row is None:
                raise NotFound("collection", str(collection_id))
            declared = {k: v for k, v in {**(row.declared_types or {}), **types}.items() if v is not None}
            if declared == row.declared_types:
                return
            _check_values(connection, collection_id, {k: v for k, v in types.items() if v is not None})
            connection.execute(
                update(collection)
                .where(chosen)
                .values(declared_types=declared, change_seq=collection.c.change_seq + 1)
            )

    def delete(self, name: str) -> None:
        """With everything in it. Raises NotFound."""
        with self._database.write() as connection:
            gone = connection.execute(delete(collection).where(collection.c.name == name))
            if gone.rowcount == 0:
                raise NotFound("collection", name)

    def counts(self, collection_id: int) -> tuple[int, int]:
        """(images, texts) there are."""
        in_collection = image.c.collection_id == collection_id
        with self._database.read() as connection:
            images = connection.scalar(select(func.count()).select_from(image).where(in_collection))
            texts = connection.scalar(
                select(func.count())
                .select_from(text.join(image, text.c.image_id == image.c.id))
                .where(in_collection)
            )
        return int(images or 0), int(texts or 0)

    def ensure_generation(
        self, collection_id: int, *, model_id: str, embed_dim: int, preprocessing: str
    ) -> Generation:
        """The active generation; made for this model when there is none.

        Raises Conflict when the vectors that are there come from another model.
        """
        with self._database.write() as connection:
            chosen = collection.c.id == collection_id
            # Locked by itself: PostgreSQL would look again at the locked row, but not at what was joined to it.
            connection.execute(select(collection.c.id).where(chosen).with_for_update())
            row = connection.execute(_select().where(chosen)).first()
            if row is None:
                raise NotFound("collection", str(collection_id))
            found = _collection(row)
            check_generation(found, model_id=model_id, embed_dim=embed_dim)
            if found.generation is not None:
                return found.generation
            return new_generation(
                connection,
                collection_id,
                model_id=model_id,
                embed_dim=embed_dim,
                preprocessing=preprocessing,
            )

    def make_external(self, collection_id: int, embed_dim: int) -> Generation:
        """Let the collection hold vectors of this dimension that its owner made.

        Raises Conflict when it is a bank or holds other vectors.
        """
        return self.ensure_generation(
            collection_id, model_id=EXTERNAL, embed_dim=embed_dim, preprocessing=EXTERNAL
        )


def check_generation(collection: Collection, *, model_id: str, embed_dim: int) -> None:
    """Raises Conflict unless vectors of this model and dimension may go into the collection."""
    there, name = collection.generation, collection.name
    if model_id == EXTERNAL and collection.is_bank:
        raise Conflict(f"{name!r} is a bank, which compares pictures: put vectors into another collection")
    if there is None or (there.model_id, there.embed_dim) == (model_id, embed_dim):
        return
    if there.model_id == EXTERNAL == model_id:
        raise Conflict(
            f"collection {name!r} holds vectors of {there.embed_dim} numbers, these have {embed_dim}: "
            "put them into another collection"
        )
    if there.model_id == EXTERNAL:
        raise Conflict(
            f"collection {name!r} holds vectors that its owner made, of {there.embed_dim} numbers: "
            "put pictures into another collection"
        )
    if model_id == EXTERNAL:
        raise Conflict(
            f"collection {name!r} holds vectors of {there.model_id}: put vectors from elsewhere into another one"
        )
    raise Conflict(
        f"collection {name!r} holds vectors of {there.model_id}, this process runs {model_id}: "
        "delete the collection and index it again, or run the model it was made with"
    )


def _check_values(connection: Connection, collection_id: int, types: Mapping[str, Type]) -> None:
    asked = select(image.c.key, image.c.attributes).where(image.c.collection_id == collection_id)
    with connection.execute(asked, execution_options={"yield_per": 2000}) as rows:
        for row in rows:
            for name, kind in types.items():
                try:
                    stored(row.attributes.get(name), kind)
                except ValueError as error:
                    said = text_of(row.attributes[name])
                    raise Conflict(
                        f"{name} cannot be of type {kind}: of image {row.key!r} it is {said!r}, which {error}"
                    ) from None


def new_generation(
    connection: Connection,
    collection_id: int,
    *,
    model_id: str,
    embed_dim: int,
    preprocessing: str,
    model_name: str | None = None,
    state: str = "active",
) -> Generation:
    """`model_name`: under which other processes load the model, where it is not the one of their settings."""
    values = {
        "collection_id": collection_id,
        "model_id": model_id,
        "embed_dim": embed_dim,
        "preprocessing": preprocessing,
        "model_name": model_name,
        "state": state,
        "created_at": now(),
    }
    made = connection.execute(insert(generation).values(values).returning(generation.c.id)).scalar_one()
    if state == "active":
        chosen = collection.c.id == collection_id
        connection.execute(update(collection).where(chosen).values(generation_id=made))
    return Generation(made, model_id, embed_dim, preprocessing, model_name)


def _select() -> Any:
    return select(
        collection,
        generation.c.model_id,
        generation.c.embed_dim,
        generation.c.preprocessing,
        generation.c.model_name,
    ).select_from(collection.outerjoin(generation, collection.c.generation_id == generation.c.id))


_NAMED = _select().where(collection.c.name == bindparam("name"))
"""Made once: every request asks it."""


def _collection(row: Row[Any]) -> Collection:
    active = (
        None
        if row.model_id is None
        else Generation(row.generation_id, row.model_id, row.embed_dim, row.preprocessing, row.model_name)
    )
    return Collection(
        row.id,
        row.name,
        row.is_bank,
        row.limits,
        row.caption_style,
        row.inferred_types or {},
        row.declared_types or {},
        active,
        row.change_seq,
        row.created_at,
    )
