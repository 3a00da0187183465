"""A conversation with mini over drawn products: the openai client against a real server process."""

import io
import os
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from search.asked_attribute import asked_attribute
from search.dialogue import of_it
from tests.conftest import ROOT
from tests.deadline import wait_for
from textmm.drawings import drawn_products
from textmm.encoder import Encoder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mini(trunks: Path) -> Encoder:
    return Encoder.load("mini", trunks)


@pytest.fixture(scope="module")
def ai(tmp_path_factory: pytest.TempPathFactory, trunks: Path) -> Iterator[openai.OpenAI]:
    """A client of `textmm demo` with 192 products: each kind in each colour once."""
    folder = tmp_path_factory.mktemp("demo")
    settings = folder / "config.toml"
    settings.write_text(f'data = "{folder / "data"}"\n[model]\nname = "mini"\nthreads = 1\n')
    (folder / "data").mkdir()
    (folder / "data" / "trunks").symlink_to(trunks)
    log = folder / "log"
    command = [sys.executable, "-m", "search.cli.main", "demo", "--port", "0", "--products", "192"]
    environment = {**os.environ, "TEXTMM_CONFIG": str(settings)}
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stderr=file, env=environment)
    try:
        found = wait_for(lambda: re.search(r"serving on (http://\S+)", log.read_text()), timeout_s=300)
        assert found
        with openai.OpenAI(base_url=f"{found[1]}/v1", api_key="any", max_retries=0, timeout=120) as ai:
            yield ai
    finally:
        process.terminate()
        process.wait(60)


def conversation(ai: openai.OpenAI, *turns: Any) -> list[Any]:
    """The messages that answer each turn, every answer sent back with the next."""
    messages: list[Any] = []
    answers = []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        answer = ai.chat.completions.create(model="mini/demo", messages=messages, extra_body={"k": 5})
        messages.append(answer.choices[0].message)
        answers.append(answer.choices[0].message)
    return answers


def values(message: Any, name: str) -> set[str]:
    return {hit["attributes"][name] for hit in message.textmm["hits"]}


def test_a_search_is_narrowed_changed_and_paged(ai: openai.OpenAI) -> None:
    first, blue, without, more, like, over = conversation(
        ai,
        "show me dresses",
        "only blue ones",
        "换成红色",
        "show me more",
        "没有了。看看运动鞋",
        "start over",
    )

    assert values(first, "kind") == {"dress"}
    assert (values(blue, "kind"), values(blue, "colour")) == ({"dress"}, {"blue"})
    assert values(without, "colour") == {"red"}
    assert (more.textmm["operation"], more.textmm["search"]["offset"]) == ("next_page", 5)
    assert values(like, "kind") == {"sneakers"}
    assert (over.textmm["operation"], over.textmm["hits"]) == ("reset", [])


def test_the_second_is_the_second_hit_of_the_last_search(ai: openai.OpenAI) -> None:
    found, similar, price = conversation(
        ai, "handbags", "more like the second one", "how much is the first one?"
    )

    assert similar.textmm["search"]["image_key"] == found.textmm["hits"][1]["key"]
    assert str(similar.textmm["hits"][0]["attributes"]["price"]) in price.content


@pytest.mark.parametrize("question", ["is the first one waterproof?", "what is the first one made of?"])
def test_of_what_is_not_known_of_a_hit_no_other_attribute_is_told(ai: openai.OpenAI, question: str) -> None:
    found, known, said = conversation(ai, "handbags", "what is the price of the first one?", question)

    first = found.textmm["hits"][0]["attributes"]
    assert known.content == f"price: {first['price']}"
    assert said.content not in [f"{name}: {value}" for name, value in first.items()]


@pytest.mark.parametrize(
    ("question", "names", "about"),
    [
        ("how much does it cost?", ["title", "listPrice", "base_colour"], "listPrice"),
        ("它是什么牌子的？", ["base_colour", "品牌"], "品牌"),
        ("which season is it for?", ["season", "year"], "season"),
        ("can it be tumble dried?", ["base_colour", "price", "kind"], None),
        ("what will the weather be like?", ["__", "price"], None),
        ("what colour is it?", [], None),
    ],
)
def test_a_question_is_about_the_attribute_of_its_meaning_or_none(
    mini: Encoder, question: str, names: list[str], about: str | None
) -> None:
    assert asked_attribute(question, names, mini.encode_texts) == about


@pytest.mark.parametrize(
    ("question", "plain"),
    [
        ("what is the first one made of?", "what is it made of?"),
        ("how much is the second one?", "how much is it?"),
        ("第二个多少钱？", "它多少钱？"),
    ],
)
def test_how_a_hit_is_pointed_at_is_no_part_of_the_question(question: str, plain: str) -> None:
    assert of_it(question) == plain


def picture_of(kind: str) -> dict[str, Any]:
    """A part of a message: the first product of that kind that is drawn and not in the collection."""
    product = next(p for p in drawn_products(200, seed=5) if p.attributes["kind"] == kind)
    out = io.BytesIO()
    product.image.save(out, "JPEG")
    address = f"data:image/jpeg;base64,{b64encode(out.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": address}}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def test_of_several_pictures_each_is_told_and_one_may_be_pointed_at(ai: openai.OpenAI) -> None:
    several = [text("what is this?"), picture_of("backpack"), picture_of("dress")]

    both, first, none, alike = conversation(
        ai, several, "what is the first one?", "what is the third one?", "show me more like the second"
    )
    _, later, second = conversation(
        ai, [text("what is this?"), picture_of("watch")], several, "what is the 2nd one?"
    )

    lines = both.content.splitlines()
    assert len(lines) == 2 and lines[0].startswith("1. ") and lines[1].startswith("2. ")
    assert "backpack" in lines[0].lower() and "dress" in lines[1].lower()
    assert "backpack" in first.content.lower() and "dress" not in first.content.lower()
    assert none.content == "There is no picture number 3."
    numbered = later.content.splitlines()
    assert numbered[0].startswith("2. ") and numbered[1].startswith("3. ")
    assert "backpack" in second.content.lower()
    assert alike.textmm["search"]["picture"] and values(alike, "kind") == {"dress"}


def test_more_like_a_hit_that_is_not_there_keeps_the_search_and_says_so(ai: openai.OpenAI) -> None:
    _, like, missed = conversation(ai, "handbags", "more like the second one", "more like the 50th one")

    assert missed.content == "There is no hit number 50." and not missed.textmm["hits"]
    assert missed.textmm["search"] == like.textmm["search"]


def test_a_picture_is_described_and_asked_about(ai: openai.OpenAI) -> None:
    picture = [text("what is in this picture?"), picture_of("backpack")]
    described, asked, denied = conversation(ai, picture, "is it a backpack?", "is it a dress?")

    assert described.textmm["operation"] == "describe"
    assert asked.content.startswith("Yes")
    assert denied.content.startswith("No")


@pytest.mark.parametrize(
    ("turn", "says"), [("who is the king of Spain?", "pictures"), ("给我讲个笑话", "图片")]
)
def test_anything_else_is_out_of_scope_and_told_so(ai: openai.OpenAI, turn: str, says: str) -> None:
    (answer,) = conversation(ai, turn)

    assert answer.textmm["operation"] == "out_of_scope"
    assert says in answer.content
