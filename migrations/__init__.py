"""Alembic migrations, run through indexer.database."""
