"""A collection moves to another model while it serves."""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.config import IndexConfig, IngestConfig
from indexer.database import Database
from indexer.errors import Conflict, GenerationSwitched, NotFound
from indexer.files import Blobs
from indexer.fsck import Fsck
from indexer.ingest import Ingest
from indexer.live import LiveIndex
from indexer.store.builds import TARGETS
from indexer.store.collections import Collection, Collections, Generation
from indexer.store.generations import Generations
from indexer.store.images import Images
from indexer.store.processes import Processes
from search import messages as m
from search.config import Config
from search.contents import Contents
from search.engine import SearchEngine
from search.generations import BATCH, Moves
from tests.deadline import wait_for
from tests.rows import LIMITS, new_image
from textmm.encoder import Encoder
from textmm.sources import Item, read_source


class Place:
    """A collection `shop` of drawn pictures, and what moves it."""

    def __init__(self, database: Database, data: Path, own: Encoder, other: Encoder, folder: Path) -> None:
        self.database, self.data, self.folder = database, data, folder
        self.encoders = {own.model_id: own, other.model_id: other}
        self.own, self.other = own, other
        self.blobs = Blobs(data / "blobs")
        self.live = LiveIndex(database, data / "indexes", IndexConfig(fold_rows=8))
        self.moves = Moves(database, Contents(self.blobs), self.live, lambda g: self.encoders[g.model_id])
        self.generations = Generations(database)

    @property
    def shop(self) -> Collection:
        return Collections(self.database).get("shop")

    def ingest(self, *models: Encoder) -> Ingest:
        """Of a process that has these models loaded."""
        loaded = {model.model_id: model for model in models}
        return Ingest(self.database, models[0], self.blobs, IngestConfig(), encoders=loaded.get)

    def start(self) -> Generation:
        return self.generations.start(
            self.shop.collection_id,
            model_id=self.other.model_id,
            model_name=str(self.folder),
            embed_dim=self.other.embed_dim,
            preprocessing=self.other.preprocessing,
        )

    def fill(self, generation: Generation) -> None:
        for _ in self.moves.fill(self.shop, generation):
            pass

    def assert_vectors_of(self, generation: Generation, encoder: Encoder) -> None:
        """Each image and each text has one living vector of this generation, by this encoder."""
        view = LiveIndex(self.database, self.data / "indexes", IndexConfig()).view(self.shop, generation)
        assert view is not None
        ids, rows = view.texts.vectors.rows()
        texts = Images(self.database).text_records(ids.tolist())
        said = encoder.encode_texts([texts[i].text for i in ids.tolist()])
        np.testing.assert_allclose(rows.astype(np.float32), said, atol=2e-3)
        images, count = Collections(self.database).counts(self.shop.collection_id)
        assert (view.images.vectors.count, len(ids)) == (images, count)


@pytest.fixture
def place(
    any_database: Database,
    tmp_path: Path,
    encoder: Encoder,
    other: Encoder,
    other_folder: Path,
    pictures: Path,
) -> Place:
    place = Place(any_database, tmp_path / "data", encoder, other, other_folder)
    shop = Collections(any_database).create("shop", is_bank=False, limits=LIMITS)
    source = read_source(str(pictures / "captions.csv"))
    for _ in place.ingest(encoder).run(source, shop, source="drawn"):
        pass
    return place


def test_two_models_are_not_the_same(encoder: Encoder, other: Encoder) -> None:
    assert encoder.model_id != other.model_id
    cosines = (encoder.encode_texts(["a red cross"]) * other.encode_texts(["a red cross"])).sum()
    assert cosines < 0.99


def test_a_collection_moves_there_and_back(place: Place) -> None:
    first = place.shop.generation
    assert first is not None

    second = place.start()
    place.fill(second)
    place.moves.switch(place.shop, second)
    after = place.shop.generation
    place.assert_vectors_of(second, place.other)
    back = place.moves.rollback(place.shop)

    assert after is not None and (after.model_id, back.model_id) == (place.other.model_id, place.own.model_id)
    assert place.shop.generation == first
    place.assert_vectors_of(first, place.own)
    assert [(s.generation.model_id, s.state) for s in place.generations.kept(place.shop.collection_id)] == [
        (place.own.model_id, "active"),
        (place.other.model_id, "retired"),
    ]
    assert list(Fsck(place.database, place.data, IndexConfig()).check()) == []


def test_a_back_fill_that_was_killed_goes_on_where_it_was(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.generations.BATCH", 5)
    second = place.start()
    fills = place.moves.fill(place.shop, second)
    done = next(fills).filled
    fills.close()  # killed after its first batch
    before = place.generations.lacks(place.shop.collection_id, second.generation_id)

    again = place.start()
    progress = list(place.moves.fill(place.shop, again))

    assert (done, before) == (5, (11, 16))
    assert again.generation_id == second.generation_id
    assert progress[-1].filled == 27 and BATCH != 5
    assert place.generations.lacks(place.shop.collection_id, second.generation_id) == (0, 0)
    place.assert_vectors_of(second, place.other)


def test_what_arrives_while_a_generation_is_filled_is_in_both_or_filled_in(
    place: Place, pictures: Path
) -> None:
    second = place.start()
    place.fill(second)
    data = (pictures / "red-circle.png").read_bytes()

    place.ingest(place.own).put(Item("old process", "", "by the old model alone"), data, place.shop)
    lacks = place.generations.lacks(place.shop.collection_id, second.generation_id)
    place.ingest(place.own, place.other).put(Item("new process", "", "by both models"), data, place.shop)
    same = place.generations.lacks(place.shop.collection_id, second.generation_id)
    place.moves.switch(place.shop, second)

    assert lacks == same == (1, 1)  # what the switch fills in
    place.assert_vectors_of(second, place.other)
    assert list(Fsck(place.database, place.data, IndexConfig()).check()) == []


def test_a_picture_that_is_replaced_or_deleted_during_a_back_fill_gets_no_old_vector(
    place: Place, pictures: Path
) -> None:
    second = place.start()
    ids = (place.shop.collection_id, second.generation_id)
    lacking = [
        one for target in TARGETS for one in place.generations.lacking(*ids, target, after=0, limit=100)
    ]
    zero = np.zeros(place.other.embed_dim, np.float32)
    data = (pictures / "blue-square.png").read_bytes()
    place.ingest(place.own).put(Item("red-circle.png", "", "another picture"), data, place.shop)
    Images(place.database).delete(place.shop.collection_id, ["red-cross.png"])

    taken = place.generations.fill(*ids, [(one, zero) for one in lacking])
    again = place.generations.fill(*ids, [(one, zero) for one in lacking])

    assert (len(lacking), taken, again) == (32, 28, 0)
    assert place.generations.lacks(*ids) == (1, 1)


def test_a_switch_refuses_while_a_picture_cannot_be_read(
    place: Place, tmp_path: Path, pictures: Path
) -> None:
    path = tmp_path / "gone.png"
    shutil.copy(pictures / "red-circle.png", path)
    list(place.ingest(place.own).run([Item("gone", str(path), "soon gone")], place.shop, source="x"))
    path.unlink()
    second = place.start()

    with pytest.raises(Conflict, match=r"1 pictures have no vector of .* and cannot be read, first 'gone'"):
        place.moves.switch(place.shop, second)
    serves = place.shop.generation
    Images(place.database).delete(place.shop.collection_id, ["gone"])
    place.moves.switch(place.shop, second)

    assert serves is not None and serves.model_id == place.own.model_id
    assert place.shop.generation == second


def test_a_switch_refuses_until_every_running_server_has_the_model(place: Place) -> None:
    processes = Processes(place.database)
    processes.seen("ready", [place.own.model_id, place.other.model_id])
    processes.seen("late", [place.own.model_id])
    second = place.start()

    with pytest.raises(Conflict, match=r"server late has not loaded .* \(1 in all have not\)"):
        place.moves.switch(place.shop, second)
    processes.gone("late")
    place.moves.switch(place.shop, second)

    assert place.shop.generation == second


def test_a_put_that_was_encoded_for_the_generation_before_is_refused_and_done_again(
    place: Place, pictures: Path
) -> None:
    second = place.start()
    place.fill(second)
    data = (pictures / "red-circle.png").read_bytes()
    stale = place.shop
    place.moves.switch(place.shop, second)
    old, both = place.ingest(place.own), place.ingest(place.own, place.other)

    with pytest.raises(Conflict, match="holds vectors of"):
        old.put(Item("x", "", "x"), data, place.shop)
    with pytest.raises(GenerationSwitched, match="was switched to another model"):
        Images(place.database).put(
            stale.collection_id,
            stale.generation.generation_id,  # type: ignore[union-attr]
            [new_image("y", np.zeros(place.own.embed_dim, np.float32))],
        )
    both.put(Item("x", "", "x"), data, stale)

    place.assert_vectors_of(second, place.other)
    assert "y" not in Images(place.database).find(stale.collection_id, ["y"])


def test_dropping_takes_what_does_not_serve_and_a_dropped_one_cannot_be_switched_to(place: Place) -> None:
    second = place.start()
    place.fill(second)
    collection_id = place.shop.collection_id

    gone = place.generations.drop(collection_id)

    assert [one.model_id for one in gone] == [place.other.model_id]
    assert len(place.generations.kept(collection_id)) == 1
    with pytest.raises(NotFound, match="generation"):
        place.generations.switch(collection_id, second.generation_id)
    with pytest.raises(NotFound, match="earlier generation of collection 'shop'"):
        place.moves.rollback(place.shop)
    place.live.poll()
    assert [view.generation.model_id for view in place.live.views()] in ([], [place.own.model_id])


def test_two_generations_are_compared_by_what_they_find(place: Place) -> None:
    second = place.start()
    place.fill(second)
    labelled = [("a red circle", "red-circle.png"), ("nothing of the kind", "no such key")]

    said = place.moves.compare(place.shop, second, k=3, labelled=labelled)

    assert 0 < said.overlap < 1 and (said.queries, said.labelled) == (16, 2)
    assert said.recall is not None and said.recall[0] == 0.5
    assert place.moves.compare(place.shop, place.shop.generation, k=3).overlap == 1.0  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["same model", "another is filled", "no vectors"])
def test_a_generation_that_makes_no_sense_is_not_started(place: Place, state: str) -> None:
    shop = place.shop
    model = {"model_id": "third", "model_name": "third", "embed_dim": 4, "preprocessing": "x"}
    if state == "same model":
        model["model_id"] = place.own.model_id
    elif state == "another is filled":
        place.start()
    else:
        shop = Collections(place.database).create("empty", is_bank=False, limits=LIMITS)

    with pytest.raises(Conflict, match=r"is of model|is being filled|has no vectors yet"):
        place.generations.start(shop.collection_id, **model)  # type: ignore[arg-type]


# -- a server ----------------------------------------------------------------------------------------------


@pytest.fixture
def two_servers(place: Place, tmp_path: Path) -> Iterator[list[SearchEngine]]:
    """Two engines over one database, as two processes would have them."""
    config = Config(data=place.data)
    config = replace(config, index=IndexConfig(poll_s=0.05, fold_rows=8))
    engines = [SearchEngine(config, place.database, place.own) for _ in range(2)]
    for engine in engines:
        engine.start()
    yield engines
    for engine in engines:
        engine.close()


def test_servers_answer_from_one_generation_at_a_time_and_switch_within_a_poll(
    place: Place, two_servers: list[SearchEngine]
) -> None:
    """Searches run on while a generation is filled, switched to, and switched back from."""
    models = {place.own.model_id: place.own, place.other.model_id: place.other}
    rows = {
        name: dict(zip(keys, encoder.encode_texts(keys), strict=True))
        for name, encoder in models.items()
        for keys in [
            [text for r in Images(place.database).page(place.shop.collection_id) for text in r.texts]
        ]
    }
    wrong: list[str] = []
    seen: set[str] = set()
    stop = threading.Event()

    def search(engine: SearchEngine) -> None:
        while not stop.is_set():
            got = engine.search(m.SearchRequest(collection="shop", text="a red cross", target="texts", k=5))
            vector = models[got.model_id].encode_texts(["a red cross"])[0]
            seen.add(got.model_id)
            for hit in got.texts or []:
                if abs(float(vector @ rows[got.model_id][hit.text]) - hit.score) > 3e-3:
                    wrong.append(f"{got.model_id}: {hit.text} {hit.score}")
            if len(got.texts or []) != 5:
                wrong.append(f"{len(got.texts or [])} hits")

    threads = [threading.Thread(target=search, args=(engine,)) for engine in two_servers]
    for thread in threads:
        thread.start()
    try:
        second = place.start()
        place.fill(second)
        live = Processes(place.database).live
        wait_for(
            lambda: all(place.other.model_id in models for models in live().values()) and len(live()) == 2
        )
        place.moves.switch(place.shop, second)
        ids = [e.search(m.SearchRequest(collection="shop", text="a red cross")).model_id for e in two_servers]
        place.moves.rollback(place.shop)
        back = [
            e.search(m.SearchRequest(collection="shop", text="a red cross")).model_id for e in two_servers
        ]
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert wrong == []
    assert seen == set(models)
    assert ids == [place.other.model_id] * 2 and back == [place.own.model_id] * 2
