import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from indexer.database import Database
from indexer.tables import metadata

ROOT = Path(__file__).parent.parent
ALEMBIC = "from alembic.config import main; main()"


def differences(database: Database) -> list[object]:
    """What a migration would have to do for the database to equal indexer.tables."""
    with database.read() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        found: list[object] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    return found


def test_a_fresh_database_that_is_upgraded_equals_the_tables(any_database: Database) -> None:
    assert differences(any_database) == []


def test_a_table_that_lacks_an_index_is_found_different(any_database: Database) -> None:
    with any_database.write() as connection:
        connection.execute(text("DROP INDEX ix_embedding_born"))

    assert [change[0] for change in differences(any_database) if isinstance(change, tuple)] == ["add_index"]


def test_rows_of_an_older_schema_are_there_after_the_upgrade_and_a_picture_need_not_be(bare_url: str) -> None:
    database = Database(bare_url)
    database.upgrade_to("0002")
    with database.write() as connection:
        connection.execute(
            text(
                "INSERT INTO collection (id, name, is_bank, limits, change_seq, created_at) "
                "VALUES (1, 'shop', false, '{}', 3, '2026-01-01')"
            )
        )
        connection.execute(text(IMAGE.format(1, "'abc', 2, 3")))
        connection.execute(text("INSERT INTO text (id, image_id, ordinal, text) VALUES (1, 1, 0, 'words')"))

    database.upgrade()
    with database.write() as connection:
        connection.execute(text(IMAGE.format(2, "NULL, NULL, NULL")))

    again = Database(bare_url)
    with again.read() as connection:
        images = connection.execute(text("SELECT id, sha256, width, height FROM image ORDER BY id")).all()
        assert [tuple(row) for row in images] == [(1, "abc", 2, 3), (2, None, None, None)]
        assert connection.scalar(text("SELECT text FROM text")) == "words"
    assert differences(again) == []
    database.close()
    again.close()


IMAGE = (
    "INSERT INTO image (id, collection_id, key, sha256, width, height, attributes, created_at, updated_at) "
    "VALUES ({0}, 1, 'k{0}', {1}, '{{}}', '2026-01-01', '2026-01-01')"
)


def test_keys_grow_by_themselves_and_sqlite_uses_none_again(database: Database) -> None:
    with database.read() as connection:
        made = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")).all()

    growing = {name for name, sql in made if "AUTOINCREMENT" in sql}
    assert growing == {table.name for table in metadata.tables.values() if "id" in table.c}


def test_everything_of_a_collection_is_bound_to_go_with_it(any_database: Database) -> None:
    with any_database.read() as connection:
        found = inspect(connection)
        keys = {
            (table, key["referred_table"], key["options"].get("ondelete"))
            for table in metadata.tables
            for key in found.get_foreign_keys(table)
        }

    assert keys == {
        ("generation", "collection", "CASCADE"),
        ("image", "collection", "CASCADE"),
        ("text", "image", "CASCADE"),
        ("caption", "image", "CASCADE"),
        ("perceptual_hash", "image", "CASCADE"),
        ("embedding", "collection", "CASCADE"),
        ("embedding", "generation", "CASCADE"),
        ("index_build", "collection", "CASCADE"),
        ("index_build", "generation", "CASCADE"),
    }


def test_a_current_database_is_known_without_alembic_and_alembic_agrees(database: Database) -> None:
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    with database.read() as connection:
        (found,) = connection.execute(text("SELECT version_num FROM alembic_version")).scalars()

    database.check()
    assert found == scripts.get_current_head()


@pytest.mark.slow
def test_alembics_own_command_upgrades_the_database_it_is_given(bare_url: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", ALEMBIC, "-x", f"url={bare_url}", "upgrade", "head"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran.stderr
    database = Database(bare_url)
    database.check()
    assert differences(database) == []
    database.close()
