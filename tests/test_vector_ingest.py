import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.config import IndexConfig
from indexer.database import Database
from indexer.errors import Conflict
from indexer.fsck import Fsck
from indexer.live import LiveIndex
from indexer.report import Failure, IngestReport
from indexer.seen import SeenKeys
from indexer.store.collections import Collection, Collections
from indexer.store.images import Images
from indexer.vector_ingest import MOST_ROWS, VectorIngest, rows_a_batch, unit_rows, vector_problem
from tests.rows import LIMITS, assert_sound, from_source, made
from textmm.vector_sources import VectorItem

DIM = 4


@pytest.fixture
def shop(any_database: Database) -> Collection:
    return external(any_database, "shop")


def external(database: Database, name: str, dim: int = DIM) -> Collection:
    collections = Collections(database)
    there = collections.create(name, is_bank=False, limits=LIMITS)
    collections.make_external(there.collection_id, dim)
    return collections.get(name)


def item(key: str, *numbers: float, title: str | None = None, **attributes: Any) -> VectorItem:
    return VectorItem(key, np.array(numbers), title, attributes)


def run(
    database: Database, items: Iterable[VectorItem], into: Collection, source: str = "test"
) -> IngestReport:
    total = IngestReport()
    for report in VectorIngest(database).run(items, into, source=source):
        total.add(report)
    return total


def counts(report: IngestReport) -> tuple[int, int, int]:
    return report.added, report.updated, report.unchanged


def stored(database: Database, into: Collection, key: str) -> NDArray[np.float32]:
    assert into.generation is not None
    found = Images(database).find_vectors(into.collection_id, into.generation.generation_id, [key])
    return np.frombuffer(found[key].vector, dtype="<f2").astype(np.float32)


def test_vectors_are_kept_at_length_1_with_their_words_and_without_a_picture(
    any_database: Database, shop: Collection
) -> None:
    report = run(any_database, [item("a", 3.0, 0.0, 4.0, 0.0, title="a mug", price=2.5, new=True)], shop)

    record = Images(any_database).get(shop.collection_id, "a")
    assert (counts(report), report.failed) == ((1, 0, 0), [])
    assert (record.key, record.title, record.source) == ("a", "a mug", "test")
    assert record.attributes == {"price": 2.5, "new": True}
    assert (record.sha256, record.width, record.height, record.locator, record.texts) == (
        *(None, None, None, None),
        (),
    )
    assert stored(any_database, shop, "a").tolist() == np.array([0.6, 0, 0.8, 0], np.float16).tolist()
    assert Collections(any_database).get("shop").types == {"price": "number", "new": "bool"}
    assert_sound(any_database)


def test_run_again_changes_nothing_and_then_only_what_has_changed(
    any_database: Database, shop: Collection
) -> None:
    items = [item(f"{i}", 1.0, i, 0.0, 0.0, title=f"t{i}", n=i) for i in range(5)]
    run(any_database, items, shop)
    seq = Collections(any_database).get("shop").change_seq

    again = run(any_database, items, shop)
    seq_again = Collections(any_database).get("shop").change_seq
    changed = run(
        any_database,
        [
            item("0", 2.0, 0.0, 0.0, 0.0, title="t0", n=0),  # longer, but the same direction
            item("1", 1.0, 5.0, 0.0, 0.0, title="t1", n=1),
            item("2", 1.0, 2.0, 0.0, 0.0, title="other", n=2),
            item("3", 1.0, 3.0, 0.0, 0.0, title="t3", n=4),
            item("new", 1.0, 0.0, 0.0, 0.0),
        ],
        shop,
    )

    assert (counts(again), seq_again) == ((0, 0, 5), seq)
    assert counts(changed) == (1, 3, 1)
    assert Images(any_database).get(shop.collection_id, "2").title == "other"
    np.testing.assert_array_equal(
        stored(any_database, shop, "1"), unit_rows(np.array([[1.0, 5, 0, 0]]))[0].astype(np.float16)
    )
    assert_sound(any_database)


def test_the_same_rows_from_another_source_are_that_sources(any_database: Database, shop: Collection) -> None:
    run(any_database, [item("a", 1, 0, 0, 0), item("b", 1, 0, 0, 0)], shop, "one")

    report = run(any_database, [item("a", 1, 0, 0, 0)], shop, "two")

    assert counts(report) == (0, 1, 0)
    assert from_source(Images(any_database), shop, "one") == {"b"}
    assert from_source(Images(any_database), shop, "two") == {"a"}


NAN, INF = float("nan"), float("inf")
BAD: list[tuple[str, VectorItem, str]] = [
    ("short", item("k", 1, 0, 0), "its vector has 3 numbers, those of this collection have 4"),
    ("long", item("k", 1, 0, 0, 0, 0), "its vector has 5 numbers, those of this collection have 4"),
    ("none", item("k"), "its vector has 0 numbers"),
    ("matrix", VectorItem("k", np.ones((2, 4))), "its vector has 8 numbers"),
    ("nan", item("k", 1, NAN, 0, 0), "number 2 of its vector is nan: every number must be finite"),
    ("inf", item("k", 1, 0, 0, -INF), "number 4 of its vector is -inf"),
    ("zeros", item("k", 0, 0, 0, 0), "its vector is all zeros"),
    ("minus zeros", item("k", -0.0, 0, 0, 0), "its vector is all zeros"),
    ("key", item("a//b", 1, 0, 0, 0), "has an empty, '.' or '..' part"),
    ("no key", item("", 1, 0, 0, 0), "a key has 1 to 512 characters"),
    ("surrogate", item("k", 1, 0, 0, 0, title="\ud800"), "which is no character of text"),
    ("NUL", item("k", 1, 0, 0, 0, colour="a\0b"), "which is no character of text"),
    ("NUL in a list", item("k", 1, 0, 0, 0, tags=["a", "\0"]), "which is no character of text"),
    ("type", item("k", 1, 0, 0, 0, size="large"), "size is declared a number, and 'large' is no number"),
]


@pytest.mark.parametrize(("bad", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_row_fails_by_its_key_and_the_rest_goes_in(
    any_database: Database, shop: Collection, bad: VectorItem, said: str
) -> None:
    Collections(any_database).declare_types(shop.collection_id, {"size": "number"})
    shop = Collections(any_database).get("shop")

    report = run(any_database, [item("first", 1, 0, 0, 0), bad, item("last", 0, 1, 0, 0)], shop)

    assert counts(report) == (2, 0, 0)
    assert [one.key for one in report.failed] == [bad.key]
    assert said in report.failed[0].reason
    with pytest.raises(ValueError, match=re.escape(said)):
        VectorIngest(any_database).put(bad, shop)
    assert Collections(any_database).counts(shop.collection_id) == (2, 0)


def test_a_key_that_comes_twice_fails_the_second_time_wherever_it_is(
    any_database: Database,
) -> None:
    wide = external(any_database, "wide", 4096)
    rows = rows_a_batch(4096)
    vector = np.ones(4096, dtype=np.float16)

    keys = ["twice", "near", "near", *map(str, range(rows)), "twice"]
    report = run(any_database, (VectorItem(key, vector) for key in keys), wide)

    assert report.added == rows + 2
    assert report.failed == [
        Failure("near", "the key occurs twice in this source"),
        Failure("twice", "the key occurs twice in this source"),
    ]


def test_seen_holds_every_key_of_the_source_those_that_failed_too(
    any_database: Database, shop: Collection
) -> None:
    seen = SeenKeys()
    items = [item("a", 1, 0, 0, 0), item("b", 0, 0, 0, 0)]

    list(VectorIngest(any_database).run(items, shop, source="test", seen=seen))

    assert seen.missing(["a", "b", "c"]) == ["c"]


def test_one_vector_is_put_and_replaced(any_database: Database, shop: Collection) -> None:
    ingest = VectorIngest(any_database)

    first, first_new = ingest.put(item("a", 1, 0, 0, 0, title="one"), shop)
    second, second_new = ingest.put(item("a", 0, 1, 0, 0), shop)

    assert (first.title, first_new, second.title, second_new) == ("one", True, None, False)
    assert (first.image_id, first.source) == (second.image_id, None)
    assert stored(any_database, shop, "a").tolist() == [0, 1, 0, 0]
    assert_sound(any_database)


def test_vectors_of_two_kinds_never_share_a_collection(any_database: Database, shop: Collection) -> None:
    collections = Collections(any_database)
    of_model, _ = made(any_database, "pictures", dim=DIM)
    bank = collections.create("known", is_bank=True, limits=LIMITS)
    empty = collections.create("empty", is_bank=False, limits=LIMITS)

    with pytest.raises(Conflict, match="'shop' holds vectors of 4 numbers, these have 5"):
        collections.make_external(shop.collection_id, 5)
    with pytest.raises(
        Conflict, match="'pictures' holds vectors of model-1: put vectors from elsewhere into"
    ):
        collections.make_external(of_model.collection_id, DIM)
    with pytest.raises(Conflict, match="'known' is a bank"):
        collections.make_external(bank.collection_id, DIM)
    with pytest.raises(
        Conflict, match="'shop' holds vectors that its owner made, of 4 numbers: put pictures"
    ):
        collections.ensure_generation(
            shop.collection_id, model_id="model-1", embed_dim=DIM, preprocessing="squash-32"
        )
    with pytest.raises(Conflict, match="'pictures' holds vectors of model-1"):
        run(any_database, [item("a", 1, 0, 0, 0)], of_model)
    with pytest.raises(Conflict, match="'empty' is not made for vectors from elsewhere yet: say so first"):
        VectorIngest(any_database).put(item("a", 1, 0, 0, 0), empty)
    assert collections.make_external(shop.collection_id, DIM) == shop.generation


def test_a_view_of_them_answers_by_vector_and_filter_and_the_rows_are_sound(
    any_database: Database, shop: Collection, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    vectors = {f"{i}": rng.normal(size=DIM) for i in range(50)}
    run(any_database, [item(key, *v, n=int(key) % 3) for key, v in vectors.items()], shop)
    config = IndexConfig(fold_rows=10**9)

    view = LiveIndex(any_database, tmp_path / "indexes", config).view(Collections(any_database).get("shop"))

    assert view is not None
    query = unit_rows(vectors["7"][None])
    _, ids = view.images.vectors.search(query, 1)
    assert Images(any_database).records(ids[0].tolist())[int(ids[0, 0])].key == "7"
    assert view.texts.vectors.count == 0
    assert list(Fsck(any_database, tmp_path, config).check()) == []


def test_unit_rows_have_length_1_at_every_scale_and_what_has_no_direction_is_nan() -> None:
    rows = np.array([[3e300, 4e300], [3e-320, 4e-320], [-3.0, 4.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])

    made = unit_rows(rows)

    assert made.dtype == np.float32
    np.testing.assert_allclose(made[:3], [[0.6, 0.8], [0.6, 0.8], [-0.6, 0.8]], rtol=1e-3)
    assert np.isnan(made[3:, 0]).all()
    assert [vector_problem(row, 2) is None for row in rows] == [True, True, True, False, False, False]


@pytest.mark.parametrize(("dim", "rows"), [(1, MOST_ROWS), (256, 4096), (4096, 256), (2**30, 1)])
def test_a_batch_has_fewer_rows_where_vectors_are_long(dim: int, rows: int) -> None:
    assert rows_a_batch(dim) == rows
