import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from search.cli.status import plot
from tests.conftest import Run
from tests.test_choice import clustered
from textmm.encoder import Encoder


def test_status_of_nothing_says_how_to_begin(run: Run) -> None:
    done = run("status")

    assert (done.code, done.out) == (0, "")
    assert done.err == "no collections: make one with `textmm index SOURCE --collection NAME`\n"


def test_status_tells_what_there_is(run: Run, pictures: Path, encoder: Encoder) -> None:
    run("index", pictures / "captions.csv", "--collection", "shop")
    run("index", pictures, "--collection", "known", "--bank")

    every = run("status")
    one = run("status", "shop")
    rows = [json.loads(line) for line in run("status", "--json").out.splitlines()]

    model = encoder.model_id
    assert every.out == (
        f"bank known: 16 images, 0 texts, model {model}\n"
        f"collection shop: 16 images, 16 texts, model {model}\n"
    )
    assert one.out == (
        f"collection shop: 16 images, 16 texts, model {model}\n  vectors 32, index through change 0 of 1\n"
    )
    assert rows[1] == {
        "collection": "shop",
        "bank": False,
        "images": 16,
        "texts": 16,
        "model_id": model,
        "vectors": 32,
        "change_seq": 1,
        "folded_seq": 0,
        "segments": [],
    }


def test_status_tells_through_which_change_the_index_was_built(
    run: Run, pictures: Path, tmp_path: Path
) -> None:
    with (tmp_path / "config.toml").open("a") as settings:
        settings.write("[index]\nfold_rows = 8\n")
    run("index", pictures / "captions.csv", "--collection", "shop")

    row = json.loads(run("status", "shop", "--json").out)

    segments = [(s["target"], s["rows"], s["kind"], s["through_seq"]) for s in row["segments"]]
    assert (row["folded_seq"], row["change_seq"]) == (1, 1)
    assert segments == [("images", 16, "exact", 1), ("texts", 16, "exact", 1)]
    assert len(list((tmp_path / "data" / "indexes").glob("*.faiss"))) == 2


def test_an_unknown_collection_is_one_line(run: Run) -> None:
    done = run("status", "nowhere")

    assert (done.code, done.out, done.err) == (2, "", "textmm: there is no collection 'nowhere'\n")


def test_db_upgrade_makes_the_schema_and_is_harmless_when_it_is_there(run: Run, tmp_path: Path) -> None:
    first, second = run("db", "upgrade"), run("db", "upgrade")

    assert first == second
    assert (first.code, first.out) == (0, "sqlite: the schema is that of this version\n")
    assert (tmp_path / "data" / "textmm.sqlite").is_file()


@pytest.mark.slow
def test_status_shows_the_measured_curve_of_an_approximate_index_as_a_table_and_a_picture(
    run: Run, tmp_path: Path
) -> None:
    rows = clustered(3000, 1.0)
    table = {"key": [f"{i}" for i in range(3000)], "vector": list(rows)}
    parquet.write_table(pa.table(table), tmp_path / "vectors.parquet")
    with (tmp_path / "config.toml").open("a") as settings:
        settings.write('[index]\nkind = "graph"\n')
    run("index", tmp_path / "vectors.parquet", "--collection", "own")

    said = run("status", "own").out.splitlines()
    (segment, _) = json.loads(run("status", "own", "--json").out)["segments"]

    assert said[2].startswith("  images: 3000 rows, graph: recall@10 0.9")
    assert said[3].split() == ["effort", "recall", "ms"]
    assert sum("<- used" in line for line in said) == 1
    assert any("│" in line and "●" in line for line in said) and any("·····" in line for line in said)
    assert (segment["kind"], segment["rows"]) == ("graph", 3000)
    assert segment["measured"]["points"][0]["k"] == 10


@pytest.mark.parametrize(
    "points", [[(0.1, 0.9)], [(0.1, 0.5), (0.2, 0.99), (5.0, 1.0)], [(0.1, 1.0), (0.1, 1.0)]]
)
def test_a_plot_has_a_mark_for_each_point_within_its_frame(points: list[tuple[float, float]]) -> None:
    lines = plot(points, target=0.983)

    assert {len(line) for line in lines[:-1]} == {64}
    assert 1 <= sum(line.count("●") for line in lines) <= len(points)
    assert " 0.983 │" in "\n".join(lines)
