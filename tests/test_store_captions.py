import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from indexer.database import Database
from indexer.store.captions import Captions
from indexer.store.images import Images
from tests.rows import DIM, made, new_image

ONE = np.eye(DIM, dtype=np.float32)
BYTES = "a" * 64


def images_in(database: Database, keys: list[str]) -> list[int]:
    """Ids of new images under these keys, all with the same bytes."""
    shop, generation_id = made(database)
    images = Images(database)
    images.put(shop.collection_id, generation_id, [new_image(k, ONE[0], sha256=BYTES) for k in keys])
    found = images.find(shop.collection_id, keys)
    return [found[k].image_id for k in keys]


def test_what_was_remembered_is_found_by_model_and_style(any_database: Database) -> None:
    one, two, three = images_in(any_database, ["1", "2", "3"])
    captions = Captions(any_database)
    bytes_of = dict.fromkeys((one, two), BYTES)

    captions.remember({one: ("a", 0.25), two: ("b", -0.5)}, bytes_of, model_id="m", style="photo")
    captions.remember({one: ("A", 1.0)}, bytes_of, model_id="m", style="title")

    assert captions.find([one, two, three], model_id="m", style="photo") == {
        one: ("a", 0.25),
        two: ("b", -0.5),
    }
    assert captions.find([one, two, three], model_id="m", style="title") == {one: ("A", 1.0)}
    assert captions.find([one, two, three], model_id="n", style="photo") == {}
    assert captions.find([], model_id="m", style="photo") == {}


def test_the_first_caption_stays(any_database: Database) -> None:
    (one,) = images_in(any_database, ["1"])
    captions = Captions(any_database)

    for said in ("first", "second"):
        captions.remember({one: (said, 0.5)}, {one: BYTES}, model_id="m", style="photo")

    assert captions.find([one], model_id="m", style="photo") == {one: ("first", 0.5)}


def test_a_caption_of_bytes_that_are_not_the_pictures_any_more_is_not_kept(any_database: Database) -> None:
    one, two = images_in(any_database, ["1", "2"])
    captions = Captions(any_database)
    of_bytes = {one: "b" * 64, two: BYTES, 99: BYTES}

    captions.remember(dict.fromkeys((one, two, 99), ("said", 0.5)), of_bytes, model_id="m", style="photo")

    assert captions.find([one, two, 99], model_id="m", style="photo") == {two: ("said", 0.5)}


def test_threads_that_remember_the_same_pictures_at_once_all_succeed(any_database: Database) -> None:
    ids = images_in(any_database, [f"{i}" for i in range(40)])
    started = threading.Barrier(8)

    def remember(number: int) -> None:
        said = {i: (f"by {number}", 0.5) for i in (ids if number % 2 else reversed(ids))}
        started.wait()
        Captions(any_database).remember(said, dict.fromkeys(ids, BYTES), model_id="m", style="photo")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remember, range(8)))

    found = Captions(any_database).find(ids, model_id="m", style="photo")
    assert set(found) == set(ids)
    assert len(set(found.values())) == 1  # the first took them all


def test_no_caption_outlives_the_picture_that_it_was_made_of(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    images, captions = Images(any_database), Captions(any_database)
    for round_ in range(30):
        old, new = f"{2 * round_:064x}", f"{2 * round_ + 1:064x}"
        images.put(shop.collection_id, generation_id, [new_image("1", ONE[0], sha256=old)])
        one = images.get(shop.collection_id, "1").image_id
        started = threading.Barrier(2)

        def replace(started: threading.Barrier = started, new: str = new) -> None:
            started.wait()
            images.put(shop.collection_id, generation_id, [new_image("1", ONE[1], sha256=new)])

        with ThreadPoolExecutor(1) as pool:
            replaced = pool.submit(replace)
            started.wait()
            captions.remember({one: ("of the old one", 0.5)}, {one: old}, model_id="m", style="photo")
            replaced.result()

        assert captions.find([one], model_id="m", style="photo") == {}
