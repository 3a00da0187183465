import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import func, select

from indexer.database import Database
from indexer.errors import Conflict, NotFound
from indexer.store.builds import Build, Builds, Link
from indexer.store.captions import Captions
from indexer.store.collections import Collections, Generation
from indexer.store.images import Images
from indexer.tables import metadata, process
from tests.rows import DIM, LIMITS, made, new_image

ONE = np.eye(DIM, dtype=np.float32)


def test_a_new_collection_is_empty_and_found_by_its_name(any_database: Database) -> None:
    collections = Collections(any_database)

    created = collections.create("shop", is_bank=True, limits=LIMITS, caption_style="title")

    assert (created.name, created.is_bank, dict(created.limits)) == ("shop", True, LIMITS)
    assert (created.caption_style, created.generation, created.change_seq) == ("title", None, 0)
    assert collections.counts(created.collection_id) == (0, 0)
    assert collections.get("shop") == collections.find("shop") == created
    assert collections.find("Shop") is None


def test_collections_come_by_name(any_database: Database) -> None:
    collections = Collections(any_database)
    for name in ("b", "c", "a", "B"):
        collections.create(name, is_bank=False, limits={})

    assert [c.name for c in collections.all()] == ["B", "a", "b", "c"]


def test_a_name_that_is_taken_is_a_conflict(any_database: Database) -> None:
    Collections(any_database).create("shop", is_bank=False, limits={})

    with pytest.raises(Conflict, match="collection 'shop' exists already"):
        Collections(any_database).create("shop", is_bank=True, limits={})


def test_what_is_no_name_is_refused(any_database: Database) -> None:
    with pytest.raises(ValueError, match="collection name 'a/b'"):
        Collections(any_database).create("a/b", is_bank=False, limits={})


def test_a_collection_that_is_not_there_is_named(any_database: Database) -> None:
    with pytest.raises(NotFound, match="there is no collection 'shop'"):
        Collections(any_database).get("shop")
    with pytest.raises(NotFound, match="there is no collection 'shop'"):
        Collections(any_database).delete("shop")
    with pytest.raises(NotFound, match="there is no collection '7'"):
        Collections(any_database).ensure_generation(7, model_id="m", embed_dim=8, preprocessing="squash-32")


def test_limits_and_caption_style_can_be_set_anew(any_database: Database) -> None:
    shop, _ = made(any_database)

    Collections(any_database).set(shop.collection_id, limits={"similar": 0.8}, caption_style="title")

    found = Collections(any_database).get("shop")
    assert (dict(found.limits), found.caption_style) == ({"similar": 0.8}, "title")


def test_the_first_model_makes_the_generation_and_is_the_only_one_from_then_on(
    any_database: Database,
) -> None:
    collections = Collections(any_database)
    shop = collections.create("shop", is_bank=False, limits={})

    first = collections.ensure_generation(
        shop.collection_id, model_id="mini-1", embed_dim=256, preprocessing="squash-224"
    )
    again = collections.ensure_generation(
        shop.collection_id, model_id="mini-1", embed_dim=256, preprocessing="squash-224"
    )

    assert first == again == Generation(first.generation_id, "mini-1", 256, "squash-224")
    assert collections.get("shop").generation == first
    with pytest.raises(
        Conflict, match="holds vectors of mini-1, this process runs mini-2: delete the collection"
    ):
        collections.ensure_generation(
            shop.collection_id, model_id="mini-2", embed_dim=256, preprocessing="squash-224"
        )
    assert collections.get("shop").generation == first


def test_threads_that_need_the_first_generation_at_once_get_the_same(any_database: Database) -> None:
    shop = Collections(any_database).create("shop", is_bank=False, limits={})
    started = threading.Barrier(6)

    def ensure(_: int) -> Generation:
        started.wait()
        return Collections(any_database).ensure_generation(
            shop.collection_id, model_id="mini-1", embed_dim=8, preprocessing="squash-32"
        )

    with ThreadPoolExecutor(6) as pool:
        found = set(pool.map(ensure, range(6)))

    assert len(found) == 1


def test_counts_are_of_the_collection_alone(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    made(any_database, "other")
    put = [new_image("1", ONE[0], texts={"a": ONE[1], "b": ONE[2]}), new_image("2", ONE[0])]

    Images(any_database).put(shop.collection_id, generation_id, put)

    counts = {
        c.name: Collections(any_database).counts(c.collection_id) for c in Collections(any_database).all()
    }
    assert counts == {"shop": (2, 2), "other": (0, 0)}


def test_a_deleted_collection_leaves_no_row_and_another_keeps_all_of_its_own(any_database: Database) -> None:
    fill(any_database, "stays")
    before = rows(any_database)
    fill(any_database, "goes")
    assert rows(any_database) == {table: 2 * n for table, n in before.items()}
    assert all(before.values())

    Collections(any_database).delete("goes")

    assert rows(any_database) == before
    assert [c.name for c in Collections(any_database).all()] == ["stays"]


def fill(database: Database, name: str) -> None:
    """A collection with a row in every table that is of collections."""
    collection, generation_id = made(database, name)
    images = Images(database)
    new = new_image("1", ONE[0], texts={"words": ONE[1]}, perceptual_hash=(bytes(32), 90))
    images.put(collection.collection_id, generation_id, [new])
    image_id = images.get(collection.collection_id, "1").image_id
    Captions(database).remember(
        {image_id: ("said", 0.5)}, {image_id: "a" * 64}, model_id="model-1", style="photo"
    )
    build = Build("file", {}, "exact", 1, {})
    Builds(database).publish(collection.collection_id, generation_id, Link(0, 1, {"images": build}))


def rows(database: Database) -> dict[str, int]:
    with database.read() as connection:
        return {
            table.name: connection.scalars(select(func.count()).select_from(table)).one()
            for table in metadata.sorted_tables
            if table is not process
        }


def test_declared_types_count_as_a_change_and_are_refused_when_a_value_does_not_fit(
    any_database: Database,
) -> None:
    shop, generation_id = made(any_database)
    collections, images = Collections(any_database), Images(any_database)

    images.put(
        shop.collection_id, generation_id, [new_image("a", ONE[0], attributes={"size": "4", "price": 3})]
    )
    images.put(
        shop.collection_id, generation_id, [new_image("b", ONE[0], attributes={"size": "10", "new": True})]
    )

    collections.declare_types(shop.collection_id, {"size": "number", "later": "datetime"})
    declared = collections.get("shop")
    collections.declare_types(shop.collection_id, {"size": "number"})  # nothing new
    with pytest.raises(
        Conflict, match="price cannot be of type datetime: of image 'a' it is '3', which is no date"
    ):
        collections.declare_types(shop.collection_id, {"price": "datetime", "size": None})
    collections.declare_types(shop.collection_id, {"size": None})
    taken_back = collections.get("shop")

    assert declared.types == {"size": "number", "price": "number", "new": "bool", "later": "datetime"}
    assert (declared.change_seq, taken_back.change_seq) == (3, 4)
    assert taken_back.types == {"size": "string", "price": "number", "new": "bool", "later": "datetime"}
    with pytest.raises(NotFound):
        collections.declare_types(99, {"size": "number"})
