import json
from pathlib import Path

from tests.conftest import Run


def test_demo_draws_products_and_indexes_them_with_their_words(run: Run, tmp_path: Path) -> None:
    done = run("demo", "--products", "12", "--seed", "3", "--index-only")

    assert done.code == 0
    assert "12 added, 0 updated, 0 unchanged, 0 failed" in done.err
    assert len(list((tmp_path / "data" / "demo-12-3").glob("**/*.jpg"))) == 12
    found = json.loads(run("search", "a handbag", "--collection", "demo", "-k", "12", "--json").out)
    assert len(found["hits"]) == 12
    assert all(hit["title"] and hit["attributes"]["kind"] for hit in found["hits"])


def test_demo_again_draws_and_indexes_nothing_new(run: Run) -> None:
    run("demo", "--products", "12", "--index-only")

    done = run("demo", "--products", "12", "--index-only")

    assert "0 added, 0 updated, 12 unchanged, 0 failed" in done.err
    assert "drawing" not in done.err


def test_demo_takes_ones_own_pictures(run: Run, pictures: Path) -> None:
    done = run("demo", "--pictures", pictures, "--index-only")

    assert "16 added" in done.err
    assert json.loads(run("status", "pictures", "--json").out)["images"] == 16
