from indexer.database import Database
from indexer.store.builds import Build, Builds
from tests.rows import made


def build(file: str, through_seq: int) -> Build:
    return Build(file, "0" * 64, through_seq, 10, {"factory": "Flat"})


def test_the_latest_build_is_that_of_the_last_change_for_each_target(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    ids = (shop.collection_id, generation_id)
    builds = Builds(any_database)

    builds.publish(*ids, {"images": build("i7", 7), "texts": build("t7", 7)}, build_s=0.5)
    builds.publish(*ids, {"images": build("i5", 5)}, build_s=0.5)  # a slower process that had seen less

    assert builds.latest(*ids, "images") == build("i7", 7)
    assert builds.latest(*ids, "texts") == build("t7", 7)


def test_of_two_builds_through_the_same_change_the_later_one_is_latest(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    ids = (shop.collection_id, generation_id)

    for name in ("first", "second"):
        Builds(any_database).publish(*ids, {"images": build(name, 7)}, build_s=0.5)

    assert Builds(any_database).latest(*ids, "images") == build("second", 7)


def test_without_a_build_there_is_no_latest(any_database: Database) -> None:
    shop, generation_id = made(any_database)

    assert Builds(any_database).latest(shop.collection_id, generation_id, "images") is None


def test_publishing_keeps_two_builds_a_target_and_returns_the_files_of_the_rest(
    any_database: Database,
) -> None:
    shop, generation_id = made(any_database)
    other, other_generation = made(any_database, "other")
    builds = Builds(any_database)
    builds.publish(other.collection_id, other_generation, {"images": build("other", 1)}, build_s=0.5)

    stale = [
        builds.publish(
            shop.collection_id,
            generation_id,
            {"images": build(f"i{seq}", seq), "texts": build(f"t{seq}", seq)},
            build_s=0.5,
        )
        for seq in (1, 2, 3, 4)
    ]

    assert stale == [[], [], ["i1", "t1"], ["i2", "t2"]]
    assert builds.files() == {"i3", "t3", "i4", "t4", "other"}
