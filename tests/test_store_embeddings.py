import numpy as np
import pytest

from indexer.database import Database
from indexer.store.collections import Collections
from indexer.store.embeddings import Born, Changes, Embeddings
from indexer.store.images import Images
from tests.rows import DIM, exact_vectors, made, new_image

ONE = np.eye(DIM, dtype=np.float32)


def rows_of(born: Born) -> list[tuple[int, list[float], dict[str, object]]]:
    return [
        (int(i), vector.tolist(), dict(attributes))
        for i, vector, attributes in zip(born.embedding_ids, born.vectors, born.attributes, strict=True)
    ]


def test_changes_are_what_was_born_and_what_died_since_and_not_what_did_both(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    ids = (shop.collection_id, generation_id)
    images, embeddings = Images(any_database), Embeddings(any_database)
    images.put(
        *ids, [new_image("a", ONE[0], texts={"A": ONE[1]}, attributes={"n": 1}), new_image("b", ONE[2])]
    )
    images.put(
        *ids, [new_image("c", ONE[3]), new_image("a", ONE[4], texts={"AA": ONE[5]}, attributes={"n": 2})]
    )
    images.delete(shop.collection_id, ["c"])

    everything, later, nothing = (embeddings.changes(*ids, since_seq=seq, embed_dim=DIM) for seq in (0, 1, 3))

    assert [c.through_seq for c in (everything, later, nothing)] == [3, 3, 3]
    assert rows_of(everything.images) == [(2, ONE[2].tolist(), {}), (5, ONE[4].tolist(), {"n": 2})]
    assert rows_of(everything.texts) == [(6, ONE[5].tolist(), {"n": 2})]
    assert everything.dead.tolist() == []
    assert rows_of(later.images) == [(5, ONE[4].tolist(), {"n": 2})]
    assert rows_of(later.texts) == [(6, ONE[5].tolist(), {"n": 2})]
    assert later.dead.tolist() == [1, 3]
    assert (rows_of(nothing.images), rows_of(nothing.texts), nothing.dead.tolist()) == ([], [], [])


def test_changes_of_an_empty_collection_are_none_and_have_the_shape_of_vectors(
    any_database: Database,
) -> None:
    shop, generation_id = made(any_database)

    changes = Embeddings(any_database).changes(shop.collection_id, generation_id, since_seq=0, embed_dim=DIM)

    assert (changes.through_seq, changes.images.vectors.shape) == (0, (0, DIM))
    assert changes.dead.dtype == np.int64


@pytest.mark.parametrize("seed", range(3))
def test_changes_taken_up_step_by_step_are_the_living_rows(any_database: Database, seed: int) -> None:
    shop, generation_id = made(any_database)
    ids = (shop.collection_id, generation_id)
    images, embeddings = Images(any_database), Embeddings(any_database)
    rng = np.random.default_rng(seed)
    held: dict[int, list[float]] = {}
    truth: dict[str, list[float]] = {}
    seq = 0

    for step in range(60):
        key = f"{rng.integers(8)}"
        if rng.random() < 0.3:
            images.delete(shop.collection_id, [key])
            truth.pop(key, None)
        else:
            vector = exact_vectors(rng, 1)[0]
            images.put(*ids, [new_image(key, vector)])
            truth[key] = vector.tolist()
        if step % 4 == 0:
            changes: Changes = embeddings.changes(*ids, since_seq=seq, embed_dim=DIM)
            held |= {i: vector for i, vector, _ in rows_of(changes.images)}
            held = {i: vector for i, vector in held.items() if i not in changes.dead}
            seq = changes.through_seq
            keys = {i: record.key for i, record in images.records(list(held)).items()}
            assert {keys[i]: vector for i, vector in held.items()} == truth


def test_attributes_are_those_of_the_living_rows_up_to_a_change(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    ids = (shop.collection_id, generation_id)
    images = Images(any_database)
    for n, key in enumerate(["a", "b", "c"]):
        images.put(*ids, [new_image(key, ONE[0], texts={key: ONE[1]}, attributes={"n": n})])
    images.delete(shop.collection_id, ["a"])

    types, found = Embeddings(any_database).attributes(*ids, through_seq=2)

    assert types == {"n": "number"}
    assert (found["images"][0].tolist(), found["images"][1]) == ([3], [{"n": 1}])
    assert (found["texts"][0].tolist(), found["texts"][1]) == ([4], [{"n": 1}])


def test_seqs_tell_which_collections_have_changed(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    other = Collections(any_database).create("other", is_bank=False, limits={})
    Images(any_database).put(shop.collection_id, generation_id, [new_image("a", ONE[0])])

    assert Embeddings(any_database).seqs() == {
        shop.collection_id: (1, generation_id),
        other.collection_id: (0, None),
    }


def test_alive_counts_living_vectors_of_images_and_texts(any_database: Database) -> None:
    shop, generation_id = made(any_database)
    ids = (shop.collection_id, generation_id)
    images = Images(any_database)
    images.put(*ids, [new_image("a", ONE[0], texts={"A": ONE[1]}), new_image("b", ONE[2])])
    images.put(*ids, [new_image("a", ONE[0])])

    assert Embeddings(any_database).alive(*ids) == 2
