"""An evaluation as PNGs: recall curve, confusion matrix, reliability diagram, sheets of the worst misses."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from PIL import Image

from textmm.figures import Confusion, Miss, Misses, Picture, RecallCurve, Reliability, Shown
from textmm.sources import Item, read_bytes
from textmm.transforms import decode_image

FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "SimHei",
)
"""The first has most scripts; of those after it, for Chinese, what is installed."""
DPI = 110
NUMBERED = 25
"""Labels up to which a confusion matrix says its numbers."""
NAMED = 150
"""Labels up to which it names them."""
CELL, TEXT_CELL, LINE = 1.0, 1.6, 0.34
"""Of a sheet of misses, in heights of a row: width of a picture, width of a text, height left to the notes."""


def draw(pictures: Sequence[Picture], items: Sequence[Item], folder: Path) -> list[Path]:
    """Write a PNG for each, except sheets without a miss, and return their paths.

    `items` are the data that misses point into; their pictures are read again, as they are. Letters that no installed
    font has become boxes. Raises OSError if the folder cannot be written or a picture is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with _fonts():
        for picture in pictures:
            match picture:
                case RecallCurve():
                    figure, name = _recall_curve(picture), "recall"
                case Confusion():
                    figure, name = _confusion(picture), "confusion"
                case Reliability():
                    figure, name = _reliability(picture), "reliability"
                case Misses(misses=[]):
                    continue
                case Misses():
                    figure, name = _sheet(picture.misses, items), f"misses-{picture.name}"
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=DPI)
            written.append(path)
    return written


@contextmanager
def _fonts() -> Iterator[None]:
    there = set(fontManager.get_font_names())
    settings: dict[Any, Any] = {
        "font.family": [name for name in FONTS if name in there],
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _recall_curve(curve: RecallCurve) -> Figure:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for way, shares in curve.ways.items():
        k = np.arange(1, len(shares) + 1)
        axes.plot(k, shares, label=way, marker="o" if len(k) < 20 else None, ms=3)
    longest = max(map(len, curve.ways.values()))
    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100) if k <= longest]
    axes.set(
        xscale="log", xlabel="k", ylabel="recall@k", ylim=(0, 1.02), title="right answer among the k best"
    )
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    return figure


def _confusion(confusion: Confusion) -> Figure:
    n = len(confusion.labels)
    shares = confusion.counts / np.maximum(confusion.counts.sum(axis=1, keepdims=True), 1)
    side = max(4.0, min(26.0, 0.24 * n))
    figure = Figure(figsize=(side + 2.6, side + 1.8), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= NAMED:
        small = 8 if n < 100 else 6
        axes.set_xticks(range(n), [_short(label) for label in confusion.labels], rotation=90, fontsize=small)
        axes.set_yticks(range(n), [_short(label) for label in confusion.labels], fontsize=small)
    if n <= NUMBERED:
        for i, j in np.argwhere(confusion.counts):
            ink = "white" if shares[i, j] > 0.6 else "black"
            axes.text(j, i, str(confusion.counts[i, j]), ha="center", va="center", color=ink, fontsize=7)
    axes.set(
        xlabel="label given", ylabel="label it has", title="share of a label's pictures (a row adds up to 1)"
    )
    figure.colorbar(drawn, ax=axes, shrink=0.6)
    return figure


def _reliability(reliability: Reliability) -> Figure:
    bins = reliability.bins
    count, confidence, right = (part.reshape(-1) for part in (bins.count, bins.confidence, bins.right))
    width = 1 / len(count)
    middles = (np.arange(len(count)) + 0.5) * width
    figure = Figure(figsize=(5.4, 6.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    some = count > 0
    upper.bar(middles[some], right[some] / count[some], width * 0.94, color="tab:blue", label="accuracy")
    upper.plot(confidence[some] / count[some], right[some] / count[some], "o", color="black", ms=3)
    upper.plot([0, 1], [0, 1], color="tab:red", ls="--", lw=1, label="confidence = accuracy")
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy", title="accuracy by confidence")
    upper.legend(loc="upper left")
    upper.grid(alpha=0.3)
    lower.bar(middles, count, width * 0.94, color="grey")
    lower.set(xlabel="confidence", ylabel="pictures")
    return figure


def _sheet(misses: Sequence[Miss], items: Sequence[Item]) -> Figure:
    """A row a miss: what was asked, what is right, what came."""
    groups: list[list[tuple[Shown, ...]]] = [
        [(miss.asked,) for miss in misses],
        [miss.right for miss in misses],
        [miss.came for miss in misses],
    ]
    widths = [_width(shown) for shown in groups]
    lefts = np.cumsum([0.0, *(width + 0.3 for width in widths)])
    height = len(misses) * (1 + LINE) + LINE
    figure = Figure(figsize=(1.5 * lefts[-1], 1.5 * height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.1, lefts[-1] - 0.2), ylim=(height, 0))
    axes.set_axis_off()
    for title, left in zip(("asked", "right", "came"), lefts[:-1], strict=True):
        axes.text(left, LINE * 0.7, title, fontsize=11, weight="bold")
    for row, miss in enumerate(misses):
        top = LINE + row * (1 + LINE)
        for left, group in zip(lefts[:-1], groups, strict=True):
            _cells(axes, group[row], items, left, top)
        axes.text(lefts[0], top + 1.16, miss.note, fontsize=8, color="tab:red")
    return figure


def _width(shown: Sequence[Sequence[Shown]]) -> float:
    """Of a column whose rows hold these: pictures stand beside one another, texts under one another."""
    texts = any(isinstance(one, str) for row in shown for one in row)
    return TEXT_CELL if texts else CELL * max(map(len, shown))


def _cells(axes: Any, shown: Sequence[Shown], items: Sequence[Item], left: float, top: float) -> None:
    texts = [one for one in shown if isinstance(one, str)]
    if texts:
        lines = [line for text in texts for line in _wrapped(text, len(texts))]
        axes.text(left, top + 0.02, "\n".join(lines), va="top", fontsize=9, linespacing=1.15)
    for i, one in enumerate(one for one in shown if isinstance(one, int)):
        image = Image.fromarray(np.asarray(decode_image(read_bytes(items[one].locator))))
        image.thumbnail((2 * DPI, 2 * DPI))
        across, down = image.width / max(image.size) * 0.94, image.height / max(image.size) * 0.94
        x, y = left + i * CELL + (CELL - across) / 2, top + (1 - down) / 2
        axes.imshow(np.asarray(image), extent=(x, x + across, y + down, y), aspect="auto")
        axes.text(left + i * CELL + 0.03, top + 1.05, _short(items[one].key, 16), fontsize=6, color="grey")


def _wrapped(text: str, of: int) -> list[str]:
    """In lines of a text cell, as many as all `of` texts leave to each; one of several has a mark before it."""
    mark, indent = ("· ", "  ") if of > 1 else ("", "")
    lines = textwrap.wrap(text, 30, initial_indent=mark, subsequent_indent=indent) or [f"{mark}(nothing)"]
    most = max(1, 10 // of)
    kept = lines[:most]
    return [*kept[:-1], f"{kept[-1]} …"] if len(lines) > most else kept


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
