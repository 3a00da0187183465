"""Every table. The database is the truth; index files are a cache of it."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

BIG = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits everywhere; SQLite grows keys by itself only for INTEGER."""
TIME = DateTime(timezone=True)

collection = Table(
    "collection",
    metadata,
    Column("id", BIG, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("is_bank", Boolean, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("caption_style", Text, nullable=True),
    Column("generation_id", BIG, nullable=True),
    Column("change_seq", BIG, nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("inferred_types", JSON, nullable=True),
    Column("declared_types", JSON, nullable=True),
    sqlite_autoincrement=True,
)

generation = Table(
    "generation",
    metadata,
    Column("id", BIG, primary_key=True),
    Column("collection_id", BIG, ForeignKey("collection.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("model_id", Text, nullable=False),
    Column("embed_dim", Integer, nullable=False),
    Column("preprocessing", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("model_name", Text, nullable=True),  # under which processes load it, where it is not their own
    Column("switched_at", TIME, nullable=True),
    sqlite_autoincrement=True,
)

image = Table(
    "image",
    metadata,
    Column("id", BIG, primary_key=True),
    Column("collection_id", BIG, ForeignKey("collection.id", ondelete="CASCADE"), nullable=False),
    Column("key", Text, nullable=False),
    Column("source", Text, nullable=True),
    Column("sha256", Text, nullable=True),  # this and its size: NULL where there is a vector and no picture
    Column("width", Integer, nullable=True),
    Column("height", Integer, nullable=True),
    Column("locator", Text, nullable=True),
    Column("thumbnail_sha256", Text, nullable=True),
    Column("title", Text, nullable=True),
    Column("attributes", JSON, nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("updated_at", TIME, nullable=False),
    UniqueConstraint("collection_id", "key"),
    Index("ix_image_sha256", "sha256"),
    Index("ix_image_thumbnail_sha256", "thumbnail_sha256"),
    sqlite_autoincrement=True,
)

text = Table(
    "text",
    metadata,
    Column("id", BIG, primary_key=True),
    Column("image_id", BIG, ForeignKey("image.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("ordinal", Integer, nullable=False),
    Column("text", Text, nullable=False),
    sqlite_autoincrement=True,
)

# embedding.id is the FAISS id and never used again (autoincrement): a replaced picture gets a new row and the
# old one a dead_seq, so a stale index can never show the wrong picture.
embedding = Table(
    "embedding",
    metadata,
    Column("id", BIG, primary_key=True),
    Column("collection_id", BIG, ForeignKey("collection.id", ondelete="CASCADE"), nullable=False),
    Column("generation_id", BIG, ForeignKey("generation.id", ondelete="CASCADE"), nullable=False),
    Column("image_id", BIG, nullable=True, index=True),
    Column("text_id", BIG, nullable=True, index=True),
    Column("vector", LargeBinary, nullable=False),
    Column("born_seq", BIG, nullable=False),
    Column("dead_seq", BIG, nullable=True),
    Index("ix_embedding_born", "collection_id", "generation_id", "born_seq"),
    Index("ix_embedding_dead", "collection_id", "generation_id", "dead_seq"),
    sqlite_autoincrement=True,
)

caption = Table(
    "caption",
    metadata,
    Column("image_id", BIG, ForeignKey("image.id", ondelete="CASCADE"), primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("style", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("score", Float, nullable=False),
)

perceptual_hash = Table(
    "perceptual_hash",
    metadata,
    Column("image_id", BIG, ForeignKey("image.id", ondelete="CASCADE"), primary_key=True),
    Column("pdq", LargeBinary, nullable=False),
    Column("quality", Integer, nullable=False),
)

# One segment each: the rows born after from_seq and up to through_seq. Those in use form a chain from 0 on.
index_build = Table(
    "index_build",
    metadata,
    Column("id", BIG, primary_key=True),
    Column("collection_id", BIG, ForeignKey("collection.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("generation_id", BIG, ForeignKey("generation.id", ondelete="CASCADE"), nullable=False),
    Column("target", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("files", JSON, nullable=False),
    Column("from_seq", BIG, nullable=False),
    Column("through_seq", BIG, nullable=False),
    Column("rows", BIG, nullable=False),
    Column("measured", JSON, nullable=False),
    Column("created_at", TIME, nullable=False),
    sqlite_autoincrement=True,
)

# Running servers and the models each can serve; a switch of generations asks them all.
process = Table(
    "process",
    metadata,
    Column("name", Text, primary_key=True),
    Column("models", JSON, nullable=False),
    Column("seen_at", TIME, nullable=False),
)
