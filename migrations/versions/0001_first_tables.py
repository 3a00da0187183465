"""The first tables: collections, generations, images with texts and vectors, captions, hashes, index builds."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "collection",
        sa.Column("id", BIG, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_bank", sa.Boolean(), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("caption_style", sa.Text(), nullable=True),
        sa.Column("generation_id", BIG, nullable=True),
        sa.Column("change_seq", BIG, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collection")),
        sa.UniqueConstraint("name", name=op.f("uq_collection_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "generation",
        sa.Column("id", BIG, nullable=False),
        sa.Column("collection_id", BIG, nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("embed_dim", sa.Integer(), nullable=False),
        sa.Column("preprocessing", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collection.id"], name=op.f("fk_generation_collection_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generation")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_generation_collection_id"), "generation", ["collection_id"], unique=False)
    op.create_table(
        "image",
        sa.Column("id", BIG, nullable=False),
        sa.Column("collection_id", BIG, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("locator", sa.Text(), nullable=True),
        sa.Column("thumbnail_sha256", sa.Text(), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collection.id"], name=op.f("fk_image_collection_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
        sa.UniqueConstraint("collection_id", "key", name=op.f("uq_image_collection_id_key")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_image_sha256", "image", ["sha256"], unique=False)
    op.create_index("ix_image_thumbnail_sha256", "image", ["thumbnail_sha256"], unique=False)
    op.create_table(
        "caption",
        sa.Column("image_id", BIG, nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("style", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_caption_image_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image_id", "model_id", "style", name=op.f("pk_caption")),
    )
    op.create_table(
        "embedding",
        sa.Column("id", BIG, nullable=False),
        sa.Column("collection_id", BIG, nullable=False),
        sa.Column("generation_id", BIG, nullable=False),
        sa.Column("image_id", BIG, nullable=True),
        sa.Column("text_id", BIG, nullable=True),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("born_seq", BIG, nullable=False),
        sa.Column("dead_seq", BIG, nullable=True),
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collection.id"], name=op.f("fk_embedding_collection_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["generation_id"], ["generation.id"], name=op.f("fk_embedding_generation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_embedding")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_embedding_born", "embedding", ["collection_id", "generation_id", "born_seq"], unique=False
    )
    op.create_index(
        "ix_embedding_dead", "embedding", ["collection_id", "generation_id", "dead_seq"], unique=False
    )
    op.create_index(op.f("ix_embedding_image_id"), "embedding", ["image_id"], unique=False)
    op.create_index(op.f("ix_embedding_text_id"), "embedding", ["text_id"], unique=False)
    op.create_table(
        "index_build",
        sa.Column("id", BIG, nullable=False),
        sa.Column("collection_id", BIG, nullable=False),
        sa.Column("generation_id", BIG, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("through_seq", BIG, nullable=False),
        sa.Column("rows", BIG, nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("measured", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collection.id"],
            name=op.f("fk_index_build_collection_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["generation.id"],
            name=op.f("fk_index_build_generation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_index_build")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_index_build_collection_id"), "index_build", ["collection_id"], unique=False)
    op.create_table(
        "perceptual_hash",
        sa.Column("image_id", BIG, nullable=False),
        sa.Column("pdq", sa.LargeBinary(), nullable=False),
        sa.Column("quality", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_perceptual_hash_image_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_perceptual_hash")),
    )
    op.create_table(
        "text",
        sa.Column("id", BIG, nullable=False),
        sa.Column("image_id", BIG, nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_text_image_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_text")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_text_image_id"), "text", ["image_id"], unique=False)
