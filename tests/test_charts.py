from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.drawn import COLOURS
from textmm.charts import draw
from textmm.figures import Confusion, Miss, Misses, RecallCurve, Reliability
from textmm.metrics import CalibrationBins
from textmm.sources import Item, read_source


@pytest.fixture(scope="module")
def items(pictures: Path) -> list[Item]:
    return list(read_source(str(pictures / "captions.csv")))


def pixels(path: Path) -> NDArray[np.int64]:
    """[height, width, 3]."""
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.int64)


def near(found: NDArray[np.int64], colour: tuple[int, int, int]) -> int:
    """How many pixels have this colour, or nearly."""
    return int((np.abs(found - colour).max(axis=2) < 12).sum())


def test_every_kind_of_picture_is_drawn_under_its_name(items: list[Item], tmp_path: Path) -> None:
    curve = RecallCurve({"text to image": np.linspace(0.2, 1, 16), "image to text": np.linspace(0.1, 1, 9)})
    confusion = Confusion(["red", "green"], np.array([[3, 1], [0, 4]]))
    bins = CalibrationBins(np.array([[0, 4.0, 4.0]]), np.array([[0, 2.0, 3.6]]), np.array([[0, 1.0, 4.0]]))
    misses = Misses("labels", [Miss(0, ("red",), ("green",), "confidence 0.90")])

    written = draw([curve, confusion, Reliability(bins), misses], items, tmp_path / "new" / "drawn")

    assert [path.name for path in written] == [
        "recall.png",
        "confusion.png",
        "reliability.png",
        "misses-labels.png",
    ]
    assert all(np.ptp(pixels(path)) > 200 for path in written)


def test_a_sheet_shows_the_pictures_that_were_asked_right_and_came(items: list[Item], tmp_path: Path) -> None:
    by_key = {item.key: i for i, item in enumerate(items)}
    red, blue = by_key["red-circle.png"], by_key["blue-square.png"]

    (one,) = draw(
        [Misses("one", [Miss("a red circle", (red,), (blue, blue), "right one at 7")])], items, tmp_path
    )
    (two,) = draw([Misses("two", [Miss(red, ("a",), ("b",), "")] * 2)], items, tmp_path)

    sheet = pixels(one)
    blue_at = np.argwhere(np.abs(sheet - COLOURS["blue"]).max(axis=2) < 12)[:, 1]
    red_at = np.argwhere(np.abs(sheet - COLOURS["red"]).max(axis=2) < 12)[:, 1]
    assert np.median(red_at) < blue_at.min()
    assert near(pixels(two), COLOURS["blue"]) == 0
    assert near(pixels(two), COLOURS["red"]) > 1.8 * near(sheet, COLOURS["red"])


def test_nothing_missed_is_no_sheet(items: list[Item], tmp_path: Path) -> None:
    assert draw([Misses("labels", [])], items, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_any_text_can_stand_on_a_sheet(items: list[Item], tmp_path: Path) -> None:
    odd = ("costs $5 or $6", "$\\frac{", "红色衬衫", "قميص", "\U0001faa9", "", "word " * 200, "x" * 300)

    written = draw([Misses("odd", [Miss(text, odd, (0,), text[:20]) for text in odd])], items, tmp_path)

    assert [path.name for path in written] == ["misses-odd.png"]


@pytest.mark.slow  # a font is laid out for every label
def test_the_darkest_cells_of_a_confusion_matrix_are_its_largest_shares(tmp_path: Path) -> None:
    counts = np.zeros((30, 30), dtype=np.int64)
    counts[np.arange(30), np.arange(30)[::-1]] = 5  # each is taken for its opposite

    (path,) = draw([Confusion([f"label {i}" for i in range(30)], counts)], [], tmp_path)

    dark = np.argwhere(np.abs(pixels(path) - (8, 48, 107)).max(axis=2) < 3)
    matrix = dark[dark[:, 1] < 0.85 * pixels(path).shape[1]]
    assert np.corrcoef(matrix.T)[0, 1] < -0.9  # from lower left to upper right


def test_a_picture_that_is_gone_is_named(tmp_path: Path) -> None:
    lost = Item("lost", str(tmp_path / "lost.png"))

    with pytest.raises(OSError, match=r"lost\.png"):
        draw([Misses("one", [Miss(0, ("a",), ("b",), "")])], [lost], tmp_path)
