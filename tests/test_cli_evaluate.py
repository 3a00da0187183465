import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.drawn import COLOURS, SHAPES, draw
from textmm.encoder import Encoder


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """48 pictures, twelve of each colour and of each shape: enough of each to be ranked."""
    table = tmp_path / "catalogue.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["key", "path", "title", "colour", "shape"])
        for shape in SHAPES:
            for colour in COLOURS:
                for side in (60, 64, 68):
                    name = f"{colour}-{shape}-{side}.png"
                    draw(shape, colour, side=side).save(tmp_path / name)
                    rows.writerow([name, name, f"a {colour} {shape}", colour, shape])
    return table


def test_retrieval_measures_recall_both_ways(run: Run, pictures: Path, tiny: Path, encoder: Encoder) -> None:
    data = pictures / "captions.csv"

    done = run("evaluate", tiny, data, "--task", "retrieval", "--json")

    row = json.loads(done.out)
    metrics, intervals = row.pop("metrics"), row.pop("intervals")
    assert row == {
        "dataset": str(data),
        "model": encoder.model_id,
        "pretrained": str(tiny),
        "language": "en",
        "task": "zeroshot_retrieval",
        "images": 16,
        "texts": 16,
    }
    assert sorted(metrics) == sorted(
        f"{way}_retrieval_{name}"
        for way in ("image", "text")
        for name in ("recall@1", "recall@5", "recall@10", "median_rank", "ndcg@10")
    )
    assert all(0 <= value <= 1 for name, value in metrics.items() if "rank" not in name)
    assert intervals.keys() == metrics.keys()
    assert all(low <= metrics[name] <= high for name, (low, high) in intervals.items())
    assert metrics["image_retrieval_recall@1"] >= 0.8  # the model was trained on these
    assert metrics["image_retrieval_recall@10"] >= metrics["image_retrieval_recall@5"]


def test_the_figures_in_words_are_those_of_json(run: Run, pictures: Path, tiny: Path) -> None:
    arguments = ("evaluate", tiny, pictures / "captions.csv", "--task", "retrieval")

    row = json.loads(run(*arguments, "--json").out)
    first, *lines = run(*arguments).out.splitlines()

    assert first.endswith(": 16 images, 16 texts")
    words = [line.replace("[", "").replace("]", "").replace(",", "").split() for line in lines]
    assert {name: float(value) for name, value, *_ in words} == row["metrics"]
    assert {name: [float(low), float(high)] for name, _, low, high in words} == row["intervals"]


def test_figures_go_to_a_file_beside_the_table(run: Run, pictures: Path, tiny: Path, tmp_path: Path) -> None:
    arguments = ("evaluate", tiny, pictures / "captions.csv", "--task", "retrieval")
    out = tmp_path / "figures.json"

    done = run(*arguments, "--json", out)

    assert done.out == run(*arguments).out
    assert json.loads(out.read_text()) == json.loads(run(*arguments, "--json").out)


def test_every_label_has_a_line_the_worst_first(
    run: Run, catalogue: Path, tiny: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", tiny, catalogue, "--task", "classify", "--label", "colour")
    out = tmp_path / "figures.json"

    done = run(*arguments, "--json", out)

    per_class = json.loads(out.read_text())["per_class"]
    lines = [line.split() for line in done.out.splitlines()[-4:]]
    assert {line[0]: (float(line[1]), int(line[-1])) for line in lines} == {
        label: (of["precision"], of["support"]) for label, of in per_class.items()
    }
    assert [line[0] for line in lines] == sorted(per_class, key=lambda label: per_class[label]["f1"])


@pytest.mark.slow
def test_pictures_are_drawn_where_they_shall_be(
    run: Run, catalogue: Path, tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "drawn"

    done = run(
        "evaluate", tiny, catalogue, "--task", "classify", "--label", "shape", "--pictures", out, "--json"
    )

    assert {"confusion.png", "reliability.png"} <= {path.name for path in out.iterdir()}
    assert sorted(done.err.splitlines()) == sorted(f"drew {path}" for path in out.iterdir())
    assert json.loads(done.out)["images"] == 48


def test_classification_ranks_the_values_of_the_label(
    run: Run, catalogue: Path, tiny: Path, encoder: Encoder
) -> None:
    done = run("evaluate", tiny, catalogue, "--task", "classify", "--label", "colour", "--json")

    row = json.loads(done.out)
    metrics, intervals, per_class = row.pop("metrics"), row.pop("intervals"), row.pop("per_class")
    assert row == {
        "dataset": str(catalogue),
        "model": encoder.model_id,
        "pretrained": str(tiny),
        "language": "en",
        "task": "zeroshot_classification",
        "images": 48,
        "labels": 4,
        "rare": 0,
    }
    assert sorted(metrics) == [
        "acc1",
        "expected_calibration_error",
        "macro_f1",
        "macro_precision",
        "mean_per_class_recall",
    ]
    assert intervals.keys() == metrics.keys()
    assert {label: of["support"] for label, of in per_class.items()} == dict.fromkeys(sorted(COLOURS), 12)
    assert metrics["acc1"] == metrics["mean_per_class_recall"]  # as many of each


def test_captions_are_compared_with_the_texts(run: Run, pictures: Path, tiny: Path) -> None:
    done = run("evaluate", tiny, pictures / "captions.csv", "--task", "caption", "--json")

    row = json.loads(done.out)
    assert (row["task"], row["images"]) == ("captioning", 16)
    assert list(row["metrics"]) == list(row["intervals"]) == ["Bleu_4", "CIDEr", "ROUGE_L"]


def test_queries_can_be_made_of_attributes(run: Run, catalogue: Path, tiny: Path) -> None:
    done = run("evaluate", tiny, catalogue, "--task", "retrieval", "--text", "a {colour} thing", "--json")

    row = json.loads(done.out)
    assert done.code == 0
    assert (row["task"], row["queries"], list(row["metrics"])) == ("retrieval", 4, ["precision@10"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "classify"], "--label goes with --task classify"),
        (["--task", "retrieval", "--label", "colour"], "--label goes with --task classify"),
        (["--task", "classify", "--label", "colour"], "'colour' has 0 values with 10 pictures"),
        (["--task", "retrieval", "--text", "{size}"], "no picture has the attribute 'size'"),
        (["--task", "caption", "--style", "poem"], "style 'poem' is not one of this model's styles"),
        (["--task", "guess"], "'guess' is not one of"),
        (["--task", "retrieval", "--json", "gone/figures.json"], "there is no folder gone"),
        ([], "Missing option '--task'"),
    ],
)
def test_what_cannot_be_measured_is_said(
    run: Run, pictures: Path, tiny: Path, arguments: list[str], said: str
) -> None:
    done = run("evaluate", tiny, pictures / "captions.csv", *arguments)

    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_figures_are_over_all_pictures_or_none(run: Run, pictures: Path, tiny: Path, tmp_path: Path) -> None:
    table = tmp_path / "some.csv"
    table.write_text(f"path,title\n{pictures / 'red-circle.png'},a red circle\nlost.png,lost\n")

    done = run("evaluate", tiny, table, "--task", "retrieval")

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "lost.png" in done.err


def test_shortened_vectors_are_measured_and_options_that_go_with_another_task_are_refused(
    run: Run, pictures: Path, tiny: Path, encoder: Encoder
) -> None:
    data = pictures / "captions.csv"
    retrieval = ("evaluate", tiny, data, "--task", "retrieval")

    short = json.loads(run(*retrieval, "--dimensions", "2", "--json").out)
    whole = json.loads(run(*retrieval, "--json").out)

    assert short["model"] == f"{encoder.model_id}[:2]"
    assert short["metrics"]["image_retrieval_recall@1"] < whole["metrics"]["image_retrieval_recall@1"]
    for option, value, said in (
        ("--dimensions", "2", "--dimensions goes with --task retrieval or classify"),
        ("--questions", "questions.toml", "--questions goes with --task ask"),
        ("--template", "{}", "--template goes with --task classify"),
    ):
        refused = run("evaluate", tiny, data, "--task", "caption", option, value)
        assert (refused.code, said in refused.err) == (2, True)
    beams = run(*retrieval, "--beams", "3")
    assert (beams.code, "--beams goes with --task caption" in beams.err) == (2, True)
    language = run(*retrieval, "--language", "zh")
    assert (language.code, "--language goes with --task ask or caption" in language.err) == (2, True)


def test_rows_of_one_picture_are_one_picture_with_all_their_texts(
    run: Run, pictures: Path, tiny: Path, tmp_path: Path
) -> None:
    rows = list(csv.DictReader((pictures / "captions.csv").read_text().splitlines()))
    once, thrice, clicks = (tmp_path / f"{name}.csv" for name in ("once", "thrice", "clicks"))
    texts = [[row["title"], f"the {row['title']}", f"it is {row['title']}"] for row in rows]
    paths = [str(pictures / row["path"]) for row in rows]
    tables: dict[Path, list[list[Any]]] = {
        once: [["path", "title"], *([path, said[0]] for path, said in zip(paths, texts, strict=True))],
        thrice: [["path", "title"]],
        clicks: [["path", "query", "times"]],
    }
    for path, said in zip(paths, texts, strict=True):
        tables[thrice] += [[path, text] for text in said]
        tables[clicks] += [[path, text, times] for times, text in enumerate(said)]
    for table, lines in tables.items():
        with table.open("w", newline="") as file:
            csv.writer(file).writerows(lines)

    def figures(table: Path, *options: str) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(run("evaluate", tiny, table, *options, "--json").out)
        return row

    one, many, clicked = (
        figures(table, "--task", "retrieval", *options)
        for table, options in ((once, ()), (thrice, ()), (clicks, ("--text-column", "query")))
    )
    assert (one["images"], many["images"], many["texts"]) == (16, 16, 48)
    assert clicked["metrics"] == many["metrics"] and clicked["texts"] == 48
    captions = [figures(table, "--task", "caption")["metrics"] for table in (once, thrice)]
    assert captions[1]["Bleu_4"] >= captions[0]["Bleu_4"]  # three references for the same caption


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "retrieval", "--text", "circles"), "names no attribute: write them in braces"),
        (("--task", "retrieval", "--text", "{colour of it}"), "no picture has the attribute 'colour of it'"),
        (("--task", "retrieval", "--text", "{colour"), "cannot be read as a template"),
        (("--task", "caption", "--text-column", "query"), "--text-column goes with --task retrieval"),
        (("--task", "caption", "--beams", "65"), "64"),
        (
            ("--task", "retrieval", "--text", "{colour}", "--translate", "own.csv"),
            "needs the columns",
        ),
    ],
)
def test_a_template_or_table_that_says_nothing_is_refused(
    run: Run, catalogue: Path, tiny: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "own.csv").write_text("word,is\nred,rot\n")
    given = [str(tmp_path / one) if one == "own.csv" else one for one in options]

    done = run("evaluate", tiny, catalogue, *given)

    assert (done.code, message in done.err) == (2, True), done.err


def test_a_column_with_a_blank_in_its_name_makes_queries(run: Run, catalogue: Path, tiny: Path) -> None:
    plain = run("evaluate", tiny, catalogue, "--task", "retrieval", "--text", "a {colour} thing", "--json")
    catalogue.write_text(catalogue.read_text().replace("colour,shape", "base colour,shape", 1))

    blank = run(
        "evaluate", tiny, catalogue, "--task", "retrieval", "--text", "a {base colour} thing", "--json"
    )

    assert json.loads(blank.out)["metrics"] == json.loads(plain.out)["metrics"]
