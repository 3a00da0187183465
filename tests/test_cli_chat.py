"""The dialogue on a terminal: a line a turn. What it understands is in test_dialogue.py."""

import io
import json
from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.fixture
def shop(run: Run, pictures: Path) -> str:
    assert run("index", pictures / "captions.csv", "--collection", "shop").code == 0
    return "shop"


def say(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_a_line_is_a_turn_and_the_second_is_that_of_the_answer_before(
    run: Run, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, "show me circles", "", "more like the second")

    done = run("chat", "--collection", shop, "-k", "3", "--json")

    first, second = (json.loads(line)["choices"][0]["message"]["textmm"] for line in done.out.splitlines())
    assert (done.code, done.err) == (0, "")
    assert len(first["hits"]) == 3
    assert second["search"]["image_key"] == first["hits"][1]["key"]


def test_a_picture_goes_with_the_first_line(
    run: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, "what is in this picture?")

    done = run("chat", "--image", pictures / "red-circle.png")

    assert (done.code, "red" in done.out) == (0, True)


def test_a_line_that_cannot_be_answered_counts_as_not_said(
    run: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, "show me a red circle", "what is in this picture?")

    done = run("chat", "--image", pictures / "red-circle.png")

    assert done.code == 1
    assert done.err.startswith("collection is missing: name the collection to search")
    assert (
        len(done.out.splitlines()) == 1 and "red" in done.out
    )  # the picture waited for a line that could be answered
