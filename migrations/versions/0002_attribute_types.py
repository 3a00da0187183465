"""Types of attributes: inferred from what was put, and declared by the collection's owner."""

import json
from collections import defaultdict
from typing import Any

import sqlalchemy as sa
from alembic import op

from indexer.attributes import Type, type_of, widened

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for name in ("inferred_types", "declared_types"):
        op.add_column("collection", sa.Column(name, sa.JSON(), nullable=True))
    connection = op.get_bind()
    types: dict[int, dict[str, Type]] = defaultdict(dict)
    for row in connection.execute(sa.text("SELECT collection_id, attributes FROM image")):
        attributes: dict[str, Any] = (
            json.loads(row.attributes) if isinstance(row.attributes, str) else row.attributes
        )
        own = types[row.collection_id]
        for name, value in attributes.items():
            own[name] = widened(own.get(name), type_of(value))
    columns = (sa.column(name, sa.JSON()) for name in ("inferred_types", "declared_types"))
    collection = sa.table("collection", sa.column("id"), *columns)
    connection.execute(sa.update(collection).values(inferred_types={}, declared_types={}))
    for collection_id, own in types.items():
        connection.execute(
            sa.update(collection).where(collection.c.id == collection_id).values(inferred_types=own)
        )
