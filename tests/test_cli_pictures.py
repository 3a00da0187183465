import csv
import html.parser
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

from search.alt_text import AltText, csv_line, img_line
from tests.conftest import Run
from tests.hostile import HOSTILE, Hostile
from textmm import calibration
from textmm.calibration import AttributeCalibration, Calibration
from textmm.encoder import Encoder

LABELS = "a red circle,a blue cross,a yellow square"


class Images(html.parser.HTMLParser):
    """(src, alt) of each <img>, and the names of all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[tuple[str | None, str | None]] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.images.append((dict(attrs)["src"], dict(attrs)["alt"]))


def test_caption_prints_a_line_a_picture(run: Run, pictures: Path, encoder: Encoder) -> None:
    paths = [pictures / "red-circle.png", pictures / "blue-cross.png"]
    words = run("caption", *paths)
    rows = [json.loads(line) for line in run("caption", *paths, "--json").out.splitlines()]

    assert words.code == 0
    assert words.out == "".join(f"{row['image']}\t{row['caption']}\t{row['score']:.3f}\n" for row in rows)
    assert [sorted(row) for row in rows] == [["caption", "generated", "image", "score"]] * 2
    assert [row["image"] for row in rows] == [str(path) for path in paths]


@pytest.mark.parametrize("hostile", HOSTILE, ids=[one.name for one in HOSTILE])
def test_caption_names_what_it_cannot_read_and_goes_on(
    run: Run, pictures: Path, tmp_path: Path, hostile: Hostile
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(hostile.data)

    done = run("caption", path, pictures / "red-circle.png")

    read = ["picture"] if hostile.outcome == "readable" else []
    captioned = [Path(line.split("\t")[0]).name for line in done.out.splitlines()]
    assert captioned == [*read, "red-circle.png"]
    assert (done.code, done.err.count("\n")) == ((0, 0) if read else (1, 1))
    assert "Traceback" not in done.err


def test_a_caption_style_or_a_number_of_beams_that_cannot_be_is_one_line(run: Run, pictures: Path) -> None:
    style = run("caption", pictures / "red-circle.png", "--style", "poem")
    beams = run("caption", pictures / "red-circle.png", "--beams", "0")
    drawn = run("caption", pictures / "red-circle.png", "--beams", "2", "--temperature", "1")
    language = run("caption", pictures / "red-circle.png", "--language", "zh")

    assert (language.code, "style 'attributes_zh' is not one of" in language.err) == (2, True)
    assert (style.code, style.err.count("\n")) == (2, 1)
    assert "style 'poem' is not one of this model's styles (photo)" in style.err
    assert (beams.code, "0 is not in the range 1<=x<=64" in beams.err) == (2, True)
    assert (drawn.code, drawn.err) == (2, "textmm: sampling (temperature 1.0) goes with one beam, got 2\n")


def test_classify_prints_a_line_a_picture_likeliest_label_first(
    run: Run, pictures: Path, encoder: Encoder
) -> None:
    paths = [pictures / "red-circle.png", pictures / "blue-cross.png"]

    words = run("classify", *paths, "--labels", LABELS, "-k", "2", "--template", "{}")
    rows = [
        json.loads(line) for line in run("classify", *paths, "--labels", LABELS, "--json").out.splitlines()
    ]

    first, second = words.out.splitlines()
    assert (words.code, words.err) == (0, "")
    assert re.fullmatch(rf"{paths[0]}\ta red circle [01]\.\d{{3}}, a [a-z ]+ 0\.\d{{3}}", first)
    assert second.startswith(f"{paths[1]}\ta blue cross ")
    assert [(row["image"], row["model_id"], len(row["labels"])) for row in rows] == [
        (str(path), encoder.model_id, 3) for path in paths
    ]
    assert sorted(rows[0]["labels"][0]) == ["label", "probability", "score"]


def test_labels_of_a_file_are_those_of_its_lines(run: Run, pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text(LABELS.replace(",", "\n") + "\n\n")
    picture = pictures / "red-circle.png"

    assert (
        run("classify", picture, "--labels-file", file).out
        == run("classify", picture, "--labels", LABELS).out
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give either --labels or --labels-file"),
        (["--labels", ""], "labels: expected `array` of length >= 2"),
        (["--labels", "one"], "labels: expected `array` of length >= 2"),
        (["--labels", "a,b,a"], "labels hold 'a' twice"),
        (["--labels", "a,b", "-k", "0"], "k: expected `int` >= 1"),
        (["--labels", "a,b", "--template", "a photo"], "templates[0]: template 'a photo' must hold {} once"),
        (["--labels-file", "nowhere.txt"], "'nowhere.txt' does not exist"),
    ],
)
def test_labels_that_make_no_sense_are_said(run: Run, pictures: Path, options: list[str], said: str) -> None:
    done = run("classify", pictures / "red-circle.png", *options)

    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", [("classify", "--labels", LABELS), ("copy",)], ids=["classify", "copy"])
def test_what_cannot_be_read_is_named_and_the_rest_is_done(
    run: Run, pictures: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    paths = []
    for i, hostile in enumerate(HOSTILE):
        paths.append(tmp_path / f"{i}")
        paths[-1].write_bytes(hostile.data)
    bad = [str(path) for path, hostile in zip(paths, HOSTILE, strict=True) if hostile.outcome != "readable"]
    good = [str(path) for path, hostile in zip(paths, HOSTILE, strict=True) if hostile.outcome == "readable"]

    done = run(*command, *paths, pictures / "red-circle.png", tmp_path / "lost.png", "--json")

    assert done.code == 1
    assert [line.split(": ")[0] for line in done.err.splitlines()] == [*bad, str(tmp_path / "lost.png")]
    assert [json.loads(line)["image"] for line in done.out.splitlines()] == [
        *good,
        str(pictures / "red-circle.png"),
    ]


def test_alt_texts_of_a_folder_are_a_csv_of_the_encoders_captions(
    run: Run, pictures: Path, tmp_path: Path, encoder: Encoder
) -> None:
    out = tmp_path / "alt.csv"

    done = run("alt", pictures, "--out", out)
    printed = run("alt", pictures)
    captions = {
        row["image"]: row
        for line in run("caption", *sorted(pictures.glob("*.png")), "--json").out.splitlines()
        for row in [json.loads(line)]
    }

    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (done.code, done.out, done.err) == (0, "", "")
    assert printed.out == out.read_text()
    assert [row["key"] for row in rows] == sorted(path.name for path in pictures.glob("*.png"))
    assert [row["alt"] for row in rows] == [captions[str(pictures / row["key"])]["caption"] for row in rows]
    for row in rows:
        assert float(row["confidence"]) == pytest.approx(
            captions[str(pictures / row["key"])]["score"], abs=2e-3
        )


def test_alt_texts_as_html_are_an_img_a_line(run: Run, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'sh"op'
    odd = '<b> & "c" d#?%é.png'
    folder.mkdir()
    shutil.copy(pictures / "red-circle.png", folder / odd)
    shutil.copy(pictures / "blue-cross.png", folder / "plain.png")

    done = run("alt", folder, "--html")

    page = Images(done.out)
    assert done.out.count("\n") == 2
    assert page.tags == ["img", "img"]
    assert [unquote(src or "") for src, _ in page.images] == [odd, "plain.png"]
    assert all(alt for _, alt in page.images)


@pytest.mark.parametrize("words", ['say "x" <b>', "a & b", "it's", "two\nlines", "=1+1", "a, b"])
def test_words_come_back_from_csv_and_html_as_they_were(words: str) -> None:
    text = AltText("a/b c.png", words, 0.25)

    assert list(csv.reader(csv_line(text).splitlines(keepends=True))) == [["a/b c.png", words, "0.2500"]]
    assert Images(img_line(text)).images == [("a/b%20c.png", words)]


@pytest.mark.parametrize(
    "hostile", [one for one in HOSTILE if one.outcome != "readable"], ids=lambda one: one.name
)
def test_a_picture_without_alt_text_is_named_and_left_out(
    run: Run, pictures: Path, tmp_path: Path, hostile: Hostile
) -> None:
    folder, out = tmp_path / "folder", tmp_path / "alt.csv"
    folder.mkdir()
    (folder / "bad.jpg").write_bytes(hostile.data)
    shutil.copy(pictures / "red-circle.png", folder)

    done = run("alt", folder, "--out", out)

    assert done.code == 1
    assert done.err.startswith("bad.jpg: ")
    assert [line.split(",")[0] for line in out.read_text().splitlines()] == ["key", "red-circle.png"]


def test_alt_that_cannot_be_made_leaves_no_file(run: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "alt.csv"

    style = run("alt", pictures, "--style", "poem", "--out", out)
    lost = run("alt", tmp_path / "nowhere", "--out", out)
    place = run("alt", pictures, "--out", tmp_path / "no" / "place.csv")

    assert [done.code for done in (style, lost, place)] == [2, 2, 2]
    assert "--style poem: styles of" in style.err
    assert "there is no such folder or file" in lost.err
    assert "No such file or directory" in place.err
    assert list(tmp_path.glob("alt.csv*")) == []


def test_copy_tells_the_attributes_that_are_likely_enough(
    run: Run, pictures: Path, tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    sure = AttributeCalibration(("A red circle", "A blue cross"), 0.02, 0.5)
    never = AttributeCalibration(("Red and round", "Blue and crossed"), 100.0, 0.99)
    made = Calibration(0.05, ("{}",), {"kind": sure, "mood": never})
    (folder / calibration.FILE).write_text(calibration.to_json(made))
    (tmp_path / "other.toml").write_text(f'[model]\nname = "{folder}"\n')

    done = run("copy", pictures / "red-circle.png", "--config", tmp_path / "other.toml", "--json")
    words = run("copy", pictures / "red-circle.png", "--config", tmp_path / "other.toml")

    copy = json.loads(done.out)["copy"]
    assert sorted(copy["attributes"]) == ["kind"]
    assert copy["attributes"]["kind"]["value"] == "A red circle"
    assert 0.5 <= copy["attributes"]["kind"]["probability"] <= 1
    assert copy["generated"] is True
    assert words.out.splitlines()[0] == f"{pictures / 'red-circle.png'} (generated)"
    assert f"  title        {copy['title']}" in words.out
