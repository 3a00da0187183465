"""training.csv: the losses and figures of a run, a row each, and the curves drawn from it."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from textmm.checkpoint import write_atomically

HEAD = ("stage", "step", "loss", "value")
Curves = dict[str, dict[str, list[tuple[int, float]]]]
"""loss -> stage -> (step, value) in order."""


def log(path: Path, stage: str, step: int, values: Mapping[str, float]) -> None:
    """Append a row for each value and see it on disk."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        rows = csv.writer(file)
        if new:
            rows.writerow(HEAD)
        rows.writerows([stage, step, name, f"{value:.5f}"] for name, value in values.items())
        file.flush()
        os.fsync(file.fileno())


def forget(path: Path, done: Sequence[str], stage: str, step: int) -> None:
    """Drop the rows of steps that are done again: those after `step` of `stage`, and of stages that are to
    come. `done` are the names of the stages before.
    """
    if not path.exists():
        return
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    kept = [row for row in rows if row[0] in done or (row[0] == stage and int(row[1]) <= step)]

    def write(partial: Path) -> None:
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([head, *kept])

    write_atomically(path, write)


def read(path: Path) -> Curves:
    curves: Curves = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            points = curves.setdefault(row["loss"], {}).setdefault(row["stage"], [])
            points.append((int(row["step"]), float(row["value"])))
    return curves


def draw(path: Path, picture: Path) -> None:
    """A panel for each loss or figure in training.csv, a line for each stage, as PNG.

    Raises ModuleNotFoundError without matplotlib.
    """
    import matplotlib  # half a second, and a service does without

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = read(path)
    figure, panels = pyplot.subplots(
        1, max(1, len(curves)), figsize=(5 * max(1, len(curves)), 4), squeeze=False, layout="constrained"
    )
    for panel, (name, stages) in zip(panels[0], sorted(curves.items()), strict=False):
        for stage, points in stages.items():
            panel.plot(*zip(*points, strict=True), label=stage, marker="." if len(points) < 30 else "")
        panel.set(title=name, xlabel="step")
        panel.legend()
    write_atomically(picture, lambda partial: figure.savefig(partial, format="png", dpi=100))
    pyplot.close(figure)
