"""Captions that were generated before; a picture that changes loses its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import insert, select

from indexer.database import Database
from indexer.tables import caption, collection, image

Remembered = tuple[str, float]
"""(text, score)"""


class Captions:
    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, image_ids: Sequence[int], *, model_id: str, style: str) -> dict[int, Remembered]:
        with self._database.read() as connection:
            rows = connection.execute(
                select(caption).where(
                    caption.c.image_id.in_(image_ids),
                    caption.c.model_id == model_id,
                    caption.c.style == style,
                )
            )
            return {row.image_id: (row.text, row.score) for row in rows}

    def remember(
        self, captions: Mapping[int, Remembered], sha256: Mapping[int, str], *, model_id: str, style: str
    ) -> None:
        """Keep captions of pictures that are still the ones with these bytes and have none yet."""
        with self._database.write() as connection:
            ids = list(captions)
            # Locked as a put locks them: no picture changes meanwhile, and another process's captions are seen.
            owners = select(image.c.collection_id).where(image.c.id.in_(ids))
            connection.execute(
                select(collection.c.id)
                .where(collection.c.id.in_(owners))
                .order_by(collection.c.id)
                .with_for_update()
            )
            now = connection.execute(select(image.c.id, image.c.sha256).where(image.c.id.in_(ids)))
            same = {row.id for row in now if row.sha256 == sha256[row.id]}
            there = connection.scalars(
                select(caption.c.image_id).where(
                    caption.c.image_id.in_(ids), caption.c.model_id == model_id, caption.c.style == style
                )
            )
            rows = [
                {
                    "image_id": i,
                    "model_id": model_id,
                    "style": style,
                    "text": captions[i][0],
                    "score": captions[i][1],
                }
                for i in same - set(there)
            ]
            if rows:
                connection.execute(insert(caption), rows)
