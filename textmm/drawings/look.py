"""What a product is made of: its colours, and its pattern as cloth to cut parts from."""

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from textmm.drawings.sheet import RGB, SUPERSAMPLING, Points, Sheet, edge_of, mixed

METALS: tuple[RGB, ...] = ((198, 200, 205), (212, 176, 104), (216, 166, 146), (120, 123, 130))


@dataclass(frozen=True)
class Look:
    """One product's colours, and the cloth of them."""

    main: RGB
    accent: RGB
    pattern: str
    style: str
    grain: float
    """Width of one repeat of the pattern, in units."""
    upright: bool
    """Stripes run up and down instead of across."""
    _cut: dict[int, Image.Image] = field(default_factory=dict, repr=False)

    @property
    def edge(self) -> RGB:
        return edge_of(self.main)

    def cloth(self, sheet: Sheet, angle: float = 0.0) -> RGB | Image.Image:
        """The fill for a part whose grain is turned by this many radians."""
        if self.pattern == "plain":
            return self.main
        turn = round(angle * 5)  # a few cuts serve all sleeves and collars
        if turn not in self._cut:
            self._cut[turn] = _cloth(sheet, self, turn / 5)
        return self._cut[turn]


def _cloth(sheet: Sheet, look: Look, angle: float) -> Image.Image:
    main, accent = look.main, look.accent
    cloth = Image.new("RGB", (sheet.size[0] * SUPERSAMPLING, sheet.size[1] * SUPERSAMPLING), main)
    pen = ImageDraw.Draw(cloth)
    cos, sin = math.cos(angle), math.sin(angle)

    def patches(boxes: Points, colour: RGB) -> None:
        """boxes [n, 4]: left, top, right, bottom in the cloth's own units."""
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2) @ np.array([[cos, sin], [-sin, cos]])
        for corner in (sheet.px(corners) * SUPERSAMPLING).reshape(-1, 8).tolist():
            pen.polygon(corner, fill=colour)

    if look.pattern == "striped":
        patches(_bands(look.grain, 0.40, upright=look.upright), accent)
    elif look.pattern == "checked":
        rows, columns = _bands(look.grain, 0.42, upright=False), _bands(look.grain, 0.42, upright=True)
        patches(np.concatenate([rows, columns]), mixed(main, accent, 0.42))
        patches(_crossings(rows, columns), accent)
    elif look.pattern == "dotted":
        _dots(pen, sheet, look, accent)
    else:
        patches(np.array([[-2.0, 0.36, 2.0, 2.0], [-2.0, 0.08, 2.0, 0.2]]), accent)
    return cloth


def _bands(grain: float, share: float, *, upright: bool) -> Points:
    start = np.arange(-1.6, 1.6, grain)
    low, high = np.full_like(start, -2.0), np.full_like(start, 2.0)
    end = start + grain * share
    return np.stack([start, low, end, high] if upright else [low, start, high, end], axis=1)


def _crossings(rows: Points, columns: Points) -> Points:
    inside = rows[np.abs(rows[:, 1]) < 1.1], columns[np.abs(columns[:, 0]) < 1.1]
    row, column = np.repeat(inside[0], len(inside[1]), axis=0), np.tile(inside[1], (len(inside[0]), 1))
    return np.stack([column[:, 0], row[:, 1], column[:, 2], row[:, 3]], axis=1)


def _dots(pen: ImageDraw.ImageDraw, sheet: Sheet, look: Look, accent: RGB) -> None:
    steps = np.arange(-1.2, 1.2, look.grain)
    x, y = np.meshgrid(steps, steps)
    x[1::2] += look.grain / 2
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    radius_px = float(np.ptp(sheet.px(np.array([[0.0, 0.0], [look.grain * 0.24, 0.0]])), axis=0).max()) * 2
    for centre_x, centre_y in (sheet.px(centres) * SUPERSAMPLING).tolist():
        pen.circle((centre_x, centre_y), radius_px, fill=accent)
