"""Vectors that somebody made elsewhere: Parquet with a column `vector`, or NPY with a Parquet beside it."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textmm.sources import PATH_COLUMNS, Attribute, SourceError, described

VECTOR = "vector"
KEY_COLUMNS = ("key", "id", *PATH_COLUMNS)
ROWS = 1024
"""That are read at a time."""
READ_BUFFER = 1 << 20
"""Bytes. Without a buffer, or with reading ahead, Arrow holds a whole row group: often a million rows."""

Vectors = NDArray[np.floating[Any]]
NO_NUMBERS: Vectors = np.empty(0, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class VectorItem:
    """One vector that a source names. `problem` says why it cannot be read, when that is known already."""

    key: str
    vector: Vectors
    """[any length], of any float type."""
    title: str | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    problem: str | None = None


def holds_vectors(source: str) -> bool:
    """Whether a source brings vectors and not pictures. Raises SourceError when it brings both."""
    found = {_is_of_vectors(path) for path in _paths(source)}
    if len(found) > 1:
        raise SourceError(
            f"{source}: vectors and pictures together; index them apart, each into its collection"
        )
    return found == {True}


def dimension(source: str) -> int:
    """Of the vectors of a source: what most of its first rows have.

    Raises SourceError when it holds no rows or cannot be read.
    """
    for path in _paths(source):
        if path.suffix.lower() == ".npy":
            return int(_numbers(path).shape[1])
        for batch in _batches(path):
            lengths = Counter(len(row) for row in _vectors(batch, path) if row is not None)
            if lengths:
                return lengths.most_common(1)[0][0]
    raise SourceError(f"{source}: holds no vectors")


def read_vectors(source: str) -> Iterator[VectorItem]:
    """The vectors of a Parquet file with a column `vector`, or of NAME.npy ([n, d]) with NAME.parquet beside it.

    Other columns: the key (`key`, `id`, or a path), `title`, and attributes; columns of captions are left out, since
    there are no vectors of the same space for them. Some thousand rows are in memory at a time. Raises SourceError
    when there is no such source, or its files do not fit together.
    """
    for path in _paths(source):
        yield from _npy(path) if path.suffix.lower() == ".npy" else _parquet(path)


def _paths(source: str) -> list[Path]:
    path = Path(source)
    if path.exists():
        return [path]
    return [Path(p) for p in sorted(glob.glob(source, recursive=True))]  # noqa: PTH207


def _is_of_vectors(path: Path) -> bool:
    if path.suffix.lower() == ".npy":
        return True
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    schema = _opened(path).schema_arrow
    if schema.names.count(VECTOR) > 1:
        raise SourceError(f"{path}: has {schema.names.count(VECTOR)} columns {VECTOR}: keep one")
    return VECTOR in schema.names and "list" in str(schema.field(VECTOR).type)


def _parquet(path: Path) -> Iterator[VectorItem]:
    first = 1
    for batch in _batches(path):
        yield from _items(batch.drop_columns([VECTOR]), _vectors(batch, path), first, path)
        first += batch.num_rows


def _npy(path: Path) -> Iterator[VectorItem]:
    numbers, beside = _numbers(path), path.with_suffix(".parquet")
    if not beside.exists():
        raise SourceError(f"{path}: {beside.name} must lie beside it, with a key for each row")
    rows = _opened(beside).metadata.num_rows
    if rows != len(numbers):
        raise SourceError(f"{path}: has {len(numbers)} rows, {beside.name} has {rows}: they must be the same")
    start = 0
    for batch in _batches(beside):
        # Mapped anew each time: what has been read leaves memory, and a file that was cut short is an error.
        part = np.array(_numbers(path)[start : start + batch.num_rows])
        yield from _items(batch, list(part), start + 1, beside)
        start += batch.num_rows


def _items(words: Any, vectors: Sequence[Vectors | None], first: int, path: Path) -> Iterator[VectorItem]:
    """Of a record batch of words, whose first row has the number `first`, and a vector a row."""
    column = next((name for name in KEY_COLUMNS if name in words.schema.names), None)
    if column is None:
        there = ", ".join(words.schema.names) or "none else"
        raise SourceError(f"{path}: no column of keys (one of {', '.join(KEY_COLUMNS)}); it has {there}")
    for number, (row, vector) in enumerate(zip(words.to_pylist(), vectors, strict=True), start=first):
        key = row.pop(column)
        title, _, attributes = described(row)
        if key in (None, ""):
            yield VectorItem(f"row {number}", NO_NUMBERS, problem=f"row {number} has no {column}")
        elif vector is None:
            yield VectorItem(str(key), NO_NUMBERS, problem="it has no vector")
        else:
            yield VectorItem(str(key), vector, title, attributes)


def _vectors(batch: Any, path: Path) -> list[Vectors | None]:
    """A vector a row, None where there is none. A number that is missing is NaN."""
    from pyarrow import types

    column = batch.column(VECTOR)
    kind = column.type.value_type
    if not (types.is_floating(kind) or types.is_integer(kind)):
        raise SourceError(f"{path}: {VECTOR} is {column.type}: it must be a list of floats")
    numbers = column.values.to_numpy(zero_copy_only=False)
    if numbers.dtype.kind != "f":
        numbers = numbers.astype(np.float64)
    if types.is_fixed_size_list(column.type):
        ends = ((column.offset + np.arange(len(column) + 1)) * column.type.list_size).tolist()
    else:
        ends = column.offsets.to_pylist()
    there = column.is_valid().to_pylist()
    return [numbers[ends[i] : ends[i + 1]] if one else None for i, one in enumerate(there)]


def _numbers(path: Path) -> Vectors:
    """[n, d], mapped and not read. Raises SourceError."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error
    if found.ndim != 2 or found.dtype.kind != "f" or found.shape[1] < 1:
        raise SourceError(
            f"{path}: is {found.dtype} of shape {found.shape}: it must be floats of shape (n, d)"
        )
    return found  # type: ignore[no-any-return]


def _opened(path: Path) -> Any:
    from pyarrow import parquet  # 30 MB that a server, which reads no manifests, does without

    try:
        return parquet.ParquetFile(path, buffer_size=READ_BUFFER, pre_buffer=False)
    except (ValueError, OSError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error


def _batches(path: Path) -> Iterator[Any]:
    """Record batches of ROWS rows. Raises SourceError."""
    try:
        yield from _opened(path).iter_batches(ROWS)
    except (ValueError, OSError, NotImplementedError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error
