import io
import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.drawn import draw, encoded
from tests.hostile import HOSTILE

REPORT = ["added", "failed", "images_per_s", "seconds", "stages", "unchanged", "updated"]


@pytest.fixture
def folder(pictures: Path, tmp_path: Path) -> Path:
    """A copy of the pictures that tests may change."""
    folder = tmp_path / "mine"
    shutil.copytree(pictures, folder)
    return folder


def counts(report: dict[str, object]) -> list[object]:
    return [report["added"], report["updated"], report["unchanged"], report["failed"]]


def test_index_reports_what_it_did_in_words(run: Run, folder: Path) -> None:
    done = run("index", folder, "--collection", "mine")

    assert done.code == 0
    assert done.out.startswith("mine: 16 added, 0 updated, 0 unchanged, 0 failed in ")
    assert done.err == ""


def test_index_reports_what_it_did_as_one_json_object(run: Run, folder: Path) -> None:
    done = run("index", folder, "--collection", "mine", "--json")

    report = json.loads(done.out)
    assert (done.code, done.out.count("\n")) == (0, 1)
    assert sorted(report) == REPORT
    assert counts(report) == [16, 0, 0, []]
    assert sorted(report["stages"]) == ["decode", "encode", "read", "write"]
    assert report["seconds"] > 0
    assert report["images_per_s"] == pytest.approx(16 / report["seconds"], rel=0.05)


def test_index_again_takes_up_only_what_is_new_or_changed(run: Run, folder: Path) -> None:
    run("index", folder, "--collection", "mine")
    (folder / "red-circle.png").write_bytes((folder / "blue-cross.png").read_bytes())
    (folder / "new.png").write_bytes((folder / "blue-cross.png").read_bytes())

    changed = json.loads(run("index", folder, "--collection", "mine", "--json").out)
    again = json.loads(run("index", folder, "--collection", "mine", "--json").out)

    assert counts(changed) == [1, 1, 15, []]
    assert counts(again) == [0, 0, 17, []]
    assert again["images_per_s"] == 0.0


def test_a_broken_file_is_reported_and_the_rest_is_in(run: Run, folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"no picture")

    words = run("index", folder, "--collection", "mine")
    report = json.loads(run("index", folder, "--collection", "mine", "--json").out)

    assert words.code == 1
    assert words.out.startswith("mine: 16 added, 0 updated, 0 unchanged, 1 failed")
    assert "  broken.png: not a picture we can read" in words.out
    assert [failed["key"] for failed in report["failed"]] == ["broken.png"]


def test_hostile_files_fail_by_name_and_harmless_ones_are_in(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    for one in HOSTILE:
        (folder / f"{one.name}.png").write_bytes(one.data)  # whatever is in it

    done = run("index", folder, "--collection", "hostile", "--json")

    report = json.loads(done.out)
    failing = sorted(f"{one.name}.png" for one in HOSTILE if one.outcome != "readable")
    assert done.code == 1
    assert sorted(failed["key"] for failed in report["failed"]) == failing
    assert report["added"] == len(HOSTILE) - len(failing)
    assert "Traceback" not in done.out + done.err


def test_prune_deletes_what_the_source_no_longer_holds_and_nothing_of_others(run: Run, folder: Path) -> None:
    other = folder.parent / "other"
    other.mkdir()
    shutil.copy(folder / "red-circle.png", other / "kept.png")
    run("index", folder, other, "--collection", "mine")
    (folder / "red-circle.png").unlink()

    without = json.loads(run("index", folder, "--collection", "mine", "--json").out)
    pruned = json.loads(run("index", folder, "--collection", "mine", "--prune", "--json").out)

    assert sorted(pruned) == sorted([*REPORT, "removed"])
    assert counts(without) == counts(pruned) == [0, 0, 15, []]
    assert pruned["removed"] == 1
    assert json.loads(run("status", "mine", "--json").out)["images"] == 16
    assert "16 images" in run("status").out


def test_a_manifest_brings_titles_and_attributes(run: Run, folder: Path) -> None:
    run("index", folder / "captions.csv", "--collection", "mine")

    found = json.loads(run("search", "a red circle", "--collection", "mine", "-k", "1", "--json").out)

    assert found["hits"][0]["title"] == "a red circle"
    assert found["hits"][0]["attributes"] == {"colour": "red", "shape": "circle", "number": 0}


def test_a_bank_is_made_by_bank_and_a_plain_collection_does_not_become_one(run: Run, folder: Path) -> None:
    made = run("index", folder, "--collection", "known", "--bank")
    run("index", folder, "--collection", "mine")
    refused = run("index", folder, "--collection", "mine", "--bank")

    assert made.code == 0
    assert json.loads(run("status", "known", "--json").out)["bank"] is True
    assert (refused.code, refused.err) == (
        2,
        "textmm: collection 'mine' exists and is no bank: choose another name\n",
    )


def test_a_caption_style_is_kept_when_the_model_has_it(run: Run, folder: Path) -> None:
    good = run("index", folder, "--collection", "mine", "--caption-style", "photo")
    bad = run("index", folder, "--collection", "mine", "--caption-style", "poem")

    assert (good.code, bad.code) == (0, 2)
    assert "--caption-style poem: styles of tiny-" in bad.err


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "there is no such folder or file"),
        ("notes.txt", "neither a folder nor one of .tar"),
        ("empty.csv", "holds no rows"),
        ("colours.csv", "no column of paths"),
    ],
)
def test_a_source_that_cannot_be_read_is_one_line(run: Run, tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.csv").write_text("path,title\n")
    (tmp_path / "colours.csv").write_text("colour\nred\n")

    done = run("index", tmp_path / source, "--collection", "mine")

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"textmm: {tmp_path / source}: ")
    assert said in done.err


def test_a_name_that_no_collection_may_have_is_one_line(run: Run, folder: Path) -> None:
    done = run("index", folder, "--collection", "my pictures")

    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("textmm: collection name 'my pictures'")


def test_delete_takes_the_keys_and_says_which_were_not_there(run: Run, folder: Path) -> None:
    run("index", folder, "--collection", "mine")

    done = run("delete", "mine", "red-circle.png", "red-cross.png")
    again = run("delete", "mine", "red-circle.png", "red-square.png")

    assert (done.code, done.out, done.err) == (0, "mine: 2 deleted\n", "")
    assert (again.code, again.out, again.err) == (1, "mine: 1 deleted\n", "not there: red-circle.png\n")
    assert json.loads(run("status", "mine", "--json").out)["images"] == 13


def test_delete_without_keys_asks_before_the_whole_collection_goes(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", folder, "--collection", "mine")

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    kept = run("delete", "mine")
    there = run("status", "mine")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    gone = run("delete", "mine")

    assert "delete collection mine with its 16 images?" in kept.out
    assert (kept.code, kept.err, there.code) == (1, "nothing deleted\n", 0)
    assert (gone.code, gone.out.endswith("mine: deleted with 16 images\n")) == (0, True)
    assert run("status", "mine").err == "textmm: there is no collection 'mine'\n"


def test_delete_with_yes_does_not_ask(run: Run, folder: Path) -> None:
    run("index", folder, "--collection", "mine")

    assert run("delete", "mine", "--yes").out == "mine: deleted with 16 images\n"
    assert run("delete", "mine", "--yes").code == 2


def test_files_that_changed_or_went_after_they_were_indexed_do_not_stop_the_next_index(
    run: Run, folder: Path
) -> None:
    run("index", folder / "captions.csv", "--collection", "mine")
    (folder / "red-circle.png").unlink()
    (folder / "red-cross.png").write_bytes(encoded(draw("square", "green")))

    done = run("index", folder / "captions.csv", "--collection", "mine", "--json")

    report = json.loads(done.out)
    assert done.code == 1
    assert [report["added"], report["updated"], report["unchanged"]] == [0, 1, 14]
    assert report["failed"] == [
        {"key": "red-circle.png", "reason": "cannot be read: No such file or directory"}
    ]
