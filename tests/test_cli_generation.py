from pathlib import Path

import pytest

from tests.conftest import Run
from textmm.encoder import Encoder


@pytest.fixture
def shop(run: Run, pictures: Path) -> Run:
    """`run`, with the drawn pictures in collection `shop`."""
    assert run("index", pictures / "captions.csv", "--collection", "shop").code == 0
    return run


def test_a_collection_moves_to_another_model_and_back(
    shop: Run, encoder: Encoder, other: Encoder, other_folder: Path, tmp_path: Path
) -> None:
    queries = tmp_path / "queries.csv"
    queries.write_text("text,key\na red circle,red-circle.png\na blue cross,blue-cross.png\n")

    started = shop("generation", "start", other_folder, "--collection", "shop")
    beside = shop("generation", "status", "shop")
    compared = shop("generation", "compare", "shop", "-k", "3", "--queries", queries)
    switched = shop("generation", "switch", "shop")
    found = shop("search", "a red circle", "--collection", "shop", "--json")
    back = shop("generation", "rollback", "shop")
    after = shop("search", "a red circle", "--collection", "shop", "--json")

    assert (started.code, started.out) == (0, f"shop: all vectors of {other.model_id} are there\n")
    assert beside.out == (
        f"{encoder.model_id:32} active    16 of 16 images, 16 of 16 texts\n"
        f"{other.model_id:32} building  16 of 16 images, 16 of 16 texts\n"
    )
    assert f"{encoder.model_id} serves, {other.model_id} is beside\n  overlap@3 0." in compared.out
    assert "  recall@3  1.000 -> " in compared.out
    assert switched.out.startswith(f"shop: {other.model_id} serves; ")
    assert f'"model_id":"{other.model_id}"' in found.out.replace(" ", "")
    assert back.out == f"shop: {encoder.model_id} serves again\n"
    assert f'"model_id":"{encoder.model_id}"' in after.out.replace(" ", "")


def test_what_does_not_serve_is_dropped(shop: Run, other: Encoder, other_folder: Path) -> None:
    shop("generation", "start", other_folder, "--collection", "shop")

    dropped, again = shop("generation", "drop", "shop"), shop("generation", "drop", "shop")
    switched = shop("generation", "switch", "shop")

    assert (dropped.out, again.out) == (f"shop: {other.model_id} dropped\n", "shop: nothing dropped\n")
    assert (switched.code, switched.err) == (
        2,
        "textmm: there is no generation beside in collection 'shop'\n",
    )


def test_a_picture_that_cannot_be_read_is_named_and_there_is_no_switch(
    run: Run, pictures: Path, other_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("red-circle.png", "red-cross.png"):
        (folder / name).write_bytes((pictures / name).read_bytes())
    run("index", folder, "--collection", "own")
    (folder / "red-cross.png").unlink()

    started = run("generation", "start", other_folder, "--collection", "own")
    switched = run("generation", "switch", "own")

    assert started.code == 1
    assert "1 pictures cannot be read: put them again, or delete them\n  red-cross.png: " in started.out
    assert switched.code == 2 and "first 'red-cross.png'" in switched.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["start", "no-such-model", "--collection", "shop"], "no-such-model"),
        (["switch", "nowhere"], "there is no collection 'nowhere'"),
        (["rollback", "shop"], "there is no earlier generation of collection 'shop'"),
        (["compare", "shop"], "there is no generation beside in collection 'shop'"),
    ],
)
def test_what_makes_no_sense_is_one_line(shop: Run, arguments: list[str], said: str) -> None:
    done = shop("generation", *arguments)

    assert done.code == 2 and said in done.err and done.err.count("\n") == 1
