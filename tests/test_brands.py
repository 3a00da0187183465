"""Titles without the brands they begin with."""

import pytest

from tests.test_pairs import TITLES
from textmm.brands import brand_names, without_brand
from textmm.sources import Item


def items(titles: tuple[str, ...], **attributes: str) -> list[Item]:
    return [Item(key=str(i), locator="", title=t, attributes=attributes) for i, t in enumerate(titles)]


UNTOLD = brand_names(items(TITLES))
POLOS = (
    *(f"Mallet & Polo Assn. Men {colour} Shirt" for colour in ("Red", "Blue", "Green")),
    *(f"Acme Men {colour} Polo Shirt" for colour in ("Red", "Blue", "Green", "Black")),
    *(f"Brook & Sons Men {thing} & Tie" for thing in ("Shirt", "Suit", "Scarf")),
)
TOLD = brand_names(items(POLOS, gender="Men", colour="Green"))


def test_words_that_titles_begin_with_and_hardly_have_within_are_brands() -> None:
    words = {word for name in UNTOLD for word in name}

    assert words == {"Acme", "United", "Colors", "of", "Paris"}


@pytest.mark.parametrize(
    ("names", "title", "left"),
    [
        (UNTOLD, "Acme Men Red Shirt", "Men Red Shirt"),
        (UNTOLD, "United Colors of Paris Women Red Dress", "Women Red Dress"),
        (UNTOLD, "Women Red Dress of Paris", "Women Red Dress of Paris"),
        (UNTOLD, "Acme", "Acme"),
        (UNTOLD, "", ""),
        # with attributes, later words of a name may be common elsewhere
        (TOLD, "Mallet & Polo Assn. Men Red Shirt", "Men Red Shirt"),
        (TOLD, "Brook & Sons Men Shirt & Tie", "Men Shirt & Tie"),
        (TOLD, "Acme Men Red Polo Shirt", "Men Red Polo Shirt"),
        (TOLD, "Polo Shirt for Men", "Polo Shirt for Men"),
    ],
)
def test_a_title_loses_the_brand_that_it_begins_with(
    names: frozenset[tuple[str, ...]], title: str, left: str
) -> None:
    assert without_brand(title, names) == left


def test_what_the_attributes_say_is_never_of_a_brand() -> None:
    titles = (
        "Acme Men Shirt",
        "Acme Men Shoes",
        "Acme Men Belt",
        "Bolt Men Tie",
        "Bolt Men Cap",
        "Bolt Men Bag",
    )

    assert without_brand("Acme Men Tie", brand_names(items(titles, gender="men"))) == "Men Tie"
    assert without_brand("Acme Men Tie", brand_names(items(titles))) == "Tie"  # nothing tells that it is none


def test_a_brand_column_tells_brands_and_neither_it_nor_a_description_hides_them() -> None:
    titles = ("Acme Men Shirt", "Red Tape Men Shoes", "Bolt Men Tie")
    rows = [
        Item(t, "", t, attributes={"brand": b, "gender": ["men"], "text": f"a fine thing of {b} for all"})
        for t, b in zip(titles, ("Acme", "red tape", "Other"), strict=True)
    ]

    names = brand_names(rows)

    assert [without_brand(title, names) for title in titles] == ["Men Shirt", "Men Shoes", "Bolt Men Tie"]
