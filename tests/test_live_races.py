import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from indexer.database import Database
from indexer.live import LiveIndex, View
from indexer.store.builds import Builds
from tests.deadline import wait_for
from tests.rows import exact_vectors, new_image
from tests.shop import NEVER, ONE, SOON, Shop

ROOT = Path(__file__).parent.parent


@pytest.fixture
def indexes(tmp_path: Path) -> Path:
    return tmp_path / "indexes"


@pytest.fixture
def shop(any_database: Database) -> Shop:
    return Shop(any_database)


@pytest.mark.slow
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
                live.fold_due()
            case "reopen":
                live = LiveIndex(shop.database, indexes, SOON)
            case _:
                for path in indexes.glob(f"*{rng.choice(['images', 'texts'])}*"):
                    path.unlink()
        shop.assert_answers(live.take_up(shop.collection))


@pytest.mark.slow
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
            live.fold_due()
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


ONE_OF_SEVERAL = """
import sys
from pathlib import Path
import numpy as np
from indexer.database import Database
from indexer.live import LiveIndex
from indexer.store.collections import Collections
from indexer.store.images import Images
from tests.rows import new_image
from tests.shop import ONE, SOON
url, indexes, mine, processes, versions = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
database = Database(url)
shop = Collections(database).get("shop")
live = LiveIndex(database, indexes, SOON)
rng, seen = np.random.default_rng(mine), [0.0] * processes
print("ready", flush=True)
sys.stdin.readline()
for version in range(2, versions + 1):
    rows = [new_image(f"{mine}/{i}", ONE[mine] * version / 64) for i in range(10)]
    Images(database).put(shop.collection_id, shop.generation.generation_id, rows)
    live.take_up(shop)
    match rng.integers(3):
        case 0:
            live.fold(shop.collection_id)
        case 1:
            live.poll()
            live.fold_due()
    for of in range(processes):
        (scores,), (ids,) = live.view(shop).images.vectors.search(ONE[of : of + 1], 100)
        assert len(set(ids.tolist())) == 10 * processes, ids
        assert len(set(scores[:10].tolist())) == 1 and (scores[10:] == 0).all(), scores
        assert scores[0] >= seen[of] and (of != mine or scores[0] == version / 64), (of, seen, scores)
        seen[of] = scores[0]
"""


@pytest.mark.slow
def test_several_processes_write_fold_and_search_at_once_and_each_answers_from_a_committed_state(
    shop: Shop, indexes: Path
) -> None:
    """Each replaces ten pictures of its own by ones whose vectors say which write it was, and looks at all."""
    processes, versions = 3, 20
    shop.put(*(new_image(f"{n}/{i}", ONE[n] / 64) for n in range(processes) for i in range(10)))
    LiveIndex(shop.database, indexes, SOON).take_up(shop.collection)
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                ONE_OF_SEVERAL,
                shop.database.url,
                indexes,
                *map(str, (n, processes, versions)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for n in range(processes)
    ]
    for one in running:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    for one in running:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    said = [one.communicate(timeout=120)[1] for one in running]

    assert said == ["", "", ""] and [one.returncode for one in running] == [0, 0, 0]
    view = LiveIndex(shop.database, indexes, NEVER).view(shop.collection)
    assert view is not None
    for n in range(processes):
        assert view.images.vectors.search(ONE[n : n + 1], 10)[0].tolist() == [[versions / 64] * 10]


FOLDER = """
import sys
from pathlib import Path
from indexer.config import IndexConfig
from indexer.database import Database
from indexer.live import LiveIndex, View
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
    recorded = builds.stems()
    has_come = {
        "a file is half written": lambda: any(indexes.glob("*.partial")),
        "a file has no row yet": lambda: (
            {p.name.partition(".")[0] for p in indexes.glob("*.faiss")} - builds.stems()
        ),
        "a row is new": lambda: builds.stems() - recorded,
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
        recorded = builds.stems()
    assert not list(indexes.glob("*.broken"))


def polled(live: LiveIndex, shop: Shop) -> View:
    live.poll()
    live.fold_due()
    view = live.view(shop.collection)
    assert view is not None
    return view
