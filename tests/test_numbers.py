import pytest

from search.numbers import chinese_number, limits, places


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("under 50", (("<", 50.0),)),
        ("up to 30 dollars", (("<=", 30.0),)),
        ("no more than 80 please", (("<=", 80.0),)),
        ("not under 20", ((">=", 20.0),)),
        ("between 60 and 40", ((">=", 40.0), ("<=", 60.0))),
        ("about 50", ((">=", 40.0), ("<=", 60.0))),
        ("at least $12.50", ((">=", 12.5),)),
        ("五十块以下", (("<=", 50.0),)),
        ("100到200之间", ((">=", 100.0), ("<=", 200.0))),
        ("高于一百二十元", ((">", 120.0),)),
    ],
)
def test_a_limit_is_read_with_its_sign(text: str, sides: tuple[tuple[str, float], ...]) -> None:
    (found,) = limits(text)

    assert found.sides == sides


@pytest.mark.parametrize("text", ["show me 5 dresses", "no red ones", "一件衣服", ""])
def test_a_number_without_a_word_of_limits_is_none(text: str) -> None:
    assert limits(text) == []


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("more like the second one", 2),
        ("number 3", 3),
        ("the 4th pair", 4),
        ("#12", 12),
        ("number two", 2),
        ("the last one", -1),
        ("第三双", 3),
        ("第十二个", 12),
        ("最后一件", -1),
    ],
)
def test_a_place_among_hits_is_read(text: str, hit: int) -> None:
    assert [place.hit for place in places(text)] == [hit]


@pytest.mark.parametrize(
    ("text", "number"), [("两百五十", 250), ("十", 10), ("三千零五", 3005), ("一万二千", 12_000)]
)
def test_chinese_numbers(text: str, number: int) -> None:
    assert chinese_number(text) == number
