"""Segments by ranges of changes; images without a picture; generations beside each other, and who can serve which."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _make_index_build_anew()
    op.add_column("generation", sa.Column("model_name", sa.Text(), nullable=True))
    op.add_column("generation", sa.Column("switched_at", TIME, nullable=True))
    op.create_table(
        "process",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_process")),
    )
    for column, kind in (("sha256", "TEXT"), ("width", "INTEGER"), ("height", "INTEGER")):
        _allow_null("image", column, kind)


def _make_index_build_anew() -> None:
    """Records of files in a format that is no longer read: a cache, built again from the rows."""
    op.drop_table("index_build")
    op.create_table(
        "index_build",
        sa.Column("id", BIG, nullable=False),
        sa.Column("collection_id", BIG, nullable=False),
        sa.Column("generation_id", BIG, nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("from_seq", BIG, nullable=False),
        sa.Column("through_seq", BIG, nullable=False),
        sa.Column("rows", BIG, nullable=False),
        sa.Column("measured", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
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


def _allow_null(table: str, column: str, kind: str) -> None:
    """In SQLite by the documented way that rewrites no rows (lang_altertable.html, section 7): making the table anew
    would delete what refers to it."""
    if op.get_context().dialect.name != "sqlite":
        op.alter_column(table, column, nullable=True)
        return
    connection = op.get_bind()
    version = connection.scalar(sa.text("PRAGMA schema_version"))
    connection.execute(sa.text("PRAGMA writable_schema=ON"))
    changed = connection.execute(
        sa.text(
            "UPDATE sqlite_schema SET sql = replace(sql, :old, :new) "
            "WHERE type = 'table' AND name = :table AND instr(sql, :old)"
        ),
        {"old": f"{column} {kind} NOT NULL", "new": f"{column} {kind}", "table": table},
    )
    if changed.rowcount != 1:
        raise RuntimeError(f"table {table} is not as migration 0001 made it: {column} is no {kind} NOT NULL")
    connection.execute(sa.text(f"PRAGMA schema_version={version + 1}"))
    connection.execute(sa.text("PRAGMA writable_schema=RESET"))
