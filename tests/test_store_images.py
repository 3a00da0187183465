import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from indexer.database import Database
from indexer.errors import NotFound
from indexer.store.captions import Captions
from indexer.store.collections import Collections
from indexer.store.images import IDS_A_QUERY, Images, NewImage
from indexer.tables import embedding
from tests.rows import DIM, exact_vectors, from_source, made, new_image

ODD_KEYS = [
    "100%",
    "100_",
    "a b",
    " lead",
    'it\'s "so"',
    "back\\slash",
    "百分之",
    "é",
    "e\u0301",
    "😀/😀",
    "k" * 512,
]
ONE = np.eye(DIM, dtype=np.float32)


def embeddings(database: Database) -> list[Any]:
    """All rows, the dead ones too, by id."""
    with database.read() as connection:
        return list(connection.execute(select(embedding).order_by(embedding.c.id)))


def alive(database: Database) -> list[int]:
    return [row.id for row in embeddings(database) if row.dead_seq is None]


def test_what_was_put_comes_back_whole(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    texts = {"a red circle": ONE[1], "a round thing": ONE[2]}
    attributes = {
        "gender": "Women",
        "price": 3.5,
        "sale": True,
        "tags": ["a", "b"],
        "n": 2**53,
        "": "empty name",
    }
    before = dt.datetime.now(dt.UTC)

    Images(any_database).put(
        shop.collection_id,
        generation_id,
        [new_image("1", ONE[0], texts=texts, attributes=attributes, sha256="b" * 64, source="/shop")],
    )

    found = Images(any_database).get(shop.collection_id, "1")
    assert (found.key, found.source, found.sha256, found.width, found.height) == (
        "1",
        "/shop",
        "b" * 64,
        64,
        48,
    )
    assert (found.title, found.texts) == ("a red circle", ("a red circle", "a round thing"))
    assert dict(found.attributes) == attributes
    assert found.created_at == found.updated_at
    assert (
        before
        <= found.created_at.replace(tzinfo=found.created_at.tzinfo or dt.UTC)
        <= dt.datetime.now(dt.UTC)
    )


def test_put_reports_what_it_added_and_what_it_replaced(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    images = Images(any_database)

    first = images.put(shop.collection_id, generation_id, [new_image("1", ONE[0]), new_image("2", ONE[1])])
    second = images.put(shop.collection_id, generation_id, [new_image("3", ONE[2]), new_image("1", ONE[3])])

    assert (first.added, first.updated, first.change_seq) == (["1", "2"], [], 1)
    assert (second.added, second.updated, second.change_seq) == (["3"], ["1"], 2)
    assert Collections(any_database).counts(shop.collection_id) == (3, 0)


def test_a_replaced_picture_has_a_new_vector_and_the_old_one_is_dead_with_its_bytes_freed(
    any_database: Database,
) -> None:
    shop, generation_id = made(any_database)
    images = Images(any_database)

    images.put(shop.collection_id, generation_id, [new_image("1", ONE[0], texts={"old": ONE[1]})])
    first = images.get(shop.collection_id, "1")
    images.put(shop.collection_id, generation_id, [new_image("1", ONE[2], texts={"new": ONE[3]})])

    old_image, old_text, new_image_row, new_text = embeddings(any_database)
    assert [(r.born_seq, r.dead_seq, r.vector) for r in (old_image, old_text)] == [(1, 2, b"")] * 2
    assert [(r.born_seq, r.dead_seq) for r in (new_image_row, new_text)] == [(2, None)] * 2
    now = images.get(shop.collection_id, "1")
    assert (now.image_id, now.created_at, now.texts) == (first.image_id, first.created_at, ("new",))
    assert now.updated_at > first.updated_at
    assert np.array_equal(images.vector(now.image_id, generation_id), ONE[2])  # type: ignore[arg-type]


def test_a_vector_is_stored_as_its_nearest_float16(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    images = Images(any_database)
    vector = np.random.default_rng(1).normal(size=DIM).astype(np.float32)

    images.put(shop.collection_id, generation_id, [new_image("1", vector)])

    found = images.vector(images.get(shop.collection_id, "1").image_id, generation_id)
    assert found is not None and found.dtype == np.float32
    assert np.array_equal(found, vector.astype(np.float16).astype(np.float32))


def test_of_many_images_in_one_put_each_has_its_own_vector_and_words(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    images = Images(any_database)
    vectors = exact_vectors(np.random.default_rng(0), 2 * 1500)
    old = [new_image(f"{i}", vectors[i], attributes={"n": i}) for i in range(0, 1500, 3)]
    images.put(shop.collection_id, generation_id, old)

    put = images.put(
        shop.collection_id,
        generation_id,
        [new_image(f"{i}", vectors[1500 + i], attributes={"n": 1500 + i}) for i in range(1500)],
    )

    assert put.updated == [f"{i}" for i in range(0, 1500, 3)]
    assert put.added == [f"{i}" for i in range(1500) if i % 3]
    found = images.find_vectors(shop.collection_id, generation_id, [f"{i}" for i in range(1500)])
    assert {key: one.vector for key, one in found.items()} == {
        f"{i}": vectors[1500 + i].astype("<f2").tobytes() for i in range(1500)
    }
    assert all(one.attributes == {"n": 1500 + int(key)} for key, one in found.items())


def test_an_image_that_is_not_there_has_no_vector(any_database: Database) -> None:
    _, generation_id = made(any_database)

    assert Images(any_database).vector(99, generation_id) is None


def test_no_embedding_id_is_used_again_even_when_the_highest_was_deleted(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    images = Images(any_database)
    seen: list[int] = []

    for _ in range(4):
        images.put(shop.collection_id, generation_id, [new_image("1", ONE[0], texts={"a": ONE[1]})])
        seen += alive(any_database)
        images.delete(shop.collection_id, ["1"])
    Collections(any_database).delete("shop")
    shop, generation_id = made(any_database)
    images.put(shop.collection_id, generation_id, [new_image("1", ONE[0])])

    seen += alive(any_database)
    assert seen == sorted(set(seen)) and len(seen) == 9


def test_each_text_keeps_its_own_vector_and_texts_their_order(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    rng = np.random.default_rng(2)
    new = [
        new_image(f"{i}", ONE[0], texts={f"{i} says {n}": exact_vectors(rng, 1)[0] for n in range(i % 5)})
        for i in range(40)
    ]

    Images(any_database).put(shop.collection_id, generation_id, new)

    found = Images(any_database).find(shop.collection_id, [n.key for n in new])
    assert {key: record.texts for key, record in found.items()} == {n.key: n.texts for n in new}
    said = Images(any_database).text_records(alive(any_database))
    vectors = {row.id: np.frombuffer(row.vector, "<f2") for row in embeddings(any_database)}
    wanted = {text: vector for n in new for text, vector in zip(n.texts, n.text_vectors, strict=True)}
    assert {r.text for r in said.values()} == set(wanted)
    assert all(np.array_equal(vectors[i], wanted[record.text]) for i, record in said.items())


def test_a_key_that_occurs_twice_in_one_put_is_refused_and_nothing_is_changed(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    images = Images(any_database)
    images.put(shop.collection_id, generation_id, [new_image("1", ONE[0])])

    with pytest.raises(ValueError, match="key '1' occurs twice"):
        images.put(shop.collection_id, generation_id, [new_image("1", ONE[1]), new_image("1", ONE[2])])

    assert len(alive(any_database)) == 1
    assert Collections(any_database).get("shop").change_seq == 1


def test_a_put_of_nothing_changes_nothing(any_database: Database) -> None:
    shop, generation_id = made(any_database)

    put = Images(any_database).put(shop.collection_id, generation_id, [])

    assert (put.added, put.updated) == ([], [])
    assert embeddings(any_database) == []


def test_a_put_into_a_collection_that_is_gone_is_refused(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    Collections(any_database).delete("shop")

    with pytest.raises(NotFound, match="there is no collection '1'"):
        Images(any_database).put(shop.collection_id, generation_id, [new_image("1", ONE[0])])


def test_a_put_that_fails_at_its_last_image_leaves_nothing_of_the_first(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    broken = new_image("2", ONE[0], perceptual_hash=(None, 90))  # type: ignore[arg-type]

    with pytest.raises(Exception, match=r"(?i)not.null"):
        Images(any_database).put(shop.collection_id, generation_id, [new_image("1", ONE[0]), broken])

    assert Images(any_database).page(shop.collection_id) == []
    assert Collections(any_database).get("shop").change_seq == 0


def test_threads_that_put_the_same_keys_at_once_leave_one_living_vector_an_image(
    any_database: Database,
) -> None:
    shop, generation_id = made(any_database)
    started = threading.Barrier(6)

    def put(number: int) -> int:
        started.wait()
        new = [new_image(k, ONE[number], texts={f"{k} by {number}": ONE[7]}) for k in "abc"]
        return Images(any_database).put(shop.collection_id, generation_id, new).change_seq

    with ThreadPoolExecutor(6) as pool:
        seqs = list(pool.map(put, range(6)))

    last = seqs.index(6)
    assert sorted(seqs) == [1, 2, 3, 4, 5, 6]
    assert {i.key: i.texts for i in Images(any_database).page(shop.collection_id)} == {
        k: (f"{k} by {last}",) for k in "abc"
    }
    assert len(alive(any_database)) == 6
    born = [row.born_seq for row in embeddings(any_database)]
    assert born == sorted(born)  # ids grow with the changes, so a tail is in their order


def test_change_seq_grows_by_one_in_each_write_that_changed_something(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    other, _ = made(any_database, "other")
    images, collections = Images(any_database), Collections(any_database)
    seqs = []

    for act in (
        lambda: images.put(shop.collection_id, generation_id, [new_image(f"{i}", ONE[0]) for i in range(9)]),
        lambda: images.put(shop.collection_id, generation_id, [new_image("1", ONE[1])]),
        lambda: images.delete(shop.collection_id, ["1", "2", "none"]),
        lambda: images.delete(shop.collection_id, ["none"]),
        lambda: collections.set(shop.collection_id, limits={}, caption_style="title"),
    ):
        act()
        seqs.append(collections.get("shop").change_seq)

    assert seqs == [1, 2, 3, 3, 3]
    assert collections.get(other.name).change_seq == 0


@pytest.mark.parametrize("key", ODD_KEYS)
def test_an_odd_key_is_found_by_itself_alone(any_database: Database, key: str) -> None:
    shop, generation_id = made(any_database)
    images = Images(any_database)
    put = [new_image(k, ONE[0], sha256=f"{i:064x}") for i, k in enumerate(ODD_KEYS)]
    images.put(shop.collection_id, generation_id, put)

    assert images.get(shop.collection_id, key).sha256 == f"{ODD_KEYS.index(key):064x}"
    assert list(images.find(shop.collection_id, [key, key + "x"])) == [key]
    assert images.delete(shop.collection_id, [key]) == [key]
    assert {i.key for i in images.page(shop.collection_id)} == set(ODD_KEYS) - {key}


def test_pages_hold_every_image_once_in_the_order_of_keys(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    other, other_generation = made(any_database, "other")
    images = Images(any_database)
    keys = [*ODD_KEYS, *(f"{i}" for i in range(30)), "A", "a", "Z", "z"]
    images.put(shop.collection_id, generation_id, [new_image(k, ONE[0], texts={k: ONE[1]}) for k in keys])
    images.put(other.collection_id, other_generation, [new_image("b", ONE[0])])

    pages, after = [], ""
    while page := images.page(shop.collection_id, after=after, limit=7):
        pages.append(page)
        after = page[-1].key

    assert [len(page) for page in pages] == [7] * 6 + [3]
    assert [i.key for page in pages for i in page] == sorted(keys)  # by code point
    assert all(i.texts == (i.key,) for page in pages for i in page)


def test_an_image_that_is_not_there_is_named(any_database: Database) -> None:
    shop, _ = made(any_database)

    with pytest.raises(NotFound, match="there is no image '100%'"):
        Images(any_database).get(shop.collection_id, "100%")


def test_more_keys_than_fit_one_query_are_found_and_deleted(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    images = Images(any_database)
    keys = [f"{i:05}" for i in range(2 * IDS_A_QUERY + 3)]
    images.put(shop.collection_id, generation_id, [new_image(k, ONE[0]) for k in keys])

    assert sorted(images.find(shop.collection_id, ["none", *keys])) == keys
    assert len(images.records(alive(any_database))) == len(keys)
    assert sorted(images.delete(shop.collection_id, ["none", *keys])) == keys
    assert alive(any_database) == []


def test_delete_returns_what_was_there_and_leaves_nothing_of_it(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    images = Images(any_database)
    pdq = (bytes(range(32)), 90)
    put = [new_image(k, ONE[0], texts={"words": ONE[1]}, perceptual_hash=pdq) for k in ("1", "2", "3")]
    images.put(shop.collection_id, generation_id, put)
    stays = images.get(shop.collection_id, "2")

    gone = images.delete(shop.collection_id, ["3", "none", "1"])

    assert sorted(gone) == ["1", "3"]
    assert images.delete(shop.collection_id, ["3", "none", "1"]) == []
    assert images.page(shop.collection_id) == [stays]
    assert Collections(any_database).counts(shop.collection_id) == (1, 1)
    assert images.perceptual_hashes(shop.collection_id)[0] == ["2"]
    assert [r.vector for r in embeddings(any_database) if r.dead_seq is not None] == [b""] * 4


def test_records_leave_out_dead_deleted_and_unknown_embeddings_and_those_of_texts(
    any_database: Database,
) -> None:
    shop, generation_id = made(any_database)
    images = Images(any_database)
    put = [new_image(k, ONE[0], texts={f"{k} says": ONE[1]}) for k in ("stays", "replaced", "deleted")]
    images.put(shop.collection_id, generation_id, put)
    images.put(shop.collection_id, generation_id, [new_image("replaced", ONE[2], texts={"anew": ONE[3]})])
    images.delete(shop.collection_id, ["deleted"])
    every = [row.id for row in embeddings(any_database)]

    found, said = images.records([*every, 10_000]), images.text_records([*every, 10_000])

    assert sorted(r.key for r in found.values()) == ["replaced", "stays"]
    assert sorted((r.text, r.image.key) for r in said.values()) == [
        ("anew", "replaced"),
        ("stays says", "stays"),
    ]
    assert sorted([*found, *said]) == alive(any_database)


def test_keys_of_a_source_are_those_that_it_put_last(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    images = Images(any_database)
    images.put(
        shop.collection_id, generation_id, [new_image(k, ONE[0], source="/100%") for k in ("1", "2", "3")]
    )
    images.put(shop.collection_id, generation_id, [new_image("2", ONE[0], source="/1000")])
    images.put(shop.collection_id, generation_id, [new_image("4", ONE[0])])

    assert from_source(images, shop, "/100%") == {"1", "3"}
    assert from_source(images, shop, "/1000") == {"2"}
    assert from_source(images, shop, "/none") == set()


def test_images_with_the_same_bytes_are_found_in_their_collection(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    other, other_generation = made(any_database, "other")
    images = Images(any_database)
    same, differs = "d" * 64, "e" * 64
    put = [new_image("2", ONE[0], sha256=same), new_image("1", ONE[0], sha256=same)]
    images.put(shop.collection_id, generation_id, [*put, new_image("3", ONE[0], sha256=differs)])
    images.put(other.collection_id, other_generation, [new_image("4", ONE[0], sha256=same)])

    assert images.with_sha256(shop.collection_id, same) == ["1", "2"]
    assert images.with_sha256(shop.collection_id, "f" * 64) == []


def test_hashes_of_a_bank_come_in_the_order_of_their_keys_without_images_that_have_none(
    any_database: Database,
) -> None:
    shop, generation_id = made(any_database)
    hashes = {"b": bytes(range(32)), "a": bytes(range(32, 64))}
    put = [new_image(k, ONE[0], perceptual_hash=(pdq, 90)) for k, pdq in hashes.items()]

    Images(any_database).put(shop.collection_id, generation_id, [*put, new_image("flat", ONE[0])])

    keys, found = Images(any_database).perceptual_hashes(shop.collection_id)
    assert keys == ["a", "b"]
    assert [row.tobytes() for row in found] == [hashes["a"], hashes["b"]]


def test_hashes_of_an_empty_bank_are_an_empty_table(any_database: Database) -> None:
    shop, _ = made(any_database)

    keys, found = Images(any_database).perceptual_hashes(shop.collection_id)

    assert (keys, found.shape) == ([], (0, 32))
    assert found.dtype == np.uint8


def test_blobs_in_use_are_own_bytes_and_thumbnails(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    own, elsewhere, thumbnail = "1" * 64, "2" * 64, "3" * 64
    put = [
        NewImage(**{**vars(new_image("own", ONE[0], sha256=own)), "locator": None}),
        NewImage(**{**vars(new_image("file", ONE[0], sha256=elsewhere)), "thumbnail_sha256": thumbnail}),
        NewImage(**{**vars(new_image("no picture", ONE[0])), "sha256": None, "locator": None}),
    ]

    Images(any_database).put(shop.collection_id, generation_id, put)

    assert Images(any_database).blobs_in_use() == {own, thumbnail}


def test_a_replaced_or_deleted_picture_loses_its_captions_and_others_keep_theirs(
    any_database: Database,
) -> None:
    shop, generation_id = made(any_database)
    images, captions = Images(any_database), Captions(any_database)
    keys = ["stays", "replaced", "deleted"]
    images.put(shop.collection_id, generation_id, [new_image(k, ONE[0]) for k in keys])
    ids = {k: record.image_id for k, record in images.find(shop.collection_id, keys).items()}
    said = {i: ("said", 0.5) for i in ids.values()}
    captions.remember(said, dict.fromkeys(ids.values(), "a" * 64), model_id="model-1", style="photo")

    images.put(shop.collection_id, generation_id, [new_image("replaced", ONE[1])])
    images.delete(shop.collection_id, ["deleted"])

    found = captions.find(list(ids.values()), model_id="model-1", style="photo")
    assert found == {ids["stays"]: ("said", 0.5)}
