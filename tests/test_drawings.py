import csv
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textmm.drawings import COLOURS, KINDS, DrawnProduct, draw_catalogue, drawn_products

pytestmark = pytest.mark.slow
PAIRS = len(KINDS) * len(COLOURS)


@pytest.fixture(scope="module")
def products() -> list[DrawnProduct]:
    return list(drawn_products(PAIRS, seed=3))


def same(one: DrawnProduct, other: DrawnProduct) -> bool:
    words = (one.key, one.title, one.attributes) == (other.key, other.title, other.attributes)
    return words and one.image.size == other.image.size and one.image.tobytes() == other.image.tobytes()


def test_the_same_seed_draws_the_same_products_and_another_seed_draws_others() -> None:
    first, again, other = (list(drawn_products(4, seed=seed)) for seed in (7, 7, 8))

    assert all(same(one, two) for one, two in zip(first, again, strict=True))
    assert not any(same(one, two) for one, two in zip(first, other, strict=True))


def test_a_product_does_not_depend_on_how_many_are_drawn(products: list[DrawnProduct]) -> None:
    few, more = list(drawn_products(5, seed=3)), list(drawn_products(20, seed=3))

    assert [len(few), len(more)] == [5, 20]
    assert all(same(one, two) for one, two in zip(few, more[:5], strict=True))
    assert all(same(one, two) for one, two in zip(more, islice(products, 20), strict=True))


def test_every_pair_of_kind_and_colour_comes_once_in_a_block(products: list[DrawnProduct]) -> None:
    pairs = Counter((product.attributes["kind"], product.attributes["colour"]) for product in products)

    assert pairs == Counter({(kind, colour): 1 for kind in KINDS for colour in COLOURS})


def test_kinds_take_turns_so_that_a_few_products_hold_them_all(products: list[DrawnProduct]) -> None:
    assert {product.attributes["kind"] for product in products[: len(KINDS)]} == set(KINDS)


def test_a_title_names_the_kind_and_the_colour(products: list[DrawnProduct]) -> None:
    for product in products:
        words = product.title.lower()
        assert str(product.attributes["kind"]) in words
        assert str(product.attributes["colour"]) in words
    assert len({product.key for product in products}) == PAIRS


def test_plain_products_show_the_colour_they_are_named_after(products: list[DrawnProduct]) -> None:
    names, table = list(COLOURS), np.array(list(COLOURS.values()), dtype=np.float64)
    filling_the_middle = {"t-shirt", "jacket", "dress", "skirt", "backpack", "handbag", "cap"}
    shown, named = [], []
    for product in products:
        attributes = product.attributes
        if attributes["pattern"] == "plain" and attributes["kind"] in filling_the_middle:
            width, height = product.image.size
            middle = product.image.crop(
                (width * 4 // 10, height * 4 // 10, width * 6 // 10, height * 6 // 10)
            )
            colour = np.median(np.asarray(middle).reshape(-1, 3), axis=0)
            distances = np.linalg.norm(table - colour, axis=1)
            shown.append(names[int(distances.argmin())])
            named.append(attributes["colour"])

    assert len(named) > 20
    assert shown == named


def test_a_catalogue_lists_every_picture_it_drew(tmp_path: Path) -> None:
    table = draw_catalogue(tmp_path / "shop", 6, seed=5)

    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "key",
        "path",
        "title",
        "kind",
        "category",
        "colour",
        "pattern",
        "style",
        "price",
    ]
    for row, product in zip(rows, drawn_products(6, seed=5), strict=True):
        assert (row["key"], row["title"]) == (product.key, product.title)
        assert float(row.pop("price")) == product.attributes["price"]
        assert (
            row.items()
            >= {name: value for name, value in product.attributes.items() if name != "price"}.items()
        )
        with Image.open(table.parent / row["path"]) as picture:
            assert (picture.format, picture.size) == ("JPEG", product.image.size)
    pictures = {
        path.relative_to(table.parent).as_posix() for path in (tmp_path / "shop" / "pictures").iterdir()
    }
    assert pictures == {row["path"] for row in rows}
    assert {path.name for path in table.parent.iterdir()} == {"pictures", "products.csv"}
