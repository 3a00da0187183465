import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from textmm.questions import THINGS, Question, Questions, variants
from textmm.sources import Item

SHIPPED = "questions.toml"
COLOURS, TYPES = ("Red", "Blue", "Black"), ("Watches", "Handbags")


def product(i: int) -> Item:
    return Item(f"p{i}", f"{i}.png", None, (), {"base_colour": COLOURS[i % 3], "article_type": TYPES[i % 2]})


def photo(i: int) -> Item:
    said = (
        ("A dog runs on the grass .", "a brown dog plays")
        if i % 2
        else ("Two men on a beach", "a man and the sea")
    )
    return Item(f"f{i}", f"{i}.png", None, said, {})


PRODUCTS, PHOTOS = [product(i) for i in range(12)], [photo(i) for i in range(12)]


@pytest.fixture(scope="module")
def questions() -> Questions:
    return Questions(SHIPPED, [*PRODUCTS, *PHOTOS])


def asked(questions: Questions, item: Item, count: int = 400, language: str = "en") -> list[Question]:
    rng = np.random.default_rng(1)
    made = [questions.ask(item, rng, language=language) for _ in range(count)]
    return [q for q in made if q is not None]


def test_the_answer_to_an_open_question_is_the_value_of_the_attribute(questions: Questions) -> None:
    open_ones = [q for q in asked(questions, PRODUCTS[0]) if q.yes is None]

    assert {(q.about, q.answer) for q in open_ones} == {("base_colour", "red"), ("article_type", "watches")}
    assert len({q.text for q in open_ones}) > 15


def test_half_of_the_questions_for_yes_or_no_are_true_and_each_says_what_it_asks(
    questions: Questions,
) -> None:
    whether = [
        q for q in asked(questions, PRODUCTS[0], 2000) if q.yes is not None and q.about == "base_colour"
    ]

    assert np.mean([q.yes for q in whether]) == pytest.approx(0.5, abs=0.07)
    for q in whether:
        assert q.answer == ("yes" if q.yes else "no")
        named = [colour for colour in ("red", "blue", "black") if colour in q.text.rstrip("?").split()]
        assert len(named) <= 1 and (not named or (named == ["red"]) == q.yes)  # or by another word: scarlet


def test_words_of_a_question_do_not_tell_its_answer(questions: Questions) -> None:
    """Over all items a value is asked for in vain as often as it is true."""
    rng = np.random.default_rng(2)
    counts: Counter[tuple[bool, bool]] = Counter()
    for _ in range(600):
        for item in PRODUCTS:
            q = questions.ask(item, rng)
            if q is not None and q.yes is not None and q.about == "base_colour":
                counts["blue" in q.text, q.yes] += 1

    assert counts[True, True] / (counts[True, True] + counts[True, False]) == pytest.approx(0.5, abs=0.1)


def test_of_a_photo_it_asks_for_what_its_sentences_name(questions: Questions) -> None:
    made = asked(questions, PHOTOS[1])

    assert {q.about for q in made} == {THINGS}
    assert {q.answer for q in made if q.yes is None} == {"a dog, grass"}  # both sentences name the dog
    for q in made:
        if q.yes is not None:
            assert q.yes == any(word in q.text for word in ("a dog", "grass"))
            assert q.yes or any(word in q.text for word in ("a man", "beach", "water", "sand"))


def test_questions_in_chinese_have_answers_in_chinese(questions: Questions) -> None:
    made = asked(questions, PRODUCTS[1], language="zh")

    assert {q.answer for q in made} >= {"蓝色", "是", "不是"}
    assert not any(c.isascii() and c.isalpha() for q in made for c in q.text + q.answer)


def test_nothing_is_asked_about_a_picture_of_which_nothing_is_known(questions: Questions) -> None:
    assert asked(questions, Item("x", "x.png", None, (), {})) == []
    assert asked(questions, Item("x", "x.png", None, ("Nothing of note",), {})) == []


def test_own_phrasings_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        'yes = {en = "aye"}\nno = {en = "nay"}\nsynonyms = {en = "en.csv"}\n'
        '[[about]]\nattributes = ["size"]\nask = {en = ["how big?"]}\nwhether = {en = ["is it {value}?"]}\n'
    )
    items = [Item("a", "a.png", None, (), {"size": "Large"}), Item("b", "b.png", None, (), {"size": "Small"})]

    made = set(asked(Questions(str(file), items), items[0]))

    assert made == {
        Question("how big?", "large", "size"),
        Question("is it large?", "aye", "size", True),
        Question("is it small?", "nay", "size", False),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('no = {en = "no"}\nsynonyms = {en = "en.csv"}', "yes is missing"),
        (
            'yes = {en = "yes", zh = "是"}\nno = {en = "no"}\nsynonyms = {en = "en.csv"}',
            "no is missing for zh",
        ),
        ('yes = {en = "yes"}\nno = {en = "no"}\nsynonyms = {en = "en.csv"}', "neither about nor things"),
        (
            'yes = {en = "yes"}\nno = {en = "no"}\nsynonyms = {en = "en.csv"}\n[[about]]\nattributes = ["size"]\n'
            'ask = {en = ["how big?"]}',
            "about 1: whether is missing",
        ),
    ],
)
def test_a_file_of_questions_that_lacks_something_is_told(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text + "\n", encoding="utf-8")

    with pytest.raises(ValueError, match=said):
        Questions(str(file), [])


def test_a_phrasing_stands_for_its_variants() -> None:
    assert variants("(is|was) it (very |)red?") == [
        "is it very red?",
        "is it red?",
        "was it very red?",
        "was it red?",
    ]
    assert variants("(please|) say what (it|this) is") == [
        "please say what it is",
        "please say what this is",
        "say what it is",
        "say what this is",
    ]


def test_the_evaluation_asks_in_words_that_training_never_had() -> None:
    def phrasings(path: Path) -> set[str]:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        groups = [*data["about"], data["things"]]
        ways = [
            group[how][language]
            for group in groups
            for how in ("ask", "whether")
            for language in ("en", "zh")
        ]
        return {text.rstrip("?.").lower() for texts in ways for way in texts for text in variants(way)}

    taught = phrasings(ROOT / "textmm" / "recipes" / SHIPPED)
    asked = phrasings(ROOT / "tests" / "benchmarks" / "ask" / SHIPPED)

    assert len(asked) > 30 and not taught & asked
