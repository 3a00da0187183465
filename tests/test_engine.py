import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from indexer.conditions import FilterError
from indexer.database import Database
from indexer.errors import Conflict, NotFound
from indexer.store.images import Images
from search import messages as m
from search.config import Config, ServerSection
from search.engine import SearchEngine, cosine, new_request_id
from search.errors import NotReady
from search.messages import BadRequest, SearchRequest
from tests.deadline import wait_for
from tests.drawn import COLOURS, SHAPES, draw, encoded
from textmm.encoder import Encoder
from textmm.transforms import ImageTooLarge

NAMES = [f"{colour}-{shape}.png" for shape in SHAPES for colour in COLOURS]
TITLES = [f"a {colour} {shape}" for shape in SHAPES for colour in COLOURS]
PICTURES = [draw(shape, colour) for shape in SHAPES for colour in COLOURS]


def keys(response: m.SearchResponse) -> list[str]:
    return [hit.key for hit in response.hits or []]


@pytest.mark.parametrize("text", [*TITLES[:4], "something else"])
def test_a_search_equals_exact_search_over_all_pictures(
    engine: SearchEngine, encoder: Encoder, text: str
) -> None:
    stored = encoder.encode_images(PICTURES).astype(np.float16).astype(np.float32)
    scores = stored @ encoder.encode_texts([text])[0]

    hits = engine.search(SearchRequest(collection="shop", text=text, k=16)).hits or []

    by_key = dict(zip(NAMES, scores.tolist(), strict=True))
    assert sorted(hit.key for hit in hits) == sorted(NAMES)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)
    assert [hit.score for hit in hits] == pytest.approx([by_key[hit.key] for hit in hits], abs=1e-5)


def test_k_beyond_the_collection_gives_all_there_are(engine: SearchEngine) -> None:
    assert len(keys(engine.search(SearchRequest(collection="shop", text="x", k=1000)))) == 16
    assert len(keys(engine.search(SearchRequest(collection="shop", image_key="red-cross.png", k=1000)))) == 15


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"colour": "red"}, [n for n in NAMES if n.startswith("red-")]),
        ({"colour": "red", "shape": "cross"}, ["red-cross.png"]),
        ({"number": 5}, [NAMES[5]]),
        ({"number": 5.0}, [NAMES[5]]),
        ({"number": "5"}, [NAMES[5]]),
        ({"colour": "purple"}, []),
        ({"colour": "red", "number": 1}, []),
    ],
)
def test_a_filter_lets_exactly_the_pictures_through_for_which_all_equalities_hold(
    engine: SearchEngine, where: dict[str, str | int | float | bool], expected: list[str]
) -> None:
    images = engine.search(SearchRequest(collection="shop", text="x", k=16, filter=where))
    texts = engine.search(SearchRequest(collection="shop", text="x", k=16, filter=where, target="texts"))

    assert sorted(keys(images)) == sorted(expected)
    assert sorted(text.key for text in texts.texts or []) == sorted(expected)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"new": True}, ["a"]),
        ({"new": False}, ["b"]),
        ({"new": "true"}, ["a"]),
        ("new = true and sizes = m", ["a"]),
        ("not new = true and new exists", ["b"]),
        ({"sizes": "m"}, ["a", "b"]),
        ({"sizes": "xl"}, ["b"]),
        ({"price": 2.5}, ["a"]),
    ],
)
def test_a_filter_takes_values_in_their_type_and_looks_into_lists(
    engine: SearchEngine, where: str | dict[str, str | int | float | bool], expected: list[str]
) -> None:
    data = encoded(draw("circle", "red"))
    first = m.PutImageRequest(attributes={"new": True, "sizes": ["s", "m"], "price": 2.5})
    second = m.PutImageRequest(attributes={"new": False, "sizes": ["m", "xl"], "price": 3})
    engine.catalogue.put_image("shop", "a", first, image=data)
    engine.catalogue.put_image("shop", "b", second, image=data)

    found = engine.search(SearchRequest(collection="shop", text="x", k=18, filter=where))

    assert sorted(keys(found)) == expected


def test_a_filter_follows_a_picture_whose_attributes_changed(engine: SearchEngine) -> None:
    data = encoded(draw("circle", "red"))
    engine.catalogue.put_image(
        "shop", "red-circle.png", m.PutImageRequest(attributes={"colour": "crimson"}), image=data
    )

    def with_colour(colour: str) -> list[str]:
        return keys(engine.search(SearchRequest(collection="shop", text="x", filter={"colour": colour})))

    assert "red-circle.png" not in with_colour("red")
    assert with_colour("crimson") == ["red-circle.png"]


def test_an_attribute_that_no_image_has_is_an_error_not_an_empty_answer(engine: SearchEngine) -> None:
    with pytest.raises(FilterError, match="'size'; there are: colour, number, shape"):
        engine.search(SearchRequest(collection="shop", text="x", filter={"size": "m"}))


def test_k_hits_come_though_the_nearest_were_deleted_behind_this_engines_back(
    engine: SearchEngine, indexed: Database
) -> None:
    every = keys(engine.search(SearchRequest(collection="shop", text="a red circle", k=16)))
    collection = engine.collections.get("shop")
    Images(indexed).delete(collection.collection_id, every[:6])  # as another process would

    found = keys(engine.search(SearchRequest(collection="shop", text="a red circle", k=5)))

    assert found == every[6:11]


def test_what_another_process_wrote_is_taken_up_by_itself(
    engine: SearchEngine, config: Config, encoder: Encoder
) -> None:
    other_database = Database(config.database_url)
    other = SearchEngine(config, other_database, encoder)  # as another process would
    other.catalogue.put_image(
        "shop", "new", m.PutImageRequest(title="new"), image=encoded(draw("circle", "red"))
    )
    other.close()
    other_database.close()

    request = SearchRequest(collection="shop", text="new", k=17)
    wait_for(lambda: "new" in keys(engine.search(request)))


def test_a_collection_of_another_model_is_a_conflict_that_names_both(
    engine: SearchEngine, indexed: Database, encoder: Encoder
) -> None:
    with indexed.write() as connection:
        connection.exec_driver_sql("UPDATE generation SET model_id = 'old-00000000'")

    said = f"holds vectors of old-00000000, this .* {re.escape(encoder.model_id)}"
    with pytest.raises(Conflict, match=said):
        engine.search(SearchRequest(collection="shop", text="x"))
    with pytest.raises(Conflict, match=said):
        engine.catalogue.put_image("shop", "a", m.PutImageRequest(), image=encoded(draw("circle", "red")))


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        ([1.0] * 31, "vector has 31 numbers, tiny-.* makes 32"),
        ([0.0] * 32, "finite and not zero"),
        ([float("nan")] + [1.0] * 31, "finite and not zero"),
        ([float("inf")] + [1.0] * 31, "finite and not zero"),
    ],
)
def test_a_vector_that_has_no_direction_is_refused(
    engine: SearchEngine, vector: list[float], said: str
) -> None:
    with pytest.raises(BadRequest, match=said) as caught:
        engine.search(SearchRequest(collection="shop", vector=vector))

    assert caught.value.param == "vector"


def test_a_picture_over_the_servers_pixel_limit_is_refused_where_it_asks_and_where_it_is_put(
    config: Config, indexed: Database, encoder: Encoder
) -> None:
    engine = SearchEngine(replace(config, server=ServerSection(max_image_pixels=1000)), indexed, encoder)
    data = encoded(draw("circle", "red"))

    for ask in (
        lambda: engine.search(SearchRequest(collection="shop"), image=data),
        lambda: engine.catalogue.put_image("shop", "a", m.PutImageRequest(), image=data),
    ):
        with pytest.raises(ImageTooLarge, match="64 x 64 pixels is over the limit of 1000"):
            ask()
    engine.close()


def test_deleting_says_which_keys_were_there(engine: SearchEngine) -> None:
    assert sorted(engine.catalogue.delete_images("shop", ["red-circle.png", "no", "red-cross.png"])) == [
        "red-circle.png",
        "red-cross.png",
    ]
    with pytest.raises(NotFound, match="no collection 'no'"):
        engine.catalogue.delete_images("no", ["a"])


def test_took_ms_adds_up(engine: SearchEngine) -> None:
    took = engine.search(SearchRequest(collection="shop", text="x", captions=True)).took_ms

    assert min(took.encode, took.search, took.rows, took.caption) > 0
    assert took.encode + took.search + took.rows + took.caption <= took.total + 0.01  # each is rounded


def test_an_engine_is_ready_until_it_is_closed(engine: SearchEngine) -> None:
    engine.check_ready()
    engine.close()

    with pytest.raises(NotReady, match="a small query failed: NotReady"):
        engine.check_ready()


def test_request_ids_are_all_different_and_sort_by_time() -> None:
    first = [new_request_id() for _ in range(100)]
    wait_for(lambda: new_request_id()[:11] > max(first)[:11])
    later = new_request_id()

    assert len(set(first)) == 100
    assert max(first) < later


@pytest.mark.parametrize(
    ("product", "score"), [(1.0006, 1.0), (-1.0006, -1.0), (0.12345678, 0.123457), (np.float32(0.5), 0.5)]
)
def test_a_score_is_a_cosine_of_six_digits(product: float, score: float) -> None:
    assert cosine(product) == score


@pytest.mark.parametrize("names", [["circle", "square"], ["square", "circle"]])
def test_texts_are_searched_by_a_stored_picture_too(engine: SearchEngine, names: Sequence[str]) -> None:
    request = SearchRequest(collection="shop", image_key=f"red-{names[0]}.png", target="texts", k=1)

    found = engine.search(request)

    assert [(text.key, text.text) for text in found.texts or []] == [
        (f"red-{names[0]}.png", f"a red {names[0]}")
    ]
    assert found.caption
