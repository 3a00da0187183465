import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.config import IndexConfig
from indexer.database import Database
from indexer.live import LiveIndex, View
from indexer.store.builds import Builds
from indexer.store.collections import Collection, Collections
from indexer.store.images import Images, NewImage
from tests.deadline import wait_for
from tests.rows import DIM, assert_exact, exact_vectors, made, new_image

ROOT = Path(__file__).parent.parent
ONE = np.eye(DIM, dtype=np.float32)
NEVER = IndexConfig(fold_rows=10**9)
SOON = IndexConfig(fold_rows=5)


@pytest.fixture
def indexes(tmp_path: Path) -> Path:
    return tmp_path / "indexes"


@dataclass
class Shop:
    """A collection, written through one Database, beside a dict of what must be in it."""

    database: Database
    truth: dict[str, NewImage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _, self.generation_id = made(self.database, "shop")

    @property
    def collection(self) -> Collection:
        return Collections(self.database).get("shop")

    def put(self, *images: NewImage) -> None:
        Images(self.database).put(self.collection.collection_id, self.generation_id, images)
        self.truth |= {image.key: image for image in images}

    def put_some(self, rng: np.random.Generator, keys: Iterator[str] | range) -> None:
        self.put(*(random_image(f"{key}", rng) for key in keys))

    def delete(self, *keys: str) -> None:
        Images(self.database).delete(self.collection.collection_id, keys)
        for key in keys:
            self.truth.pop(key, None)

    def assert_answers(self, view: View | None) -> None:
        """Images, texts and attributes of the view are those of the dict, and searches are exact."""
        assert view is not None
        images, texts = view.images.vectors, view.texts.vectors
        keys = {i: r.key for i, r in Images(self.database).records(images.living().tolist()).items()}
        said = Images(self.database).text_records(texts.living().tolist())
        vectors_of = {
            (key, text): row
            for key, image in self.truth.items()
            for text, row in zip(image.texts, image.text_vectors, strict=True)
        }
        assert sorted(keys.values()) == sorted(self.truth) and images.count == len(self.truth)
        assert sorted((r.image.key, r.text) for r in said.values()) == sorted(vectors_of)
        assert texts.count == len(vectors_of)
        rng = np.random.default_rng(0)
        query = exact_vectors(rng, 1)
        for k in (1, 5, 1000):
            (scores,), (ids,) = images.search(query, k)
            assert_exact(
                scores, ids, {i: self.truth[key].image_vector for i, key in keys.items()}, query[0], k
            )
            (scores,), (ids,) = texts.search(query, k)
            assert_exact(
                scores, ids, {i: vectors_of[r.image.key, r.text] for i, r in said.items()}, query[0], k
            )
        self.assert_filters(view, keys, query)

    def assert_filters(self, view: View, keys: dict[int, str], query: NDArray[np.float32]) -> None:
        for n in range(3):
            allowed = view.images.attributes.equal("n", n)
            rows = {
                i: self.truth[k].image_vector for i, k in keys.items() if self.truth[k].attributes["n"] == n
            }
            (scores,), (ids,) = view.images.vectors.search(query, 5, allowed=allowed)
            assert_exact(scores, ids, rows, query[0], 5)
            texts = view.texts.vectors.search(query, 1000, allowed=view.texts.attributes.equal("n", n))[1]
            wanted = sum(len(image.texts) for image in self.truth.values() if image.attributes["n"] == n)
            assert texts.shape == (1, wanted)


def random_image(key: str, rng: np.random.Generator) -> NewImage:
    texts = {f"{key} {i} {rng.integers(1000)}": exact_vectors(rng, 1)[0] for i in range(rng.integers(3))}
    return new_image(key, exact_vectors(rng, 1)[0], texts=texts, attributes={"n": int(rng.integers(3))})


@pytest.fixture
def shop(any_database: Database) -> Shop:
    return Shop(any_database)


def test_a_collection_without_a_picture_ever_has_no_view(any_database: Database, indexes: Path) -> None:
    empty = Collections(any_database).create("empty", is_bank=False, limits={})
    live = LiveIndex(any_database, indexes, NEVER)

    assert live.view(empty) is None
    assert live.take_up(empty) is None
    live.poll()


def test_a_view_is_of_all_that_is_committed_when_it_is_first_asked_for(shop: Shop, indexes: Path) -> None:
    shop.put_some(np.random.default_rng(1), range(40))
    shop.delete("3", "4")

    view = LiveIndex(shop.database, indexes, NEVER).view(shop.collection)

    shop.assert_answers(view)
    assert view is not None and (view.through_seq, view.folded_seq) == (2, 0)


@pytest.mark.parametrize("folds", [False, True])
def test_what_another_database_object_wrote_is_taken_up(shop: Shop, indexes: Path, folds: bool) -> None:
    rng = np.random.default_rng(2)
    reader = Database(shop.database.url)
    live = LiveIndex(reader, indexes, SOON if folds else NEVER)
    shop.put_some(rng, range(20))
    live.view(shop.collection)

    shop.put_some(rng, range(15, 30))
    shop.delete("1", "16")
    live.poll()

    shop.assert_answers(live.view(shop.collection))
    reader.close()


def test_a_view_that_nobody_brought_up_to_date_stays_as_it_is(shop: Shop, indexes: Path) -> None:
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put(new_image("1", ONE[0]))
    before = live.view(shop.collection)

    shop.put(new_image("2", ONE[1]))

    assert live.view(shop.collection) is before
    assert before is not None and before.images.vectors.count == 1


def test_deleted_pictures_vanish_from_images_and_texts(shop: Shop, indexes: Path) -> None:
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put(*(new_image(k, ONE[0], texts={f"{k}!": ONE[1]}, attributes={"n": 0}) for k in "abc"))
    live.view(shop.collection)

    shop.delete("b")

    shop.assert_answers(live.take_up(shop.collection))


def test_an_old_view_answers_the_same_after_changes_and_folds(shop: Shop, indexes: Path) -> None:
    rng = np.random.default_rng(3)
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put_some(rng, range(30))
    view = live.view(shop.collection)
    assert view is not None
    query = exact_vectors(rng, 4)
    before = [part.tolist() for part in view.images.vectors.search(query, 50)]

    shop.put_some(rng, range(10, 50))
    live.take_up(shop.collection)
    live.fold(view.collection_id)
    shop.delete(*(f"{i}" for i in range(25)))
    live.poll()

    assert [part.tolist() for part in view.images.vectors.search(query, 50)] == before


def test_a_fold_empties_the_tail_and_changes_no_answer(shop: Shop, indexes: Path) -> None:
    rng = np.random.default_rng(4)
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put_some(rng, range(30))
    shop.put_some(rng, range(20, 40))
    before = live.take_up(shop.collection)
    assert before is not None

    live.fold(before.collection_id)

    after = live.view(shop.collection)
    shop.assert_answers(after)
    assert after is not None and after.images.vectors.segment is not None
    assert (before.images.vectors.tail_rows, after.images.vectors.tail_rows) == (40, 0)
    assert (after.images.vectors.segment.count, after.folded_seq) == (40, 2)


def test_a_fold_of_what_is_not_loaded_does_nothing(shop: Shop, indexes: Path) -> None:
    shop.put(new_image("1", ONE[0]))

    LiveIndex(shop.database, indexes, NEVER).fold(shop.collection.collection_id)

    assert not indexes.exists()


def test_reopening_after_a_fold_gives_the_same_answers_from_the_files(shop: Shop, indexes: Path) -> None:
    rng = np.random.default_rng(5)
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put_some(rng, range(40))
    live.view(shop.collection)
    live.fold(shop.collection.collection_id)
    shop.put_some(rng, range(35, 45))
    shop.delete("1", "36")

    again = LiveIndex(shop.database, indexes, NEVER).view(shop.collection)

    shop.assert_answers(again)
    assert again is not None and again.images.vectors.segment is not None
    assert (again.images.vectors.segment.count, again.folded_seq, again.through_seq) == (40, 1, 3)


def test_a_poll_folds_what_is_worth_it_and_nothing_else(shop: Shop, indexes: Path) -> None:
    live = LiveIndex(shop.database, indexes, SOON)
    shop.put(*(new_image(f"{i}", ONE[0]) for i in range(4)))
    live.view(shop.collection)

    live.poll()
    assert not indexes.exists()
    shop.put(new_image("4", ONE[0]))
    live.poll()

    assert len(list(indexes.iterdir())) == 2
    view = live.view(shop.collection)
    assert view is not None and view.images.vectors.tail_rows == 0


def test_a_deleted_collection_is_forgotten_and_its_name_starts_anew(shop: Shop, indexes: Path) -> None:
    live = LiveIndex(shop.database, indexes, SOON)
    shop.put(*(new_image(f"{i}", ONE[0]) for i in range(20)))
    live.view(shop.collection)
    live.poll()

    Collections(shop.database).delete("shop")
    live.poll()
    anew = Shop(shop.database)
    anew.put(new_image("other", ONE[1], attributes={"n": 1}))

    anew.assert_answers(live.view(anew.collection))


# -- files that are lost or broken -----------------------------------------------------------------------


def folded(shop: Shop, indexes: Path) -> None:
    """Forty pictures in files, ten more changes in rows alone."""
    rng = np.random.default_rng(6)
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put_some(rng, range(40))
    live.view(shop.collection)
    live.fold(shop.collection.collection_id)
    shop.put_some(rng, range(35, 45))


def test_losing_every_index_file_loses_nothing(shop: Shop, indexes: Path) -> None:
    folded(shop, indexes)
    for path in indexes.iterdir():
        path.unlink()
    indexes.rmdir()

    live = LiveIndex(shop.database, indexes, SOON)

    shop.assert_answers(live.view(shop.collection))
    live.poll()
    shop.assert_answers(live.view(shop.collection))
    assert len(list(indexes.iterdir())) == 2  # built again


@pytest.mark.parametrize("target", ["images", "texts"])
@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_broken_index_file_is_put_aside_and_the_answers_stay_exact(
    shop: Shop, indexes: Path, target: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    folded(shop, indexes)
    (path,) = indexes.glob(f"*-{target}-*.faiss")
    os.truncate(path, size % path.stat().st_size)

    view = LiveIndex(shop.database, indexes, NEVER).view(shop.collection)

    shop.assert_answers(view)
    assert path.with_suffix(".broken").exists() and not path.exists()
    assert view is not None and view.folded_seq == 0
    assert f"index file put aside, its rows are searched from SQL: {path.name} has sha256" in caplog.text


def test_the_next_fold_mends_a_broken_index_file(shop: Shop, indexes: Path) -> None:
    folded(shop, indexes)
    for path in indexes.iterdir():
        path.write_bytes(b"noise")
    live = LiveIndex(shop.database, indexes, NEVER)
    live.view(shop.collection)

    live.fold(shop.collection.collection_id)

    again = LiveIndex(shop.database, indexes, NEVER).view(shop.collection)
    shop.assert_answers(again)
    assert again is not None and again.folded_seq == again.through_seq == 2


def test_a_fold_that_fails_leaves_the_view_as_it_was(shop: Shop, tmp_path: Path) -> None:
    live = LiveIndex(shop.database, tmp_path / "file" / "indexes", NEVER)
    (tmp_path / "file").touch()
    shop.put_some(np.random.default_rng(7), range(9))
    live.view(shop.collection)

    with pytest.raises(OSError, match="Not a directory"):
        live.fold(shop.collection.collection_id)

    shop.assert_answers(live.view(shop.collection))


# -- at random, at once, in pieces -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_puts_deletes_folds_and_reopenings_at_random_are_answered_as_from_a_dict(
    shop: Shop, indexes: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    live = LiveIndex(shop.database, indexes, SOON)
    for _ in range(200):
        match rng.choice(
            ["put", "delete", "fold", "poll", "reopen", "lose"], p=[0.5, 0.2, 0.1, 0.1, 0.07, 0.03]
        ):
            case "put":
                shop.put_some(rng, range(start := int(rng.integers(40)), start + int(rng.integers(1, 6))))
            case "delete":
                shop.delete(*(f"{i}" for i in rng.integers(0, 45, rng.integers(1, 6))))
            case "fold":
                live.fold(shop.collection.collection_id)
            case "poll":
                live.poll()
            case "reopen":
                live = LiveIndex(shop.database, indexes, SOON)
            case _:
                for path in indexes.glob(f"*{rng.choice(['images', 'texts'])}*"):
                    path.unlink()
        shop.assert_answers(live.take_up(shop.collection))


def test_searches_during_puts_and_folds_are_always_of_one_committed_state(shop: Shop, indexes: Path) -> None:
    """Each write replaces all 20 pictures by ones whose vectors say which write it was."""
    versions, query = 40, ONE[:1]
    live = LiveIndex(shop.database, indexes, SOON)
    done = threading.Event()

    def write() -> None:
        for version in range(1, versions + 1):
            shop.put(*(new_image(f"{i}", ONE[0] * version / 64) for i in range(20)))
            live.take_up(shop.collection)
        done.set()

    def fold() -> None:
        while not done.is_set():
            live.poll()
            live.fold(shop.collection.collection_id)

    def search() -> list[float]:
        seen = [0.0]
        while not done.is_set():
            view = live.view(shop.collection)
            assert view is not None
            (scores,), (ids,) = view.images.vectors.search(query, 100)
            assert len(set(ids.tolist())) == 20
            assert len(set(scores.tolist())) == 1
            seen.append(float(scores[0]))
        return seen

    shop.put(*(new_image(f"{i}", ONE[0] * 0) for i in range(20)))
    with ThreadPoolExecutor(6) as pool:
        searches = [pool.submit(search) for _ in range(4)]
        others = [pool.submit(fold), pool.submit(write)]
        try:
            for other in others:
                other.result()
        finally:
            done.set()

    for seen in (one.result() for one in searches):
        assert seen == sorted(seen)  # nobody goes back to an older state
    view = live.view(shop.collection)
    assert view is not None and view.images.vectors.search(query, 1)[0].tolist() == [[versions / 64]]


def test_two_indexes_over_one_folder_fold_at_once_and_both_stay_exact(shop: Shop, indexes: Path) -> None:
    """As two server processes do."""
    rng = np.random.default_rng(8)
    lives = [LiveIndex(shop.database, indexes, NEVER) for _ in range(2)]
    shop.put_some(rng, range(30))
    for round_ in range(8):
        shop.put_some(rng, range(round_, round_ + 5))
        for live in lives:
            live.take_up(shop.collection)
        started = threading.Barrier(2)

        def fold(live: LiveIndex, started: threading.Barrier = started) -> None:
            started.wait()
            live.fold(shop.collection.collection_id)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(fold, lives))

    for live in (*lives, LiveIndex(shop.database, indexes, NEVER)):
        shop.assert_answers(live.view(shop.collection))


WRITER = """
import sys
import numpy as np
from indexer.database import Database
from indexer.store.collections import Collections
from indexer.store.images import Images
from tests.rows import new_image
database = Database(sys.argv[1])
shop = Collections(database).get("shop")
one = np.eye(8, dtype=np.float32)
for line in sys.stdin:
    key = line.strip()
    Images(database).put(
        shop.collection_id,
        shop.generation.generation_id,
        [new_image(key, one[1], texts={"by another process": one[2]}, attributes={"n": 1})],
    )
"""


@pytest.mark.slow
def test_what_another_process_writes_is_taken_up(shop: Shop, indexes: Path) -> None:
    live = LiveIndex(shop.database, indexes, NEVER)
    shop.put(new_image("0", ONE[0], attributes={"n": 0}))
    live.view(shop.collection)
    command = [sys.executable, "-c", WRITER, shop.database.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        assert writer.stdin is not None
        for key in "abc":
            said = {"by another process": ONE[2]}
            shop.truth[key] = new_image(key, ONE[1], texts=said, attributes={"n": 1})
            writer.stdin.write(key + "\n")
            writer.stdin.flush()

            wait_for(lambda: polled(live, shop).images.vectors.count == len(shop.truth))

            shop.assert_answers(live.view(shop.collection))
        writer.stdin.close()

    assert writer.returncode == 0


FOLDER = """
import sys
from pathlib import Path
from indexer.config import IndexConfig
from indexer.database import Database
from indexer.live import LiveIndex
from indexer.store.collections import Collections
database = Database(sys.argv[1])
shop = Collections(database).get("shop")
live = LiveIndex(database, Path(sys.argv[2]), IndexConfig())
live.view(shop)
print("ready", flush=True)
while True:
    live.fold(shop.collection_id)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["a file is half written", "a file has no row yet", "a row is new"])
def test_a_process_that_is_killed_while_it_folds_leaves_the_old_index_or_the_new_one(
    shop: Shop, indexes: Path, moment: str
) -> None:
    rng = np.random.default_rng(9)
    builds = Builds(shop.database)
    shop.put(
        *(new_image(f"x{i}", row, attributes={"n": 9}) for i, row in enumerate(exact_vectors(rng, 3000)))
    )
    live = LiveIndex(shop.database, indexes, NEVER)
    live.view(shop.collection)
    live.fold(shop.collection.collection_id)
    recorded = builds.files()
    has_come = {
        "a file is half written": lambda: any(indexes.glob("*.partial")),
        "a file has no row yet": lambda: {p.name for p in indexes.glob("*.faiss")} - builds.files(),
        "a row is new": lambda: builds.files() - recorded,
    }[moment]
    for _ in range(3):
        command = [sys.executable, "-c", FOLDER, shop.database.url, str(indexes)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as folder:
            assert folder.stdout is not None and folder.stdout.readline() == b"ready\n"
            wait_for(has_come)
            folder.kill()

        view = LiveIndex(shop.database, indexes, NEVER).view(shop.collection)
        assert view is not None and view.folded_seq == view.through_seq  # from files, not from rows
        shop.assert_answers(view)
        recorded = builds.files()
    assert not list(indexes.glob("*.broken"))


def polled(live: LiveIndex, shop: Shop) -> View:
    live.poll()
    view = live.view(shop.collection)
    assert view is not None
    return view
