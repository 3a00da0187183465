"""Alembic's entry: on the connection that Database hands over, or on the URL given with -x url=…"""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine

from indexer.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    url = context.get_x_argument(as_dictionary=True).get("url", "sqlite:///data/textmm.sqlite")
    connection = create_engine(url).connect()
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
