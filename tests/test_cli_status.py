import json
from pathlib import Path

from tests.conftest import Run
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
