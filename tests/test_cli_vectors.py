"""textmm index of vectors, and the search among them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from indexer.database import Database
from indexer.store.collections import Collections
from indexer.store.images import Images
from tests.conftest import ROOT, Run
from tests.deadline import wait_for
from tests.rows import assert_sound
from tests.test_cli_index import REPORT, counts

DIM = 6
MANY = 60_000
FOLD_NEVER = "[index]\nfold_rows = 1000000000\n"


def numbers(rows: int, dim: int = DIM) -> NDArray[np.float32]:
    return np.random.default_rng(4).normal(size=(rows, dim)).astype(np.float32)


def write(path: Path, vectors: NDArray[Any], **columns: Any) -> Path:
    keys = [f"k{i:05}" for i in range(len(vectors))]
    rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    parquet.write_table(pa.table({"key": keys, "vector": rows, **columns}), path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """20 vectors with a title and two attributes."""
    titles = [f"thing {i}" for i in range(20)]
    return write(
        tmp_path / "v.parquet", numbers(20), title=titles, n=range(20), even=[i % 2 == 0 for i in range(20)]
    )


def test_vectors_are_indexed_into_a_collection_made_for_them(run: Run, source: Path) -> None:
    words = run("index", source, "--collection", "own")
    report = json.loads(run("index", source, "--collection", "own", "--json").out)

    assert (words.code, words.err) == (0, "")
    assert words.out.startswith("own: 20 added, 0 updated, 0 unchanged, 0 failed in ")
    assert (sorted(report), counts(report)) == (REPORT, [0, 0, 20, []])
    assert sorted(report["stages"]) == ["check", "read", "write"]


def test_an_indexed_vector_finds_itself_and_a_filter_narrows(run: Run, source: Path, tmp_path: Path) -> None:
    run("index", source, "--collection", "own")
    np.save(tmp_path / "query.npy", numbers(20)[7])
    asked = ("search", "--vector", tmp_path / "query.npy", "--collection", "own", "--json")

    found = json.loads(run(*asked, "-k", "1").out)
    even = json.loads(run(*asked, "--filter", "even = true").out)

    (hit,) = found["hits"]
    assert (found["model_id"], hit["key"], hit["title"]) == ("external", "k00007", "thing 7")
    assert (hit["attributes"], hit["content_url"]) == ({"n": 7, "even": False}, None)
    assert hit["score"] == pytest.approx(1.0, abs=1e-3)
    assert sorted(hit["attributes"]["n"] for hit in even["hits"]) == list(range(0, 20, 2))


def test_npy_with_its_parquet_is_the_same_as_one_parquet(run: Run, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "npy"
    folder.mkdir()
    np.save(folder / "v.npy", numbers(20).astype(np.float64))
    parquet.write_table(parquet.read_table(source).drop_columns(["vector"]), folder / "v.parquet")

    done = run("index", folder / "v.npy", "--collection", "own", "--json")

    assert counts(json.loads(done.out)) == [20, 0, 0, []]
    np.save(tmp_path / "query.npy", numbers(20)[3])
    found = run("search", "--vector", tmp_path / "query.npy", "--collection", "own", "-k", "1", "--json")
    assert json.loads(found.out)["hits"][0]["key"] == "k00003"


def test_prune_deletes_what_the_source_no_longer_holds(run: Run, source: Path) -> None:
    run("index", source, "--collection", "own")
    parquet.write_table(parquet.read_table(source).slice(5), source)

    without = json.loads(run("index", source, "--collection", "own", "--json").out)
    pruned = json.loads(run("index", source, "--collection", "own", "--prune", "--json").out)

    assert counts(without) == counts(pruned) == [0, 0, 15, []]
    assert pruned["removed"] == 5


def test_a_vector_that_cannot_be_kept_is_reported_and_the_rest_is_in(run: Run, tmp_path: Path) -> None:
    vectors = numbers(4)
    vectors[1] = 0
    vectors[2, 3] = np.nan

    done = run("index", write(tmp_path / "v.parquet", vectors), "--collection", "own", "--json")

    report = json.loads(done.out)
    assert (done.code, report["added"]) == (1, 2)
    assert [failed["key"] for failed in report["failed"]] == ["k00001", "k00002"]


def test_other_vectors_do_not_come_in(run: Run, source: Path, pictures: Path, tmp_path: Path) -> None:
    run("index", pictures / "captions.csv", "--collection", "pictures")
    run("index", source, "--collection", "own")
    longer = write(tmp_path / "longer.parquet", numbers(2, DIM + 1))

    said = [
        run("index", longer, "--collection", "own"),
        run("index", source, "--collection", "pictures"),
        run("index", pictures / "captions.csv", "--collection", "own"),
        run("index", source, pictures, "--collection", "both"),
        run("index", source, "--collection", "known", "--bank"),
        run("index", source, "--collection", "own", "--caption-style", "photo"),
        run("index", write(tmp_path / "huge.parquet", numbers(1, 4097)), "--collection", "huge"),
    ]

    assert [done.code for done in said] == [2] * 7
    assert "holds vectors of 6 numbers, these have 7" in said[0].err
    assert "put vectors from elsewhere into another one" in said[1].err
    assert "put pictures into another collection" in said[2].err
    assert "index them apart" in said[3].err
    assert "--bank and --caption-style are for pictures" in said[4].err + said[5].err
    assert "vectors have 4097 numbers, the limit is 4096" in said[6].err


@pytest.mark.parametrize(
    "made",
    [np.ones((2, DIM)), np.array(["a"]), np.array([]), np.float32(1)],
    ids=["two", "word", "none", "one"],
)
def test_a_file_that_is_not_one_vector_is_refused(run: Run, source: Path, tmp_path: Path, made: Any) -> None:
    run("index", source, "--collection", "own")
    np.save(tmp_path / "query.npy", made)

    done = run("search", "--vector", tmp_path / "query.npy", "--collection", "own")

    assert (done.code, done.out) == (2, "")
    assert "vector" in done.err


def test_no_model_is_loaded_to_index_vectors(source: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom search.cli.main import cli\n"
        f"cli(['index', {str(source)!r}, '--collection', 'own', '--data', {str(tmp_path / 'd')!r}], "
        "standalone_mode=False)\nprint('torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["False"]), done.stderr


@pytest.mark.slow
def test_an_import_that_is_killed_again_and_again_goes_on_where_it_was(
    any_database: Database, tmp_path: Path
) -> None:
    source = write(tmp_path / "many.parquet", numbers(MANY), n=range(MANY))
    (tmp_path / "config.toml").write_text(f"data = '{tmp_path}/data'\n{FOLD_NEVER}")
    command = [sys.executable, "-m", "search.cli.main", "index", str(source), "--collection", "own", "--json"]
    environment = {
        **os.environ,
        "TEXTMM_DATABASE_URL": any_database.url,
        "TEXTMM_CONFIG": str(tmp_path / "config.toml"),
    }

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)

    def there() -> int:
        own = Collections(any_database).find("own")
        return 0 if own is None else Collections(any_database).counts(own.collection_id)[0]

    held = 0
    for more in (1, 8192):
        with start() as process:
            wait_for(lambda more=more, held=held: there() >= held + more)  # type: ignore[misc]
            process.kill()
        assert process.returncode == -signal.SIGKILL
        held = there()
        assert held < MANY and held % 8192 == 0  # batches are whole
    out, _ = start().communicate(timeout=300)

    assert counts(json.loads(out)) == [MANY - held, 0, held, []]
    assert there() == MANY
    assert_sound(any_database)
    own = Collections(any_database).get("own")
    assert [i.key for i in Images(any_database).page(own.collection_id, limit=3)] == [
        "k00000",
        "k00001",
        "k00002",
    ]
