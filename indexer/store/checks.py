"""Questions whose answer must be nothing: what the rows must keep to among themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, or_, select
from sqlalchemy import text as sql
from sqlalchemy.exc import DatabaseError

from indexer.database import Database
from indexer.store.collections import Collection
from indexer.store.embeddings import Target
from indexer.tables import embedding, image, text

SHOWN = 5
"""Examples in a message."""


@dataclass(frozen=True)
class IndexedRows:
    """What an index file through some change must hold."""

    ids: NDArray[np.int64]
    """Ascending: born by then and not dead by then."""
    living: NDArray[np.int64]
    """Those of them that live still."""
    vectors: NDArray[np.float16]
    """[living, embed_dim]"""


class Checks:
    def __init__(self, database: Database) -> None:
        self._database = database

    def of_the_file(self) -> list[str]:
        """What SQLite finds wrong in its own file; PostgreSQL keeps watch itself."""
        if not self._database.is_sqlite:
            return []
        try:
            with self._database.read() as connection:
                said = connection.scalars(sql("PRAGMA integrity_check")).all()
                broken = connection.execute(sql("PRAGMA foreign_key_check")).all()
        except DatabaseError as error:
            return [str(error.orig)]
        found = [str(one) for one in said if one != "ok"]
        return found + [
            f"row {row[1]} of table {row[0]} refers to a {row[2]} that is not there" for row in broken
        ]

    def of_rows(self, one: Collection) -> list[str]:
        """Each image and text of a collection has one living vector of the right length; no vector lives alone."""
        if one.generation is None:
            return []
        with self._database.read() as connection:
            return list(_wrong(connection, one))

    def indexed(self, one: Collection, target: Target, *, from_seq: int, through_seq: int) -> IndexedRows:
        assert one.generation is not None
        owner = embedding.c.image_id if target == "images" else embedding.c.text_id
        mine = (
            embedding.c.collection_id == one.collection_id,
            embedding.c.generation_id == one.generation.generation_id,
            owner.is_not(None),
            embedding.c.born_seq > from_seq,
            embedding.c.born_seq <= through_seq,
            or_(embedding.c.dead_seq.is_(None), embedding.c.dead_seq > through_seq),
        )
        with self._database.read() as connection:
            asked = (
                select(embedding.c.id, embedding.c.dead_seq, embedding.c.vector)
                .where(*mine)
                .order_by(embedding.c.id)
            )
            rows = connection.execute(asked, execution_options={"yield_per": 5000})
            ids: list[int] = []
            living: list[int] = []
            parts: list[bytes] = []
            size = 2 * one.generation.embed_dim  # others are told by `of_rows`
            for row in rows:
                ids.append(row.id)
                if row.dead_seq is None and len(row.vector) == size:
                    living.append(row.id)
                    parts.append(row.vector)
        vectors = np.frombuffer(b"".join(parts), dtype="<f2").reshape(len(living), one.generation.embed_dim)
        return IndexedRows(np.array(ids, dtype=np.int64), np.array(living, dtype=np.int64), vectors)


def _wrong(connection: Connection, one: Collection) -> Iterator[str]:
    assert one.generation is not None
    generation_id, dim = one.generation.generation_id, one.generation.embed_dim
    mine = embedding.c.collection_id == one.collection_id
    lives = embedding.c.dead_seq.is_(None) & (embedding.c.generation_id == generation_id)
    counts = func.count(embedding.c.id)
    for what, name, table, owner in (
        ("image", image.c.key, image, embedding.c.image_id),
        ("text of image", image.c.key, text.join(image, text.c.image_id == image.c.id), embedding.c.text_id),
    ):
        owned = image.c.id if what == "image" else text.c.id
        found = connection.execute(
            select(name, counts)
            .select_from(table.outerjoin(embedding, (owner == owned) & lives))
            .where(image.c.collection_id == one.collection_id)
            .group_by(owned, name)
            .having(counts != 1)
        ).all()
        yield from _told(f"{what} with not one living vector", [f"{key!r} has {n}" for key, n in found])
    for what, owner, table in (
        ("image", embedding.c.image_id, image),
        ("text", embedding.c.text_id, text),
    ):
        alone = connection.scalars(
            select(embedding.c.id).where(
                mine, embedding.c.dead_seq.is_(None), owner.is_not(None), owner.not_in(select(table.c.id))
            )
        ).all()
        yield from _told(f"living vector whose {what} is gone", [str(i) for i in alone])
    short = connection.execute(
        select(embedding.c.id, func.length(embedding.c.vector)).where(
            mine, lives, func.length(embedding.c.vector) != 2 * dim
        )
    ).all()
    yield from _told(f"vector that is not {2 * dim} bytes long", [f"{i} has {n}" for i, n in short])


def _told(what: str, found: list[str]) -> Iterator[str]:
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        yield f"{what}: {', '.join(found[:SHOWN])}{more}"
