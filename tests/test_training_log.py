from pathlib import Path

import numpy as np
from PIL import Image

from textmm import training_log


def test_rows_of_steps_that_are_done_again_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    for stage, step in (("first", 10), ("first", 20), ("second", 5), ("second", 10), ("third", 2)):
        training_log.log(path, stage, step, {"contrastive": step / 10, "captioning": 3.0})

    training_log.forget(path, ["first"], "second", 5)

    assert training_log.read(path) == {
        "contrastive": {"first": [(10, 1.0), (20, 2.0)], "second": [(5, 0.5)]},
        "captioning": {"first": [(10, 3.0), (20, 3.0)], "second": [(5, 3.0)]},
    }
    assert path.read_text().splitlines()[0] == "stage,step,loss,value"


def test_there_is_nothing_to_forget_before_the_first_row(tmp_path: Path) -> None:
    training_log.forget(tmp_path / "training.csv", [], "first", 0)

    assert not list(tmp_path.iterdir())


def test_curves_are_a_picture_with_a_panel_for_each_loss(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    for step in range(1, 6):
        training_log.log(path, "first", step, {"contrastive": 5 / step})
    training_log.draw(path, tmp_path / "one.png")
    training_log.log(path, "second", 1, {"captioning": 2.0, "validation recall@10": 0.5})

    training_log.draw(path, tmp_path / "three.png")

    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "three.png") as three:
        shades = np.asarray(three.convert("L"))
        assert three.width == 3 * one.width
    assert shades.min() < 50
    assert shades.max() == 255
