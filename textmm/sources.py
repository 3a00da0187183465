"""Folder, manifest (CSV, Parquet, JSONL) or WebDataset shards -> a stream of Item, in a stable order."""

from __future__ import annotations

import csv
import datetime as dt
import glob
import json
import math
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MANIFESTS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
PATH_COLUMNS = ("path", "image", "image_path", "file", "file_name", "filename", "filepath")
TEXT_COLUMNS = ("texts", "captions", "text", "caption")
WORDS = ("key", "title", *PATH_COLUMNS, *TEXT_COLUMNS)
"""Columns that stay as they are written: the key 1.50 is not the key 1.5."""

Attribute = str | int | float | bool | list[str]
"""What an attribute can be; null is no attribute."""


class SourceError(ValueError):
    """A source that cannot be read at all; the message names it and says why."""


@dataclass(frozen=True)
class Item:
    """One picture that a source names. `problem` says why it cannot be read, when that is known already."""

    key: str
    locator: str
    """Where the bytes are: a path, or path#offset+size inside a tar; `read_bytes` reads it."""
    title: str | None = None
    captions: tuple[str, ...] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    problem: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The title and the captions, each once, in that order."""
        return tuple(dict.fromkeys(([self.title] if self.title else []) + list(self.captions)))


def read_source(source: str) -> Iterator[Item]:
    """The items of a folder (recursively), a manifest, a picture, or shards (`.tar`, globs allowed).

    Keys: the relative path in a folder, the `key` column or else the path in a manifest, the sample's name in a
    shard. Raises SourceError when there is no such source.
    """
    path = Path(source)
    if path.is_dir():
        yield from _folder(path)
        return
    paths = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(source, recursive=True))]  # noqa: PTH207
    if not paths:
        raise SourceError(f"{source}: there is no such folder or file, and nothing matches it as a pattern")
    for one in paths:
        yield from _file(one)


def listed(item: Item, column: str) -> tuple[str, ...]:
    """The values of an attribute that may be one or many; none where it is missing."""
    value = item.attributes.get(column, [])
    return tuple(dict.fromkeys(map(str, value if isinstance(value, list) else [value])))


def one_per_picture(items: Iterable[Item], column: str = "") -> list[Item]:
    """Each picture once, with the texts of all its rows: tables of captions and of clicks have one row a text. Rows
    that differ in an attribute stay apart (a question each), and those without texts; but with `column`, whose words
    are texts too, they join by the picture alone.
    """
    out: dict[tuple[str, str], Item] = {}
    for item in items:
        apart = "" if column else repr((sorted(item.attributes.items()), "" if item.texts else item.key))
        first = out.setdefault((item.locator, apart), item)
        more = (*(item.texts if first is not item else ()), *(listed(item, column) if column else ()))
        if more:
            out[item.locator, apart] = replace(first, captions=(*first.captions, *more))
    return list(out.values())


def read_bytes(locator: str) -> bytes:
    """The bytes at a locator. Raises OSError."""
    path, offset, size = split_locator(locator)
    if size is None:
        return Path(path).read_bytes()
    with Path(path).open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise OSError(f"{path} ends before byte {offset + size}")
    return data


def split_locator(locator: str) -> tuple[str, int, int | None]:
    """-> (path, offset, size); size is None for a whole file."""
    match = re.fullmatch(r"(.+\.tar)#(\d+)\+(\d+)", locator, re.DOTALL)
    return (match[1], int(match[2]), int(match[3])) if match else (locator, 0, None)


def _file(path: Path) -> Iterator[Item]:
    suffix = path.suffix.lower()
    if path.is_dir():
        yield from _folder(path)
    elif suffix == ".tar":
        yield from _shard(path)
    elif suffix in MANIFESTS:
        yield from _manifest(path)
    elif suffix in PICTURES:
        yield Item(path.name, str(path.absolute()))
    else:
        known = ", ".join((".tar", *MANIFESTS, *PICTURES))
        raise SourceError(f"{path}: neither a folder nor one of {known}")


def _folder(root: Path) -> Iterator[Item]:
    """Pictures below root by sorted relative path; links to folders are not followed, so loops end."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(PICTURES):
                path = Path(folder, name)
                key = path.relative_to(root).as_posix()
                if _is_text(key):
                    yield Item(key, str(path.absolute()))
                else:
                    shown = os.fsencode(key).decode("utf-8", "backslashreplace")
                    yield Item(shown, "", problem="the file's name is not UTF-8: rename it")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # os.walk gives undecodable bytes as lone surrogates
        return False
    return True


def _shard(path: Path) -> Iterator[Item]:
    """Samples of a WebDataset tar: files that share a name up to its first dot. JSON and .txt are their
    words.
    """
    locator = ""
    words: dict[str, Any] = {}
    current: str | None = None
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if key != current:
                    yield from _sample(current, locator, words)
                    locator, words, current = "", {}, key
                suffix = "." + extension.lower()
                if suffix.endswith(PICTURES):
                    locator = f"{path.absolute()}#{member.offset_data}+{member.size}"
                elif suffix in (".json", ".txt"):
                    words |= _words(archive, member, suffix)
            _check_end(archive)
    except tarfile.TarError as error:
        raise SourceError(f"{path}: not a tar that can be read to its end: {error}") from error
    yield from _sample(current, locator, words)


def _check_end(archive: tarfile.TarFile) -> None:
    """tarfile takes a header that it cannot read for the end; the end is a block of zeros or of the file."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    block = archive.fileobj.read(tarfile.BLOCKSIZE)
    if block and block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no member and no end at byte {archive.offset}")


def _words(archive: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> dict[str, Any]:
    file = archive.extractfile(member)
    assert file is not None
    text = file.read().decode("utf-8", "replace")
    if suffix == ".txt":
        return {"captions": [text.strip()]}
    try:
        data = json.loads(text)
    except ValueError as error:
        return {"": f"its JSON cannot be read: {error}"}
    return data if isinstance(data, dict) else {"": "its JSON is not an object"}


def _sample(key: str | None, locator: str, words: dict[str, Any]) -> Iterator[Item]:
    if key is None:
        return
    problem = words.pop("", None) or (None if locator else "the sample holds no picture")
    yield _item(key, locator, words, problem)


def _manifest(path: Path) -> Iterator[Item]:
    rows = _rows(path)
    first = next(rows, None)
    if first is None:
        raise SourceError(f"{path}: holds no rows")
    column = next((c for c in PATH_COLUMNS if c in first), None)
    if column is None:
        found = ", ".join(map(str, first))
        raise SourceError(f"{path}: no column of paths (one of {', '.join(PATH_COLUMNS)}); it has {found}")
    for number, row in enumerate(_chain(first, rows), start=1):
        where = row.pop(column, None)
        key = row.pop("key", None)
        if where in (None, ""):
            yield Item(str(key or f"row {number}"), "", problem=f"row {number} has no {column}")
        else:
            yield _item(
                str(where if key in (None, "") else key), str((path.parent / str(where)).absolute()), row
            )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        match path.suffix.lower():
            case ".parquet":
                from pyarrow import parquet  # 30 MB that a server, which reads no manifests, does without

                for batch in parquet.ParquetFile(path).iter_batches():
                    yield from batch.to_pylist()
            case ".jsonl" | ".ndjson":
                with path.open(encoding="utf-8-sig") as file:
                    yield from (_object(line) for line in file if line.strip())
            case suffix:
                yield from _csv_rows(path, "\t" if suffix == ".tsv" else ",")
    except (ValueError, OSError, csv.Error, AttributeError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error


def _object(line: str) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"a line that is no JSON object: {line.strip()[:40]}")
    return row


def _csv_rows(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    """Rows of a CSV; an attribute whose every value is a number becomes numbers ("007" is no number)."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=delimiter))
    names = rows[0] if rows else ()
    kinds = {name: str if name in WORDS else _column_kind([row.get(name) for row in rows]) for name in names}
    for row in rows:
        # a column of row numbers has no name
        yield {k: kinds[k](v) if v else None for k, v in row.items() if k}


def _column_kind(values: list[str | None]) -> type[int] | type[float] | type[str]:
    there = [v for v in values if v]
    for kind, pattern in ((int, r"-?(0|[1-9]\d{0,17})"), (float, r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")):
        if there and all(re.fullmatch(pattern, v) for v in there):
            return kind
    return str


def described(words: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...], dict[str, Attribute]]:
    """(title, captions, attributes) in a row of a manifest, without what says where its picture lies."""
    captions: list[str] = []
    for name in TEXT_COLUMNS:
        value = words.get(name)
        captions += [str(v) for v in value if v] if isinstance(value, list) else [str(value)] if value else []
    title = words.get("title")
    rest = {k: v for k, v in words.items() if k not in ("title", *TEXT_COLUMNS)}
    attributes = {str(k): a for k, v in rest.items() if (a := _attribute(v)) is not None}
    return str(title) if title else None, tuple(captions), attributes


def _item(key: str, locator: str, words: Mapping[str, Any], problem: str | None = None) -> Item:
    return Item(key, locator, *described(words), problem)


def _attribute(value: Any) -> Attribute | None:
    match value:
        case None | "":
            return None
        case float() if not math.isfinite(value):
            return None  # what pandas writes for a missing number
        case str() | bool() | int() | float():
            return value
        case dt.datetime() | dt.date():
            return value.isoformat()
        case list():
            return [str(v) for v in value]
        case _:
            return json.dumps(value, default=str)


def _chain(first: dict[str, Any], rest: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield first
    yield from rest
