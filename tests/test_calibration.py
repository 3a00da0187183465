import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import NO_TRUNKS, Run
from tests.drawn import COLOURS, SHAPES, draw
from textmm import calibration, checkpoint
from textmm.calibration import AttributeCalibration, Calibration, fit_temperature, least_probability
from textmm.classify import check_template, label_vectors, probabilities
from textmm.encoder import Encoder
from textmm.metrics import expected_calibration_error

GUESSES = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6], [0.55, 0.45]])
RIGHT = np.array([0, 1, 1, 1, 1])


def drawn_labels(scores: NDArray[np.float64], temperature: float) -> NDArray[np.int64]:
    """Labels that follow the probabilities which this temperature gives."""
    rng = np.random.default_rng(5)
    rows = probabilities(scores, temperature).cumsum(1)
    return np.asarray((rng.random((len(rows), 1)) < rows).argmax(1), dtype=np.int64)


def error_at(temperature: float, scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return expected_calibration_error(probabilities(scores, temperature).max(1), scores.argmax(1) == labels)


def test_probabilities_are_the_softmax_of_scores_over_the_temperature() -> None:
    powers = np.exp(np.array([0.3, 0.1, -0.2]) / 0.05)

    (found,) = probabilities(np.array([[0.3, 0.1, -0.2]], dtype=np.float32), 0.05)

    np.testing.assert_allclose(found, powers / powers.sum(), rtol=1e-5)


def test_a_temperature_that_is_nearly_nothing_overflows_nothing() -> None:
    assert probabilities(np.array([[1.0, -1.0]]), 1e-9).tolist() == [[1.0, 0.0]]


def test_the_temperature_that_made_the_labels_is_found_and_calibrates() -> None:
    scores = np.random.default_rng(4).uniform(-0.1, 0.4, size=(4000, 12))
    labels = drawn_labels(scores, 0.04)

    found = fit_temperature([(scores, labels)])

    assert found == pytest.approx(0.04, rel=0.06)
    assert error_at(found, scores, labels) < 0.03
    assert error_at(0.01, scores, labels) > 0.15


def test_no_temperature_of_a_grid_is_likelier_over_two_sets() -> None:
    rng = np.random.default_rng(6)
    sets = [
        (scores, drawn_labels(scores, t))
        for t, scores in ((0.03, rng.random((60, 5))), (0.1, rng.random((200, 3))))
    ]

    def loss(temperature: float) -> float:
        total = 0.0
        for scores, labels in sets:  # the published formula, a row at a time
            for row, label in zip(scores, labels, strict=True):
                total -= np.log(np.exp(row[label] / temperature) / np.exp(row / temperature).sum()) / len(
                    labels
                )
        return total

    found = loss(fit_temperature(sets))

    assert all(found <= loss(float(t)) + 1e-9 for t in np.geomspace(0.005, 0.9, 60))


def test_a_temperature_is_not_fitted_on_nothing() -> None:
    with pytest.raises(ValueError, match="without pictures"):
        fit_temperature([(np.empty((0, 2)), np.empty(0, dtype=np.int64))])


@pytest.mark.parametrize(("precision", "bound"), [(1.0, 0.8), (0.75, 0.6), (0.6, 0.55), (0.0, 0.55)])
def test_the_bound_lets_most_guesses_through_that_are_right_often_enough(
    precision: float, bound: float
) -> None:
    assert least_probability(GUESSES, RIGHT, precision) == bound


def test_a_label_that_is_never_right_has_no_bound() -> None:
    assert least_probability(GUESSES, 1 - GUESSES.argmax(1), 0.5) is None


def test_a_labels_vector_is_the_mean_direction_of_its_prompts(encoder: Encoder) -> None:
    templates = ["{}", "a {} circle"]

    found = label_vectors(encoder.encode_texts, ["red", "blue"], templates)

    for row, label in zip(found, ("red", "blue"), strict=True):
        mean = sum(encoder.encode_texts([t.format(label)])[0] for t in templates)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("template", ["", "a photo", "{} and {}", "{0}", "{label}", "{{}}", "{} }"])
def test_a_template_holds_the_label_once(template: str) -> None:
    with pytest.raises(ValueError, match=r"must hold \{\} once"):
        check_template(template)


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    made = Calibration(
        0.03, ("{}", "ein {}"), {"colour": AttributeCalibration(("Red", "Grün"), 0.04, 0.5)}, 0.6, "here"
    )
    (tmp_path / calibration.FILE).write_text(calibration.to_json(made), "utf-8")

    assert calibration.read(tmp_path) == made
    assert calibration.read(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": "warm"},
        {"templates": []},
        {"templates": ["a photo"]},
        {"attributes": {"colour": {"values": ["Red"], "temperature": 1.0, "at_least": 0.5}}},
        {"attributes": {"colour": {"values": ["Red", "Blue"], "temperature": 1.0, "at_least": 2}}},
        {"attributes": {"colour": {"values": ["Red", "Blue"]}}},
        {"attributes": []},
        {"mood": "fine"},
    ],
)
def test_a_file_that_is_no_calibration_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / calibration.FILE
    path.write_text(
        json.dumps({"temperature": 1.0, "templates": ["{}"], "attributes": {}, "fitted_on": ""} | change)
    )

    with pytest.raises(ValueError, match=r"calibration\.json is no calibration: .+; make it with"):
        calibration.read(tmp_path)


def test_a_model_without_a_calibration_uses_the_temperature_it_was_trained_with(encoder: Encoder) -> None:
    assert encoder.calibration == Calibration(1 / encoder.logit_scale, ("{}",))
    assert 0.01 <= encoder.calibration.temperature < 1


@pytest.fixture
def catalogue(tmp_path: Path, pictures: Path) -> Path:
    """The drawn pictures, each ten times, so that there are enough of each colour and shape."""
    lines = (pictures / "captions.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    table = tmp_path / "many.csv"
    copies = []
    for i in range(10):
        for key, path, *rest in rows:  # a file each: rows of one file are one picture
            shutil.copyfile(pictures / path, tmp_path / f"{i}-{Path(path).name}")
            copies.append([f"{i}-{key}", f"{i}-{Path(path).name}", *rest])
    table.write_text("\n".join(",".join(row) for row in [lines[0].split(","), *copies]) + "\n")
    return table


def test_calibrate_writes_beside_the_weights_and_changes_no_vector(
    run: Run, tiny: Path, tmp_path: Path, catalogue: Path, encoder: Encoder
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)

    done = run(
        "calibrate", folder, catalogue, "--label", "colour", "--label", "shape", "--template", "a {} circle"
    )

    loaded = Encoder.load(str(folder), NO_TRUNKS)
    fitted = loaded.calibration
    assert (done.code, done.err) == (0, "")
    assert loaded.model_id == encoder.model_id == checkpoint.model_id(folder)
    assert fitted.templates == ("a {} circle",)
    assert fitted.fitted_on == "160 pictures, by colour, shape"
    assert fitted.attributes["colour"].values == ("blue", "green", "red", "yellow")
    assert done.out.splitlines()[0].startswith(f"temperature {fitted.temperature:.4f}, 160 pictures")


def test_no_probability_tells_what_is_never_right_nor_what_captions_speak_of(
    run: Run, tiny: Path, tmp_path: Path, catalogue: Path
) -> None:
    swapped = {"red": "blue", "blue": "red", "green": "yellow", "yellow": "green"}
    head, *rows = (line.split(",") for line in catalogue.read_text().splitlines())
    colour = head.index("colour")
    written = [[*head, "thing", "lie"]]
    written += [[*row, f"{row[colour]} thing", f"{swapped[row[colour]]} thing"] for row in rows]
    catalogue.write_text("\n".join(",".join(row) for row in written) + "\n")
    labels = [part for name in ("thing", "lie", "colour") for part in ("--label", name)]

    done = run("calibrate", tiny, catalogue, *labels, "--out", tmp_path / "calibration.json")

    fitted = calibration.read(tmp_path)
    assert fitted is not None
    assert fitted.attributes["thing"].at_least is not None  # captions say red, none says red thing
    assert fitted.attributes["lie"].at_least is None
    assert fitted.attributes["colour"].at_least is None  # a caption of a picture says its colour
    assert done.out.count("told only where captions say the same") == 2


def test_evaluate_takes_the_temperature_of_the_calibration_and_the_bare_label(
    run: Run, tiny: Path, tmp_path: Path, catalogue: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    asked = ("evaluate", folder, catalogue, "--task", "classify", "--label", "shape", "--json")
    before = json.loads(run(*asked).out)["metrics"]
    run("calibrate", folder, catalogue, "--label", "shape", "--template", "a red {}")

    after, bare = (json.loads(run(*asked, *more).out)["metrics"] for more in ((), ("--template", "{}")))

    error = "expected_calibration_error"
    assert after.pop(error) != (old := before.pop(error))
    assert bare.pop(error) != old
    assert after == bare == before


def test_templates_of_evaluate_are_averaged_and_their_temperature_lowers_the_calibration_error(
    run: Run, tiny: Path, tmp_path: Path, catalogue: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    said = ("--template", "a red {}", "--template", "a blue {}")
    asked = ("evaluate", folder, catalogue, "--task", "classify", "--label", "shape", "--json", *said)
    before = json.loads(run(*asked).out)["metrics"]
    loaded = Encoder.load(str(folder), NO_TRUNKS)
    rows = loaded.encode_images([draw(shape, colour) for shape in SHAPES for colour in COLOURS])
    words = label_vectors(loaded.encode_texts, sorted(SHAPES), ["a red {}", "a blue {}"])
    right = (rows @ words.T).argmax(1) == [sorted(SHAPES).index(shape) for shape in SHAPES for _ in COLOURS]
    run("calibrate", folder, catalogue, "--label", "shape", *said)

    after = json.loads(run(*asked).out)["metrics"]

    assert before["acc1"] == after["acc1"] == pytest.approx(right.mean(), abs=1e-4)
    assert after["expected_calibration_error"] < before["expected_calibration_error"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--task", "classify", "--label", "colour", "--template", "no place"), "must hold {} once"),
        (("--task", "retrieval", "--template", "a {}"), "--template goes with --task classify"),
    ],
)
def test_a_template_of_evaluate_that_makes_no_sense_is_said(
    run: Run, tiny: Path, pictures: Path, options: tuple[str, ...], said: str
) -> None:
    done = run("evaluate", tiny, pictures / "captions.csv", *options)

    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_what_cannot_be_calibrated_is_one_line(run: Run, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    data, out = pictures / "captions.csv", tmp_path / "out.json"

    few = run("calibrate", tiny, data, "--label", "colour", "--out", out)
    bad = run("calibrate", tiny, data, "--label", "colour", "--template", "no place", "--out", out)
    none = run("calibrate", tiny, data, "--out", out)
    lost = run("calibrate", tiny, data, "--label", "colour", "--out", tmp_path / "no" / "place.json")

    assert [done.code for done in (few, bad, none, lost)] == [2, 2, 2, 2]
    assert "'colour' has 0 values with 10 pictures" in few.err
    assert "'no place' must hold {} once" in bad.err
    assert "Missing option '--label'" in none.err
    assert f"there is no folder {tmp_path / 'no'}" in lost.err
    assert not out.exists()
