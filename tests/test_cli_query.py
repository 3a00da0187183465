import json
import re
from pathlib import Path

import msgspec
import pytest

from search import messages as m
from tests.conftest import Run
from tests.drawn import encoded
from textmm.drawings import drawn_products
from textmm.encoder import Encoder

PRODUCT = next(iter(drawn_products(1, seed=5))).image


@pytest.fixture
def shop(run: Run, pictures: Path) -> Run:
    """The command line over a data folder with collection `shop`."""
    assert run("index", pictures / "captions.csv", "--collection", "shop").code == 0
    return run


def test_search_prints_a_line_a_hit_best_first_and_what_it_took(shop: Run, encoder: Encoder) -> None:
    done = shop("search", "a red circle", "--collection", "shop", "-k", "2")

    first, second, took = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r" 0\.\d{4}  red-circle\.png  a red circle", first)
    assert re.fullmatch(r" 0\.\d{4}  [a-z-]+\.png  a [a-z ]+", second)
    assert re.fullmatch(rf"{encoder.model_id}: [\d.]+ ms \(encode [\d.]+, search [\d.]+\)", took)


def test_search_as_json_is_the_search_response(shop: Run, encoder: Encoder) -> None:
    done = shop("search", "a red circle", "--collection", "shop", "-k", "3", "--json")

    response = msgspec.json.decode(done.out, type=m.SearchResponse)
    assert m.to_json(response).decode() + "\n" == done.out
    assert (response.collection, response.model_id) == ("shop", encoder.model_id)
    assert response.hits is not None
    assert (len(response.hits), response.hits[0].key) == (3, "red-circle.png")


def test_search_by_a_picture_finds_it(shop: Run, pictures: Path) -> None:
    done = shop("search", "--image", pictures / "blue-cross.png", "--collection", "shop", "--json")

    assert json.loads(done.out)["hits"][0]["key"] == "blue-cross.png"


def test_search_for_texts_of_a_picture_also_writes_a_caption(shop: Run, pictures: Path) -> None:
    picture = pictures / "red-circle.png"
    done = shop("search", "--image", picture, "--collection", "shop", "--target", "texts", "-k", "1")

    caption, text, _ = done.out.splitlines()
    assert re.fullmatch(r"the picture: .+ \(-?\d\.\d{3}, generated\)", caption)
    assert re.fullmatch(r" 0\.\d{4}  a red circle  \[red-circle\.png\]", text)


def test_search_with_captions_prints_them_behind_the_hits(shop: Run) -> None:
    done = shop("search", "a red circle", "--collection", "shop", "-k", "1", "--captions")

    assert re.fullmatch(r" 0\.\d{4}  red-circle\.png  a red circle  — .+", done.out.splitlines()[0])


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["colour=red"], ["red-circle.png", "red-cross.png", "red-square.png", "red-triangle.png"]),
        (["colour=red", "shape=cross"], ["red-cross.png"]),
        (["number=0"], ["red-circle.png"]),
        (["number=0.0"], ["red-circle.png"]),
        (["colour = red and not shape in (circle, cross)"], ["red-square.png", "red-triangle.png"]),
    ],
)
def test_filters_take_the_attributes_type_and_must_all_hold(
    shop: Run, filters: list[str], expected: list[str]
) -> None:
    options = [part for one in filters for part in ("--filter", one)]

    done = shop("search", "x", "--collection", "shop", "--json", *options)

    assert sorted(hit["key"] for hit in json.loads(done.out)["hits"]) == expected


def test_facets_and_the_plan_are_printed_under_the_hits(shop: Run) -> None:
    done = shop(
        *("search", "x", "--collection", "shop", "-k", "1", "--filter", "shape=cross"),
        *("--facet", "colour", "--facet", "shape", "--explain"),
    )

    lines = done.out.splitlines()
    assert lines[1:3] == ["colour: blue 1, green 1, red 1, yellow 1", "shape: cross 4"]
    assert lines[3] == 'exact over the allowed rows: 4 of 16 rows pass shape = "cross"'


def test_nothing_found_is_exit_code_1(shop: Run) -> None:
    done = shop("search", "x", "--collection", "shop", "--filter", "colour=purple", "--json")

    assert (done.code, json.loads(done.out)["hits"]) == (1, [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "--collection", "nowhere"], "there is no collection 'nowhere'"),
        (["x", "--collection", "shop", "-k", "0"], "k: expected `int` >= 1"),
        (["x", "--collection", "shop", "-k", "1001"], "k: expected `int` <= 1000"),
        (["--collection", "shop"], "give exactly one of text, image, image_key, vector; got none"),
        (["", "--collection", "shop"], "text is empty"),
        (["x", "--collection", "shop", "--filter", "size=3"], "'size'; there are: colour, number, shape"),
    ],
)
def test_a_search_that_makes_no_sense_is_one_line(shop: Run, arguments: list[str], said: str) -> None:
    done = shop("search", *arguments)

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("textmm: ")
    assert said in done.err


def test_wrong_usage_says_how_it_is_used(shop: Run, pictures: Path) -> None:
    both = shop("search", "x", "--image", pictures / "red-circle.png", "--collection", "shop")
    bare = shop("search", "x", "--collection", "shop", "--filter", "colour")
    word = shop("search", "x", "--collection", "shop", "--filter", "number=many")
    lost = shop("search", "--image", "nowhere.png", "--collection", "shop")
    none = shop("search", "x")

    assert [done.code for done in (both, bare, word, lost, none)] == [2] * 5
    assert "got text and image" in both.err
    assert "expected a comparison (= != < <= > >= in, prefix, between, exists), found the end" in bare.err
    assert 'number is of type number, and "many" is no number' in word.err
    assert "'nowhere.png' does not exist" in lost.err
    assert "Missing option '--collection'" in none.err


def test_moderate_prints_what_it_found_and_nothing_else(run: Run, tmp_path: Path, encoder: Encoder) -> None:
    bank, asked = tmp_path / "bank", tmp_path / "copy.jpg"
    bank.mkdir()
    (bank / "product.png").write_bytes(encoded(PRODUCT))
    asked.write_bytes(encoded(PRODUCT, "JPEG", quality=60))
    run("index", bank, "--collection", "known", "--bank")

    same = run("moderate", bank / "product.png", "--bank", "known")
    copy = run("moderate", asked, "--bank", "known")
    answer = json.loads(run("moderate", asked, "--bank", "known", "--json").out)

    assert same.code == copy.code == 0
    assert same.out.splitlines()[:2] == [
        f"{bank / 'product.png'}: exact of known/product.png ",
        f"{bank / 'product.png'}: near_copy of known/product.png (distance 0, limit 31)",
    ]
    assert re.match(
        rf"{asked}: near_copy of known/product\.png \(distance \d+, limit 31\)\n"
        rf"{asked}: similar of known/product\.png \(score \d\.\d{{3}}, limit 0\.9\)\n",
        copy.out,
    )
    assert sorted(answer) == ["image", "matches", "model_id"]
    assert (answer["image"], answer["model_id"]) == (str(asked), encoder.model_id)
    assert [match["kind"] for match in answer["matches"]] == ["near_copy", "similar"]


def test_moderate_says_when_nothing_matches_and_names_what_it_cannot_read(
    run: Run, shop: Run, pictures: Path, tmp_path: Path
) -> None:
    bank, broken = tmp_path / "bank", tmp_path / "broken.png"
    bank.mkdir()
    broken.write_bytes(b"no picture")
    run("index", bank, "--collection", "known", "--bank")

    done = run("moderate", broken, pictures / "red-circle.png", "--bank", "known")
    plain = run("moderate", pictures / "red-circle.png", "--bank", "shop")

    assert (done.code, done.out) == (1, f"{pictures / 'red-circle.png'}: no match\n")
    assert done.err.startswith(f"{broken}: not a picture we can read")
    assert (plain.code, plain.err) == (
        2,
        """textmm: collection 'shop' is no bank: make it with "bank": true\n""",
    )
