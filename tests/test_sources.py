import csv
import datetime as dt
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from textmm.sources import Item, SourceError, one_per_picture, read_bytes, read_source, split_locator

PICTURE = b"not looked into"


def write(path: Path, data: bytes = PICTURE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the format that the suffix says."""
    match path.suffix:
        case ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows), path)
        case ".jsonl" | ".ndjson":
            path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n")
        case suffix:
            with path.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
                table.writeheader()
                table.writerows(rows)
    return path


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def read(source: Path | str) -> list[Item]:
    return list(read_source(str(source)))


# Folders


def test_a_folder_is_read_recursively_in_the_order_of_its_names(tmp_path: Path) -> None:
    names = ["b.png", "a.JPG", "sub/z.webp", "sub/deep/c.tiff", "another/d.gif", "B.jpeg"]
    for name in [*names, "notes.txt", "sub/data.csv", "c.png.part"]:
        write(tmp_path / name)

    items = read(tmp_path)

    assert items == read(tmp_path)
    assert [item.key for item in items] == [
        "B.jpeg",
        "a.JPG",
        "b.png",
        "another/d.gif",
        "sub/z.webp",
        "sub/deep/c.tiff",
    ]
    assert [item.locator for item in items] == [str(tmp_path / item.key) for item in items]


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "a.png")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "linked.png").symlink_to(tmp_path / "sub" / "a.png")

    assert [item.key for item in read(tmp_path)] == ["linked.png", "sub/a.png"]


def test_a_file_name_that_is_not_utf_8_is_an_item_with_a_problem(tmp_path: Path) -> None:
    write(tmp_path / "good.png")
    bad = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(bad)).write_bytes(PICTURE)

    items = read(tmp_path)

    assert items == [
        Item("caf\\xe9.png", "", problem="the file's name is not UTF-8: rename it"),
        Item("good.png", str(tmp_path / "good.png")),
    ]


def test_a_name_in_any_script_is_a_key(tmp_path: Path) -> None:
    write(tmp_path / "红色 連衣裙.png")

    assert [item.key for item in read(tmp_path)] == ["红色 連衣裙.png"]


def test_one_picture_is_a_source_of_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")

    assert read(path) == [Item("a.png", str(path))]


def test_a_source_that_is_not_there_or_of_no_known_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere: there is no such folder or file, and nothing matches"):
        read(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"notes\.txt: neither a folder nor one of \.tar, \.csv"):
        read(write(tmp_path / "notes.txt"))


# Manifests

ROWS: list[dict[str, Any]] = [
    {"key": "k1", "path": "img/1.jpg", "title": "A shirt", "caption": "red", "price": 12.5, "stock": 3},
    {"key": "k2", "path": "img/2.jpg", "title": "红色连衣裙", "caption": "red", "price": 7.0, "stock": 0},
]


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.parquet", "m.jsonl", "m.ndjson"])
def test_a_manifest_of_any_format_gives_the_same_items(tmp_path: Path, name: str) -> None:
    items = read(write_table(tmp_path / name, ROWS))

    assert items == [
        Item("k1", str(tmp_path / "img/1.jpg"), "A shirt", ("red",), {"price": 12.5, "stock": 3}),
        Item("k2", str(tmp_path / "img/2.jpg"), "红色连衣裙", ("red",), {"price": 7.0, "stock": 0}),
    ]
    assert [type(value) for value in items[0].attributes.values()] == [float, int]
    assert items[1].texts == ("红色连衣裙", "red")


def test_without_a_key_the_path_is_the_key(tmp_path: Path) -> None:
    rows = [{"file_name": "a.png", "key": "one"}, {"file_name": "sub/b.png", "key": ""}]

    with_column = read(write_table(tmp_path / "with.csv", rows))
    without = read(write_table(tmp_path / "without.csv", [{"file_name": "a.png"}]))

    assert [item.key for item in with_column] == ["one", "sub/b.png"]
    assert [item.key for item in without] == ["a.png"]


def test_an_absolute_path_stays_and_a_relative_one_is_from_the_manifest(tmp_path: Path) -> None:
    rows = [{"path": "/elsewhere/a.png"}, {"path": "b.png"}]

    items = read(write_table(tmp_path / "m.csv", rows))

    assert [item.locator for item in items] == ["/elsewhere/a.png", str(tmp_path / "b.png")]


def test_a_column_of_a_csv_is_numbers_only_when_every_value_is_one(tmp_path: Path) -> None:
    columns = {
        "whole": ["1", "-20"],
        "real": ["1", "2.5e3"],
        "code": ["007", "008"],
        "mixed": ["5", "five"],
        "gap": ["4", ""],
        "long": ["12345678901234567890123", "1"],
    }
    rows = [{"path": f"{i}.png", **{k: v[i] for k, v in columns.items()}} for i in range(2)]

    attributes = [item.attributes for item in read(write_table(tmp_path / "m.csv", rows))]

    assert attributes == [
        {"whole": 1, "real": 1.0, "code": "007", "mixed": "5", "gap": 4, "long": 1.2345678901234568e22},
        {"whole": -20, "real": 2500.0, "code": "008", "mixed": "five", "long": 1.0},
    ]


def test_keys_paths_and_texts_of_a_csv_stay_as_they_are_written(tmp_path: Path) -> None:
    rows = [
        {"key": "1.50", "path": "1e5", "title": "2.0", "caption": "3.10"},
        {"key": "1.5", "path": "2e5", "title": "501.0", "caption": "4.0"},
    ]

    items = read(write_table(tmp_path / "m.csv", rows))

    assert items == [
        Item("1.50", str(tmp_path / "1e5"), "2.0", ("3.10",)),
        Item("1.5", str(tmp_path / "2e5"), "501.0", ("4.0",)),
    ]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path, name: str) -> None:
    path = write_table(tmp_path / name, [{"path": "a.png", "title": "é"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert read(path) == [Item("a.png", str(tmp_path / "a.png"), "é")]


def test_lists_dates_and_nothing_are_attributes_as_json_has_them(tmp_path: Path) -> None:
    rows = [
        {
            "path": "a.png",
            "captions": ["one", "", "two"],
            "tags": ["x", "y"],
            "sold": dt.datetime(2024, 5, 6, 7, 8),
            "day": dt.date(2024, 5, 6),
            "new": True,
            "size": {"w": 3},
            "nothing": None,
            "not_a_number": float("nan"),
        }
    ]

    (item,) = read(write_table(tmp_path / "m.parquet", rows))

    assert item.captions == ("one", "two")
    assert item.attributes == {
        "tags": ["x", "y"],
        "sold": "2024-05-06T07:08:00",
        "day": "2024-05-06",
        "new": True,
        "size": '{"w": 3}',
    }


def test_titles_and_captions_are_texts_each_once() -> None:
    item = Item("k", "p", "red", ("blue", "red", "blue", "green"))

    assert item.texts == ("red", "blue", "green")
    assert Item("k", "p").texts == ()


def test_a_row_without_a_path_is_an_item_with_a_problem(tmp_path: Path) -> None:
    rows = [{"key": "k1", "path": "a.png"}, {"key": "k2", "path": ""}, {"key": "", "path": ""}]

    items = read(write_table(tmp_path / "m.csv", rows))

    assert items[1:] == [
        Item("k2", "", problem="row 2 has no path"),
        Item("row 3", "", problem="row 3 has no path"),
    ]


@pytest.mark.parametrize("name", ["m.csv", "m.parquet", "m.jsonl"])
def test_a_manifest_without_a_path_column_is_refused_with_the_columns_it_has(
    tmp_path: Path, name: str
) -> None:
    path = write_table(tmp_path / name, [{"picture": "a.png", "colour": "red"}])

    with pytest.raises(
        SourceError, match=rf"{name}: no column of paths \(one of path, image, .*it has picture, colour"
    ):
        read(path)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("m.csv", b"path,title\n", "holds no rows"),
        ("m.csv", b"", "holds no rows"),
        ("m.csv", b"path,title\na.png,caf\xe9\n", "cannot be read: .*utf-8"),
        ("m.jsonl", b'{"path": "a.png"}\n{"path": \n', "cannot be read: Expecting value"),
        (
            "m.jsonl",
            b'{"path": "a.png"}\n["b.png"]\n',
            r'cannot be read: a line that is no JSON object: \["b.png"',
        ),
        ("m.jsonl", b"5\n", "cannot be read: a line that is no JSON object: 5"),
        ("m.parquet", b"PAR1 and nothing of the kind", "cannot be read: "),
    ],
)
def test_a_broken_manifest_is_refused_by_name(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    with pytest.raises(SourceError, match=f"{name}: {reason}"):
        read(write(tmp_path / name, data))


# Shards


def test_samples_of_a_shard_come_with_their_words(tmp_path: Path) -> None:
    words = {"title": "Red shirt", "captions": ["a shirt", "red"], "price": 5, "key": "theirs"}
    path = write_shard(
        tmp_path / "s.tar",
        {
            "000.jpg": b"first",
            "000.json": json.dumps(words).encode(),
            "sub/001.txt": b"a dog\n",
            "sub/001.png": b"second",
            "002.webp": b"third",
        },
    )

    items = read(path)

    assert [item.key for item in items] == ["000", "sub/001", "002"]
    assert items[0].title == "Red shirt"
    assert items[0].captions == ("a shirt", "red")
    assert items[0].attributes == {"price": 5, "key": "theirs"}
    assert items[1].captions == ("a dog",)
    assert [read_bytes(item.locator) for item in items] == [b"first", b"second", b"third"]


def test_bytes_at_a_locator_are_those_of_the_member(tmp_path: Path) -> None:
    members = {f"{i}.jpg": os.urandom(i * 300 + 1) for i in range(5)}
    path = write_shard(tmp_path / "s.tar", members)

    items = read(path)

    assert [read_bytes(item.locator) for item in items] == list(members.values())
    assert split_locator(items[0].locator) == (str(path), 512, 1)
    assert split_locator("/a/b.png") == ("/a/b.png", 0, None)
    assert split_locator("/a/odd#name.tar") == ("/a/odd#name.tar", 0, None)


def test_a_name_ends_at_its_first_dot_and_the_rest_says_what_a_member_is(tmp_path: Path) -> None:
    path = write_shard(
        tmp_path / "s.tar",
        {"a.b/one.large.jpg": b"1", "a.b/one.meta.xml": b"", "two.seg.PNG": b"2", "two.cls": b"7"},
    )

    items = read(path)

    assert [(item.key, read_bytes(item.locator)) for item in items] == [("a.b/one", b"1"), ("two", b"2")]


def test_a_sample_that_cannot_be_used_is_an_item_with_a_problem(tmp_path: Path) -> None:
    path = write_shard(
        tmp_path / "s.tar",
        {"a.txt": b"words alone", "b.jpg": b"1", "b.json": b"{broken", "c.jpg": b"2", "c.json": b"[1]"},
    )

    items = read(path)

    assert [item.key for item in items] == ["a", "b", "c"]
    assert items[0].problem == "the sample holds no picture"
    assert (items[1].problem or "").startswith("its JSON cannot be read: ")
    assert items[2].problem == "its JSON is not an object"


def test_a_pattern_takes_its_shards_in_order(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        write_shard(tmp_path / f"s-{number:03}.tar", {f"{number}.jpg": b""})
    write_shard(tmp_path / "other.tar", {"other.jpg": b""})

    assert [item.key for item in read(tmp_path / "s-*.tar")] == ["0", "1", "2"]


@pytest.mark.parametrize("kept", [100, 512 + 200, 2 * 512 + 100, 3 * 512 - 100])
def test_a_shard_that_was_cut_off_is_refused_by_name(tmp_path: Path, kept: int) -> None:
    path = write_shard(tmp_path / "s.tar", {"a.jpg": bytes(500), "b.jpg": bytes(500)})
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(SourceError, match=r"s\.tar: not a tar that can be read to its end"):
        read(path)


def test_a_shard_with_rubbish_between_its_members_is_refused_by_name(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", {"a.jpg": bytes(500), "b.jpg": bytes(500)})
    data = bytearray(path.read_bytes())
    data[1024:1100] = os.urandom(76)
    path.write_bytes(data)

    with pytest.raises(SourceError, match=r"s\.tar: .* no member and no end at byte 1024"):
        read(path)


def test_a_member_that_ends_early_is_an_error_when_its_bytes_are_read(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", {"a.jpg": bytes(500)})
    (item,) = read(path)

    path.write_bytes(path.read_bytes()[:700])

    with pytest.raises(OSError, match=r"s\.tar ends before byte 1012"):
        read_bytes(item.locator)
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        read_bytes(str(tmp_path / "gone.png"))


def test_rows_that_differ_in_their_text_alone_are_one_picture_and_lose_no_question() -> None:
    def row(text: str = "", **attributes: Any) -> Item:
        return Item("a.png", "/a.png", captions=(text,) if text else (), attributes=attributes)

    captions = one_per_picture([row("one"), row("two"), row("one")])
    numbered = one_per_picture([row("one", n=1), row("two", n=2)])
    asked = one_per_picture([row(question="which colour?"), row(question="which shape?")])
    clicks = one_per_picture([row(query="red", n=1), row(query="round", n=2), row(n=3)], "query")
    unnamed = one_per_picture([row("one", **{"": 0}), row("two", **{"": 1})])

    assert [item.texts for item in captions] == [("one", "two")]
    assert [item.texts for item in numbered] == [("one",), ("two",)]
    assert [item.attributes["question"] for item in asked] == ["which colour?", "which shape?"]
    assert [item.texts for item in clicks] == [("red", "round")]
    assert [item.texts for item in unnamed] == [("one",), ("two",)]


def test_a_column_without_a_name_is_no_attribute(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(",path,title\n0,a.png,one\n1,a.png,two\n")

    rows = list(read_source(str(tmp_path / "table.csv")))

    assert [dict(row.attributes) for row in rows] == [{}, {}]
    assert [item.texts for item in one_per_picture(rows)] == [("one", "two")]
