"""Our vector index beside the systems people use: the same vectors, the same threads, one run.

What it means, for each system at the least effort (ef, nprobe, ...) that finds recall@10 >= 0.98, or the best it
reaches when none does:

- `qps`: queries per second, a batch of 1000 on 2 threads, median of 5 rounds.
- `p50_ms`, `p95_ms`: one query at a time, 200 of them, on 1 thread where a system can be told.
- `memory_mb`: growth of resident memory, that of child processes included, from before the built index is opened in a
  fresh process (or loaded by a fresh server) to after those single queries. That process holds neither the vectors
  nor anything of the build; what a system leaves on disk (LanceDB) counts as far as it was read in.
- `build_s`: from vectors in memory to an index on disk that can be searched, on 2 threads.
- `filters`: the same effort among the rows that pass a filter, for shares of 50 % to 0.01 % (10 rows at least).
  "random": every row passes with that probability. "correlated": whole clusters pass, so that the nearest rows of most
  queries do not. Libraries are handed the rows that pass; databases evaluate a condition on an indexed column, in the
  time measured. `asked`: of 200 queries, those of 20 s, 20 at least.

Good: recall 0.98 or more on every kind and under every filter, with 10 rows returned, and as many queries per second
as the best graph library has. Two kinds are made, and the right structure differs: of clusters "apart" (deviation 0.5)
inverted lists of vectors win; where they overlap (1.0) graphs win over them. Ours are lists of codes. `--fashion` adds
real vectors: pictures through our encoder, held-out pictures as queries.

The other systems are no dependencies of ours. They run in environments of their own:

    python3 -m venv peers && peers/bin/pip install hnswlib usearch pymilvus milvus-lite lancedb chromadb
    python3 -m venv server && server/bin/pip install milvus==2.3.5 'pymilvus==2.3.7' 'setuptools<81' 'marshmallow<4' \
        'numpy<2'
    python -m tests.benchmarks.bench_search --peers-python peers/bin/python --milvus-python server/bin/python
    python -m tests.benchmarks.bench_search --rows 1000000 ...        # ours, hnswlib and usearch

A system whose package is missing is "not installed". Data, indexes and figures stay in `--cache`: a run that was cut
off goes on where it was, and `--again ours` measures anew (`--rebuild ours` builds anew too). Figures to compare come
of one machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.measure import print_json
from tests.benchmarks.peers.data import DEVIATIONS, SELECTIVITIES, divide, generate, stored
from tests.benchmarks.peers.system import AT_A_MILLION, SYSTEMS
from tests.benchmarks.peers.worker import ENOUGH, NOT_INSTALLED

ROOT = Path(__file__).parents[2]
THREADS = 2
MANY_ROWS = 500_000
"""From here on only the libraries that hold so many in memory are compared, unless systems are named."""
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
    "LANCE_CPU_THREADS",
)
Row = dict[str, Any]
RECALLS = (0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
NEARLY_ONE = 1.002


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--kinds", nargs="*", choices=list(DEVIATIONS), default=list(DEVIATIONS))
    parser.add_argument("--fashion", default="", help="a source of pictures: '/path/shards/val-*.tar'")
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), metavar="SYSTEM", default=[])
    parser.add_argument("--cache", type=Path, default=Path("data/bench-search"))
    parser.add_argument("--out", type=Path, help="the figure; without it search.png in the cache")
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--milvus-python", default=sys.executable)
    parser.add_argument("--again", nargs="+", default=[], choices=list(SYSTEMS), metavar="SYSTEM")
    parser.add_argument("--rebuild", nargs="+", default=[], choices=list(SYSTEMS), metavar="SYSTEM")
    arguments = parser.parse_args()
    pythons = {
        "project": sys.executable,
        "peers": arguments.peers_python,
        "milvus": arguments.milvus_python,
    }
    results: list[Row] = []
    missing: dict[str, str] = {}
    for kind, count, folder in data_sets(arguments):
        print(f"\n{kind}, {count:,} rows")
        print(HEADER)
        for system in arguments.systems or (AT_A_MILLION if count >= MANY_ROWS else SYSTEMS):
            place = Place(folder, system, pythons[SYSTEMS[system][1]])
            if system in arguments.rebuild:
                shutil.rmtree(place.index, ignore_errors=True)
            if system in (*arguments.again, *arguments.rebuild):
                place.figures.unlink(missing_ok=True)
            try:
                row = {"system": system, "rows": count, "kind": kind, **place.measured()}
            except Unmeasured as reason:
                missing[system] = str(reason)
                print(f"{system:16} {reason}", flush=True)
                continue
            results.append(row)
            print(line(row), flush=True)
    print_filters(results)
    out = arguments.out or arguments.cache / "search.png"
    if results:
        draw(results, out)
        print(f"\n{out}")
    shown = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
    print_json("search", shown, {"results": results, "missing": missing})


def data_sets(arguments: argparse.Namespace) -> Iterator[tuple[str, int, Path]]:
    for count, kind in itertools.product(arguments.rows, arguments.kinds):
        folder = arguments.cache.absolute() / f"{kind}-{count}"
        generate(kind, count, folder)
        yield kind, count, folder
    if arguments.fashion:
        folder = arguments.cache.absolute() / f"fashion-{zlib.crc32(arguments.fashion.encode()):08x}"
        if not (folder / "data.json").exists():
            encode(arguments.fashion, folder)
        yield "fashion", json.loads((folder / "data.json").read_text())["rows"], folder


def encode(source: str, folder: Path) -> None:
    """Every picture of the source through our encoder."""
    from search.cli.context import load_encoder
    from search.config import Config
    from textmm.sources import read_bytes, read_source
    from textmm.transforms import decode_image

    encoder = load_encoder(Config())
    items = read_source(source)
    parts = []
    while batch := list(itertools.islice(items, 64)):
        images = [encoder.fit(decode_image(read_bytes(item.locator))) for item in batch]
        parts.append(stored(encoder.encode_images(images)))
    divide(np.concatenate(parts), folder)


class Unmeasured(Exception):
    """Why a system has no figures."""


class Place:
    """A system on one set of vectors: its index and figures on disk, and the processes that make them."""

    def __init__(self, data: Path, system: str, python: str) -> None:
        self.data, self.system, self.python = data, system, python
        self.index = data / "indexes" / system
        self.figures = data / "figures" / f"{system}.json"

    def measured(self) -> Row:
        """Figures of this system, kept or made now. Raises Unmeasured."""
        if self.figures.exists():
            kept: Row = json.loads(self.figures.read_text())
            return kept
        built = self.index / "built.json"
        if not built.exists():  # what is there is half an index
            shutil.rmtree(self.index, ignore_errors=True)
            self.index.mkdir(parents=True)
            figures = self.run("build", THREADS)
            built.write_text(json.dumps(figures))
        row: Row = json.loads(built.read_text())
        row |= self.run("batches", THREADS)
        row |= self.run("singles", 1, effort=row["effort"])
        self.figures.parent.mkdir(exist_ok=True)
        self.figures.write_text(json.dumps(row))
        return row

    def run(self, task: str, threads: int, *, effort: int = 0) -> Row:
        result = self.index / f"{task}.json"
        command = [self.python, "-m", "tests.benchmarks.peers.worker", task, self.system]
        command += [str(self.data), str(self.index), str(result)]
        command += ["--threads", str(threads), "--effort", str(effort)]
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"RUST_LOG": "error"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode == NOT_INSTALLED:
            raise Unmeasured("not installed")
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise Unmeasured(f"{task} failed: {lines[-1][:200]}")
        figures: Row = json.loads(result.read_text())
        return figures


HEADER = (
    f"{'system':16} {'recall':>6} {'effort':>6} {'qps':>9} {'(low-high)':>17} {'p50 ms':>8} {'p95 ms':>8}"
    f" {'MB':>8} {'build s':>8}"
)


def line(row: Row) -> str:
    spread = f"({row['qps_low']:.0f}-{row['qps_high']:.0f})"
    return (
        f"{row['system']:16} {row['recall']:6.3f} {row['effort']:6d} {row['qps']:9.1f} {spread:>17}"
        f" {row['p50_ms']:8.3f} {row['p95_ms']:8.3f} {row['memory_mb']:8.1f} {row['build_s']:8.1f}"
    )


def print_filters(results: Sequence[Row]) -> None:
    """A table a set of vectors and kind of filter: recall, rows returned and p95 by the share that passes."""
    for (count, kind), rows in by_data(results).items():
        for way in ("random", "correlated"):
            shares = [f["selectivity"] for f in rows[0]["filters"] if f["kind"] == way]
            print(f"\n{kind}, {count:,} rows, {way} filters: recall, rows returned of 10, p95 ms")
            print(f"{'system':16}" + "".join(f" {100 * share:>20g} %" for share in shares))
            for row in rows:
                cells = [
                    f" {f['recall']:7.3f} {f['rows_returned']:5.1f} {f['p95_ms']:8.2f}"
                    for f in row["filters"]
                    if f["kind"] == way
                ]
                print(f"{row['system']:16}" + "".join(cells))


def by_data(results: Sequence[Row]) -> dict[tuple[int, str], list[Row]]:
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in results:
        groups.setdefault((row["rows"], row["kind"]), []).append(row)
    return groups


def draw(results: Sequence[Row], out: Path) -> None:
    """A row of panels for each set of vectors: recall against qps, and p95 against each kind of filter."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import colormaps, lines, pyplot

    groups = by_data(results)
    names = [name for name in SYSTEMS if any(row["system"] == name for row in results)]
    colours = dict(zip(SYSTEMS, ["black", *colormaps["tab20"](range(20))], strict=False))
    markers = dict(zip(SYSTEMS, "*osDvv^^PPXXhp", strict=False))
    figure, grid = pyplot.subplots(
        len(groups), 3, figsize=(19, 5 * len(groups) + 1), squeeze=False, layout="constrained"
    )
    for ((count, kind), rows), panels in zip(groups.items(), grid, strict=True):
        for row in rows:
            name = row["system"]
            style = {"color": colours[name], "marker": markers[name], "lw": 2.5 if name == "ours" else 1.2}
            size = 12 if name == "ours" else 6
            curve = row["curve"]
            panels[0].plot([p["recall"] for p in curve], [p["qps"] for p in curve], markersize=size, **style)
            panels[0].plot([row["recall"]], [row["qps"]], markersize=size + 4, alpha=0.5, **style)
            for panel, way in zip(panels[1:], ("random", "correlated"), strict=True):
                draw_filters(panel, [f for f in row["filters"] if f["kind"] == way], size, style)
        panels[0].axvline(ENOUGH, color="grey", ls=":", lw=1)
        panels[0].set(xlabel="recall@10", ylabel="queries/s (batch, 2 threads)", yscale="log")
        panels[0].set_xscale("function", functions=(stretch, shrink))
        panels[0].set_xticks(RECALLS, [f"{value:g}" for value in RECALLS])
        panels[0].set_xlim(right=1.0005)
        panels[0].set_title(f"{kind}, {count:,} rows (large: the effort compared)")
        for panel, way in zip(panels[1:], ("random", "correlated"), strict=True):
            panel.set(
                xscale="log", yscale="log", xlabel="share of rows that pass, %", ylabel="p95 of one query, ms"
            )
            panel.set_title(f"{way} filters (hollow: recall below {ENOUGH})")
            panel.invert_xaxis()
            panel.set_xticks(
                [100 * share for share in SELECTIVITIES], [f"{100 * s:g}" for s in SELECTIVITIES]
            )
            panel.minorticks_off()
        for panel in panels:
            panel.grid(True, which="major", alpha=0.3)
    handles = [lines.Line2D([], [], color=colours[name], marker=markers[name], label=name) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def stretch(recalls: NDArray[np.float64]) -> NDArray[np.float64]:
    """An axis on which .9, .99 and .999 lie equally far apart, and 1 is still on it."""
    return -np.log10(NEARLY_ONE - np.minimum(recalls, 1.0))


def shrink(places: NDArray[np.float64]) -> NDArray[np.float64]:
    return NEARLY_ONE - 10.0**-places


def draw_filters(panel: Any, filters: Sequence[Row], size: int, style: Row) -> None:
    shares, times = [100 * f["selectivity"] for f in filters], [f["p95_ms"] for f in filters]
    panel.plot(shares, times, color=style["color"], lw=style["lw"])
    for share, ms, row in zip(shares, times, filters, strict=True):
        face = style["color"] if row["recall"] >= ENOUGH else "white"
        panel.plot(
            [share], [ms], markersize=size, markerfacecolor=face, color=style["color"], marker=style["marker"]
        )


if __name__ == "__main__":
    main()
