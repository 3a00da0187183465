from indexer.database import Database
from indexer.store.builds import Build, Builds, Link
from tests.rows import made


def build(file: str) -> Build:
    return Build(file, {"rows.faiss": "0" * 64}, "exact", 10, {"build_s": 0.5})


def link(from_seq: int, through_seq: int, name: str = "") -> Link:
    files = {
        "images": build(f"i{from_seq}-{through_seq}{name}"),
        "texts": build(f"t{from_seq}-{through_seq}{name}"),
    }
    return Link(from_seq, through_seq, files)  # type: ignore[arg-type]


def chain_of(database: Database, ids: tuple[int, int]) -> list[tuple[int, int, str]]:
    chain = Builds(database).chain(*ids)
    return [(one.from_seq, one.through_seq, one.builds["images"].file) for one in chain]


def ids_of(database: Database, name: str = "shop") -> tuple[int, int]:
    collection, generation_id = made(database, name)
    return collection.collection_id, generation_id


def test_without_a_build_there_is_no_chain(any_database: Database) -> None:
    assert Builds(any_database).chain(*ids_of(any_database)) == []


def test_a_chain_begins_at_0_and_each_segment_where_the_one_before_it_ends(any_database: Database) -> None:
    ids, builds = ids_of(any_database), Builds(any_database)
    for one in (link(0, 7), link(7, 9), link(12, 20), link(9, 10)):
        builds.publish(*ids, one)

    assert builds.chain(*ids) == [link(0, 7), link(7, 9), link(9, 10)]


def test_a_segment_takes_the_place_of_those_within_its_range_whose_files_are_told(
    any_database: Database,
) -> None:
    ids, builds = ids_of(any_database), Builds(any_database)
    other = ids_of(any_database, "other")
    builds.publish(*other, link(0, 8))
    for one in (link(0, 7), link(7, 9), link(9, 10)):
        assert builds.publish(*ids, one) == []

    stale = builds.publish(*ids, link(7, 12))

    assert sorted(stale) == ["i7-9", "i9-10", "t7-9", "t9-10"]
    assert builds.chain(*ids) == [link(0, 7), link(7, 12)]
    assert builds.chain(*other) == [link(0, 8)]
    assert builds.stems() == {"i0-7", "t0-7", "i7-12", "t7-12", "i0-8", "t0-8"}


def test_of_two_segments_that_begin_alike_the_one_that_goes_further_is_in_the_chain(
    any_database: Database,
) -> None:
    """A slower process publishes what it had seen after a quicker one has seen more."""
    ids, builds = ids_of(any_database), Builds(any_database)
    builds.publish(*ids, link(0, 7))
    builds.publish(*ids, link(0, 5))

    assert chain_of(any_database, ids) == [(0, 7, "i0-7")]


def test_of_two_segments_over_the_same_range_the_later_one_is_in_the_chain(any_database: Database) -> None:
    ids, builds = ids_of(any_database), Builds(any_database)
    builds.publish(*ids, link(0, 7, "first"))

    stale = builds.publish(*ids, link(0, 7, "second"))

    assert sorted(stale) == ["i0-7first", "t0-7first"]
    assert chain_of(any_database, ids) == [(0, 7, "i0-7second")]


def test_what_is_forgotten_has_no_chain(any_database: Database) -> None:
    ids, builds = ids_of(any_database), Builds(any_database)
    builds.publish(*ids, link(0, 7))

    builds.forget(ids[0], ids[1] + 1)
    assert builds.chain(*ids) == [link(0, 7)]
    builds.forget(ids[0])

    assert builds.chain(*ids) == [] and builds.stems() == set()
