import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from tests.conftest import ROOT
from tests.test_architecture import fresh
from textmm.sources import SourceError
from textmm.vector_sources import ROWS, dimension, holds_vectors, read_vectors

THREE = [[1.0, 0.0], [0.5, 0.25], [-1.0, 2.0]]


def table(at: Path, vectors: Any, **columns: Any) -> Path:
    """A Parquet file with a column `vector`, of keys a, b, c … unless columns name others."""
    keys = (
        {} if {"key", "id", "path"} & columns.keys() else {"key": [chr(97 + i) for i in range(len(vectors))]}
    )
    parquet.write_table(pa.table({**keys, "vector": vectors, **columns}), at)
    return at


def read(source: Path | str) -> list[tuple[str, list[float], str | None]]:
    return [(item.key, item.vector.tolist(), item.problem) for item in read_vectors(str(source))]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float64()),
        pa.list_(pa.float32()),
        pa.list_(pa.float16()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 2),
        pa.list_(pa.float16(), 2),
    ],
    ids=str,
)
def test_vectors_of_every_list_type_are_read_as_they_are_written(tmp_path: Path, kind: pa.DataType) -> None:
    numbers = [[np.float16(x) for x in row] for row in THREE] if kind.value_type == pa.float16() else THREE
    path = table(tmp_path / "v.parquet", pa.array(numbers, kind))

    assert holds_vectors(str(path))
    assert dimension(str(path)) == 2
    assert read(path) == [("a", THREE[0], None), ("b", THREE[1], None), ("c", THREE[2], None)]


def test_lists_of_whole_numbers_are_vectors_too(tmp_path: Path) -> None:
    path = table(tmp_path / "v.parquet", [[1, 2], [3, 4]])

    assert read(path) == [("a", [1.0, 2.0], None), ("b", [3.0, 4.0], None)]


def test_other_columns_are_the_title_and_attributes_and_captions_are_left_out(tmp_path: Path) -> None:
    path = table(
        tmp_path / "v.parquet",
        THREE[:1],
        title=["a mug"],
        caption=["a mug on a table"],
        price=[2.5],
        tags=[["x", "y"]],
        none=[None],
    )

    (item,) = read_vectors(str(path))
    assert (item.title, item.attributes) == ("a mug", {"price": 2.5, "tags": ["x", "y"]})


@pytest.mark.parametrize(
    ("columns", "key", "attributes"),
    [
        ({"key": ["k"], "id": [7], "path": ["p.png"]}, "k", {"id": 7, "path": "p.png"}),
        ({"id": [7], "path": ["p.png"]}, "7", {"path": "p.png"}),
        ({"path": ["p.png"]}, "p.png", {}),
    ],
)
def test_the_key_is_key_or_id_or_a_path(
    tmp_path: Path, columns: dict[str, Any], key: str, attributes: dict[str, Any]
) -> None:
    (item,) = read_vectors(str(table(tmp_path / "v.parquet", THREE[:1], **columns)))

    assert (item.key, item.attributes) == (key, attributes)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2)], ids=str)
def test_rows_without_vector_or_key_say_so_and_missing_numbers_are_nan(
    tmp_path: Path, kind: pa.DataType
) -> None:
    path = table(
        tmp_path / "v.parquet",
        pa.array([None, [1.0, None], [1.0, 2.0], [3.0, 4.0]], kind),
        key=["a", "b", None, "d"],
    )

    none, odd, unnamed, good = read_vectors(str(path))
    assert (none.key, none.problem) == ("a", "it has no vector")
    np.testing.assert_array_equal(odd.vector, [1.0, np.nan])
    assert (unnamed.key, unnamed.problem) == ("row 3", "row 3 has no key")
    assert (good.key, good.vector.tolist(), good.problem) == ("d", [3.0, 4.0], None)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_rows_go_with_the_rows_of_the_parquet_beside_it(tmp_path: Path, dtype: str, order: Any) -> None:
    rows = 2 * ROWS + 3
    numbers = np.random.default_rng(1).normal(size=(rows, 3)).astype(dtype, order=order)
    np.save(tmp_path / "v.npy", numbers)
    parquet.write_table(pa.table({"id": range(rows), "n": range(rows)}), tmp_path / "v.parquet")

    items = list(read_vectors(str(tmp_path / "v.npy")))

    assert (holds_vectors(str(tmp_path / "v.npy")), dimension(str(tmp_path / "v.npy"))) == (True, 3)
    assert [item.key for item in items] == [str(i) for i in range(rows)]
    assert [item.attributes for item in items] == [{"n": i} for i in range(rows)]
    np.testing.assert_array_equal(np.stack([item.vector for item in items]), numbers)


def test_a_pattern_reads_all_its_files_by_name(tmp_path: Path) -> None:
    for name in ("2", "1"):
        table(tmp_path / f"{name}.parquet", THREE[:1], key=[name])

    assert holds_vectors(f"{tmp_path}/*.parquet")
    assert [key for key, _, _ in read(f"{tmp_path}/*.parquet")] == ["1", "2"]


def test_the_dimension_is_that_of_most_of_the_first_rows(tmp_path: Path) -> None:
    assert dimension(str(table(tmp_path / "v.parquet", [[1.0], [1.0, 2.0], [3.0, 4.0]]))) == 2


def write_parquet(path: Path) -> Path:
    """A Parquet file that is wrong in the way its name says."""
    match path.stem:
        case "words":
            table(path, [["a", "b"]])
        case "no key":
            parquet.write_table(pa.table({"vector": THREE, "colour": ["r", "g", "b"]}), path)
        case "two":
            columns = [pa.array(THREE), pa.array(THREE)]
            parquet.write_table(pa.Table.from_arrays(columns, ["vector", "vector"]), path)
        case "cut":
            data = table(path, THREE).read_bytes()
            path.write_bytes(data[: len(data) // 2])
        case "empty":
            table(path, pa.array([], pa.list_(pa.float32())))
    return path


def write_npy(path: Path) -> Path:
    """A NPY file that is wrong in the way its name says; beside it a Parquet of two rows."""
    numbers: NDArray[Any] = np.ones((3, 2))
    if path.stem != "alone":
        parquet.write_table(pa.table({"key": ["a", "b"]}), path.with_suffix(".parquet"))
    match path.stem:
        case "flat":
            numbers = np.ones(3)
        case "whole numbers":
            numbers = numbers.astype(int)
        case "pickle":
            numbers = np.array([{"a": 1}], dtype=object)
    np.save(path, numbers, allow_pickle=True)
    if path.stem == "short":
        path.write_bytes(path.read_bytes()[:-8])
    return path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("words.parquet", "vector is list<.*string>: it must be a list of floats"),
        ("no key.parquet", "no column of keys .one of key, id, path, .*; it has colour"),
        ("two.parquet", "has 2 columns vector: keep one"),
        ("cut.parquet", "cannot be read: "),
        ("empty.parquet", "holds no vectors"),
        ("alone.npy", "alone.parquet must lie beside it"),
        ("fewer.npy", "has 3 rows, fewer.parquet has 2: they must be the same"),
        ("flat.npy", r"is float64 of shape \(3,\): it must be floats of shape \(n, d\)"),
        ("whole numbers.npy", r"is int64 of shape \(3, 2\)"),
        ("pickle.npy", "cannot be read: "),
        ("short.npy", "cannot be read: "),
    ],
)
def test_a_source_that_cannot_be_read_names_itself_and_says_why(tmp_path: Path, name: str, said: str) -> None:
    write = write_npy if name.endswith(".npy") else write_parquet
    source = str(write(tmp_path / name))

    with pytest.raises(SourceError, match=f"^{re.escape(source)}: {said}"):
        assert holds_vectors(source) and dimension(source) and list(read_vectors(source))


def test_vectors_and_pictures_in_one_pattern_are_refused(tmp_path: Path) -> None:
    table(tmp_path / "v.parquet", THREE)
    (tmp_path / "words.csv").write_text("path\na.png\n")

    with pytest.raises(SourceError, match="vectors and pictures together"):
        holds_vectors(f"{tmp_path}/*")


def test_a_manifest_with_a_word_named_vector_still_names_pictures(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"path": ["a.png"], "vector": ["svg"]}), tmp_path / "m.parquet")

    assert not holds_vectors(str(tmp_path / "m.parquet"))
    assert not holds_vectors(str(ROOT / "tests"))
    assert not holds_vectors(str(tmp_path / "nowhere"))


def test_reading_vectors_loads_no_model() -> None:
    assert fresh("import sys, textmm.vector_sources\nprint('torch' in sys.modules)") == "False\n"
