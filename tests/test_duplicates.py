import tarfile
from pathlib import Path

from tests.drawn import draw, encoded
from textmm.duplicates import same_pictures
from textmm.sources import read_source


def test_files_with_the_same_bytes_are_one_picture_and_others_their_own(tmp_path: Path) -> None:
    red, blue = encoded(draw("circle", "red")), encoded(draw("circle", "blue"))
    padded = red + b"\0" * (len(blue) - len(red)) if len(blue) > len(red) else red + b"\0"
    contents = {"a": red, "b": blue, "c": red, "d": padded, "e": blue}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    locators = [str(tmp_path / name) for name in contents]

    assert same_pictures(locators).tolist() == [0, 1, 0, 3, 1]
    assert same_pictures([]).tolist() == []


def test_copies_in_a_shard_and_beside_it_are_one_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(draw("cross", "green")))
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(path, "1.png")
        archive.add(path, "2.png")
    locators = [item.locator for item in read_source(str(tmp_path / "s.tar"))]

    assert same_pictures([*locators, str(path)]).tolist() == [0, 0, 0]


def test_files_that_are_not_there_are_like_no_other(tmp_path: Path) -> None:
    assert same_pictures([str(tmp_path / "x.png"), str(tmp_path / "x.png")]).tolist() == [0, 1]
