import json
from pathlib import Path

import pytest

from tests.conftest import Run


def test_a_service_is_moved_by_snapshot_and_restore(run: Run, pictures: Path, tmp_path: Path) -> None:
    run("index", pictures / "captions.csv", "--collection", "shop")
    archive, there = tmp_path / "shop.tar", tmp_path / "there"

    written = run("snapshot", archive)
    restored = run("restore", archive, "--data", there)
    found = run("search", "a red circle", "--collection", "shop", "-k", "3", "--json", "--data", there)
    again = run("restore", archive, "--data", there)

    assert written.out.startswith(f"{archive}: written, ")
    assert written.out.splitlines()[1:] == restored.out.splitlines()[1:]
    assert restored.out.splitlines()[1].startswith("  shop: 16 images, model tiny-")
    here = run("search", "a red circle", "--collection", "shop", "-k", "3", "--json")
    assert json.loads(found.out)["hits"] == json.loads(here.out)["hits"]
    assert run("fsck", "--data", there).out == "clean\n"
    assert (again.code, again.err) == (
        2,
        "textmm: there are rows already in this database: restore into an empty place\n",
    )


def test_fsck_tells_mends_what_is_a_cache_and_then_is_clean(run: Run, pictures: Path, tmp_path: Path) -> None:
    with (tmp_path / "config.toml").open("a") as settings:
        settings.write("[index]\nfold_rows = 8\n")
    run("index", pictures / "captions.csv", "--collection", "shop")
    for path in (tmp_path / "data" / "indexes").glob("*.faiss"):
        path.write_bytes(path.read_bytes()[:-1])

    found = run("fsck")
    told = [json.loads(line) for line in run("fsck", "shop", "--json").out.splitlines()]
    mended = run("fsck", "--repair")

    assert (found.code, found.out.count("(mend it with --repair)")) == (1, 2)
    assert [(one["where"], one["in_cache"], one["mended"]) for one in told] == [("shop", True, False)] * 2
    assert (mended.code, mended.out.count("(built anew)")) == (0, 2)
    assert run("fsck", "--contents").out == "clean\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fsck", "nowhere"], "there is no collection 'nowhere'"),
        (["snapshot", "{here}/config.toml"], "config.toml is there already"),
        (["restore", "{here}/config.toml"], "not an archive that can be read to its end"),
        (["restore", "{here}/nothing.tar"], "does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(*(one.format(here=tmp_path) for one in arguments))

    assert (done.code, done.out) == (2, "")
    assert said in done.err
