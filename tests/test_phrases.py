"""What is said of pictures by their attributes; titles without brands."""

import pytest

from tests.test_pairs import TITLES
from textmm.phrases import brand_words, without_brand


def test_words_that_titles_begin_with_and_hardly_have_within_are_brands() -> None:
    brands = brand_words(TITLES)

    assert brands >= {"Acme", "United", "Colors", "of", "Paris"}
    assert not brands & {"Men", "Women", "Shirt", "Dress", "Shoes", "Black"}


@pytest.mark.parametrize(
    ("title", "left"),
    [
        ("Acme Men Red Shirt", "Men Red Shirt"),
        ("United Colors of Paris Women Red Dress", "Women Red Dress"),
        ("Women Red Dress of Paris", "Women Red Dress of Paris"),
        ("Acme", "Acme"),
    ],
)
def test_a_title_loses_the_brand_that_it_begins_with(title: str, left: str) -> None:
    assert without_brand(title, brand_words(TITLES)) == left
