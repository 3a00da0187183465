"""The sheet a product is drawn on: curves, filled parts with light on them, and the photograph of the result.

Kinds draw in units: x to the right, y down, (0, 0) the middle of the picture, and about -1..1 the product.
Light comes from the upper left, whichever way the product is turned.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

RGB = tuple[int, int, int]
Point = tuple[float, ...]  # (x, y) is passed smoothly; a third number makes it a corner
Points = NDArray[np.float64]  # [n, 2]
Fill = RGB | Image.Image

SUPERSAMPLING = 2
_SHADE = [max(0, 128 - light) * 255 // 128 for light in range(256)]
_SHINE = [max(0, light - 128) * 153 // 128 for light in range(256)]
_STEPS = 9  # straight pieces for each piece of a curve


@dataclass(frozen=True)
class Pose:
    """How a product lies in its picture."""

    rotation: float = 0.0
    """Radians, clockwise."""
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    """In units."""
    mirrored: bool = False


@dataclass(frozen=True)
class Crease:
    """A soft stroke of light (depth 0..1) or shadow (depth -1..0), seen only on the part it is given to."""

    points: Points
    width: float
    depth: float


def between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def tint(colour: RGB, amount: float) -> RGB:
    """Mixed with white (amount 0..1) or black (-1..0)."""
    return mixed(colour, (255, 255, 255) if amount > 0 else (0, 0, 0), abs(amount))


def mixed(colour: RGB, other: RGB, share: float) -> RGB:
    """share (0..1) of the other."""
    r, g, b = (round(one + (two - one) * share) for one, two in zip(colour, other, strict=True))
    return r, g, b


def edge_of(colour: RGB) -> RGB:
    """What a thin line on this colour is drawn in, so that it shows on black too."""
    return tint(colour, 0.22) if sum(colour) < 200 else tint(colour, -0.36)


def curve(points: Sequence[Point], *, closed: bool = True) -> Points:
    """Through all the points, [n, 2]; each piece has handles of its own length, so none of them bulges."""
    knots = np.array([point[:2] for point in points], dtype=np.float64)
    corner = np.array([len(point) > 2 for point in points])[:, None]
    before, after = np.roll(knots, 1, axis=0), np.roll(knots, -1, axis=0)
    if not closed:
        before[0], after[-1] = knots[0], knots[-1]
    chord = after - knots  # [n, 2], of the piece that begins here
    length = np.linalg.norm(chord, axis=1, keepdims=True)
    along = after - before
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    leave = np.where(corner, chord, along * length)
    arrive = np.where(np.roll(corner, -1), chord, np.roll(along, -1, axis=0) * length)
    t = np.linspace(0.0, 1.0, _STEPS, endpoint=False)[None, :, None]  # Hermite pieces, [n, steps, 2]
    pieces = (
        (2 * t**3 - 3 * t**2 + 1) * knots[:, None]
        + (t**3 - 2 * t**2 + t) * leave[:, None]
        + (3 * t**2 - 2 * t**3) * after[:, None]
        + (t**3 - t**2) * arrive[:, None]
    )
    if closed:
        return pieces.reshape(-1, 2)
    return np.concatenate([pieces[:-1].reshape(-1, 2), knots[-1:]])


def symmetric(right: Sequence[Point]) -> Points:
    """The closed curve whose right half, from the top middle to the bottom middle, is given."""
    left = [(-point[0], *point[1:]) for point in reversed(right) if point[0] != 0]
    return curve([*right, *left])


def ellipse(x: float, y: float, across: float, down: float) -> Points:
    """Around (x, y) with these two radii."""
    angle = np.linspace(0.0, 2 * math.pi, 40, endpoint=False)
    return np.stack([x + across * np.cos(angle), y + down * np.sin(angle)], axis=1)


def rounded(left: float, top: float, right: float, bottom: float, radius: float) -> Points:
    """A rectangle with round corners."""
    angle = np.linspace(0.0, math.pi / 2, 6)
    corners = []
    for x, y, turn in ((right, bottom, 0), (left, bottom, 1), (left, top, 2), (right, top, 3)):
        centre_x = x - radius if x == right else x + radius
        centre_y = y - radius if y == bottom else y + radius
        turned = angle + turn * math.pi / 2
        corners.append(
            np.stack([centre_x + radius * np.cos(turned), centre_y + radius * np.sin(turned)], axis=1)
        )
    return np.concatenate(corners)


def ribbon(middle: Points, width: float | NDArray[np.float64]) -> Points:
    """The outline of a band along an open curve; the width may differ from point to point."""
    slope = np.gradient(middle, axis=0)
    slope /= np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-9)
    half = slope[:, ::-1] * (-1.0, 1.0) * np.reshape(np.asarray(width) / 2, (-1, 1))
    return np.concatenate([middle + half, (middle - half)[::-1]])


def moved(points: Points, x: float, y: float) -> Points:
    shifted: Points = points + np.array([x, y])
    return shifted


class Sheet:
    """Parts laid over one another at twice the size, with the light on them kept apart until `photograph`."""

    def __init__(self, size: tuple[int, int], unit_px: float, pose: Pose, ground: RGB) -> None:
        """ground is the product's main colour: its outer edge melts into it, its shadows are tinted by it."""
        width, height = size
        self.size = size
        self._shade = _shade_of(ground)
        large = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self._ink = Image.new("RGB", large, ground)
        self._pen = ImageDraw.Draw(self._ink)
        self._alpha = Image.new("L", large, 0)
        self._alpha_pen = ImageDraw.Draw(self._alpha)
        self._light = Image.new("L", size, 128)
        self._unit_px = unit_px * pose.scale
        cos, sin = math.cos(pose.rotation), math.sin(pose.rotation)
        flip = -1.0 if pose.mirrored else 1.0
        self._turn = np.array([[cos * flip, sin * flip], [-sin, cos]]) * self._unit_px
        self._middle = np.array([width / 2, height / 2]) + np.array(pose.shift) * unit_px
        self._nudge: Points = np.zeros((1, 2))
        self._zoom = 1.0

    def at(self, x: float, y: float, scale: float = 1.0) -> None:
        """What follows is drawn around (x, y), at this scale: for the second of a pair."""
        self._nudge, self._zoom = np.array([[x, y]]), scale

    def px(self, points: Points) -> Points:
        return (points * self._zoom + self._nudge) @ self._turn + self._middle

    def part(
        self,
        outline: Points,
        fill: Fill,
        *,
        volume: float = 0.5,
        softness: float = 0.08,
        creases: Sequence[Crease] = (),
        edge: RGB | None = None,
    ) -> None:
        """Lays a filled outline over what is there.

        volume is how strongly its edges turn away from the light, softness how far in (units) that is seen.
        """
        blur_px = max(1.0, softness * self._unit_px)
        pad = int(blur_px) + 3
        outline_px = self.px(outline)
        left, top = (np.floor(outline_px.min(axis=0)).astype(int) - pad).tolist()
        right, bottom = (np.ceil(outline_px.max(axis=0)).astype(int) + pad).tolist()
        box = (left, top, right, bottom)
        large_box = (left * 2, top * 2, right * 2, bottom * 2)
        mask = Image.new("L", (large_box[2] - large_box[0], large_box[3] - large_box[1]), 0)
        ImageDraw.Draw(mask).polygon(_flat((outline_px - (left, top)) * SUPERSAMPLING), fill=255)
        large_outline = _flat(outline_px * SUPERSAMPLING)
        if isinstance(fill, Image.Image):
            self._ink.paste(fill.crop(large_box), large_box, mask)
        else:
            self._pen.polygon(large_outline, fill=fill)
        self._alpha_pen.polygon(large_outline, fill=255)
        small = mask.reduce(SUPERSAMPLING)
        light = _bulge(small, blur_px, volume)
        if creases:
            light += self._creases(creases, box)
        shaded = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))
        self._light.paste(shaded, box, small)
        if edge is not None:
            self._pen.line(_flat(np.concatenate([outline_px, outline_px[:2]]) * 2), fill=edge, width=2)

    def line(self, points: Points, colour: RGB, width: float) -> None:
        """A drawn line with round ends; it does not add to the product's outline."""
        points_px = self.px(points) * SUPERSAMPLING
        width_px = max(1, round(width * self._unit_px * self._zoom * SUPERSAMPLING))
        self._pen.line(_flat(points_px), fill=colour, width=width_px, joint="curve" if width_px > 4 else None)
        if width_px > 4:
            for end in (points_px[0], points_px[-1]):
                self._pen.circle((float(end[0]), float(end[1])), width_px / 2, fill=colour)

    def stitches(self, points: Points, colour: RGB) -> None:
        """A dashed seam."""
        points_px = self.px(points) * SUPERSAMPLING
        reach = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_px, axis=0), axis=1))])
        starts = np.arange(0.0, reach[-1] - 6, 11.0)
        marks = np.stack([starts, starts + 6], axis=1)
        x, y = np.interp(marks, reach, points_px[:, 0]), np.interp(marks, reach, points_px[:, 1])
        for (x0, x1), (y0, y1) in zip(x.tolist(), y.tolist(), strict=True):
            self._pen.line((x0, y0, x1, y1), fill=colour, width=2)

    def photograph(self, backdrop: RGB, rng: np.random.Generator, *, standing: bool) -> Image.Image:
        """The finished RGB picture; a standing product touches a floor, another hangs before a wall."""
        left, top, right, bottom = box = self._product_box()
        large_box = (left * SUPERSAMPLING, top * SUPERSAMPLING, right * SUPERSAMPLING, bottom * SUPERSAMPLING)
        small = (right - left, bottom - top)
        product = self._ink.resize(small, Image.Resampling.LANCZOS, large_box)
        light = self._light.crop(box)
        product.paste(self._shade, mask=light.point(_SHADE))
        product.paste((255, 255, 255), mask=light.point(_SHINE))

        shadow = _floor_shadow(self._alpha) if standing else _wall_shadow(self._alpha)
        room = _room(self.size, rng, standing=standing) * (1 - shadow)
        room += (rng.random(room.shape, dtype=np.float32) - 0.5) * 0.012  # grain, hides banding
        tones = np.linspace(0, 1.1, 256)[:, None] * np.array(backdrop)  # [256, 3], of each brightness
        levels = (np.clip(room, 0, 1.1) * (255 / 1.1)).astype(np.uint8)
        scene = Image.fromarray(np.clip(tones, 0, 255).astype(np.uint8)[levels])
        scene.paste(product, box, self._alpha.resize(small, Image.Resampling.LANCZOS, large_box))
        return scene

    def _product_box(self) -> tuple[int, int, int, int]:
        left, top, right, bottom = self._alpha.reduce(SUPERSAMPLING).getbbox() or (0, 0, *self.size)
        width, height = self.size
        return max(0, left - 2), max(0, top - 2), min(width, right + 2), min(height, bottom + 2)

    def _creases(self, creases: Sequence[Crease], box: tuple[int, int, int, int]) -> NDArray[np.float32]:
        layer = Image.new("L", (box[2] - box[0], box[3] - box[1]), 128)
        pen = ImageDraw.Draw(layer)
        for crease in creases:
            width_px = max(1, round(crease.width * self._unit_px * self._zoom))
            pen.line(
                _flat(self.px(crease.points) - box[:2]), fill=round(128 + 127 * crease.depth), width=width_px
            )
        layer = layer.filter(ImageFilter.GaussianBlur(0.02 * self._unit_px))
        return np.asarray(layer, dtype=np.float32) - 128


def _shade_of(colour: RGB) -> RGB:
    """Shadows keep some of the colour and turn it warmer: yellow darkened with black would be olive."""
    if max(colour) - min(colour) < 20:
        return tint(colour, -0.75)
    return round(colour[0] * 0.4), round(colour[1] * 0.22), round(colour[2] * 0.26)


def _flat(points: Points) -> list[float]:
    flat: list[float] = points.ravel().tolist()
    return flat


def _bulge(mask: Image.Image, blur_px: float, volume: float) -> NDArray[np.float32]:
    """Light on a pillow of this shape, 0..255 with 128 flat: bright at the upper left, dark opposite."""
    height = np.asarray(mask.filter(ImageFilter.GaussianBlur(blur_px * 0.6)), dtype=np.float32)
    shift = max(1, int(blur_px * 0.5))
    light = 128 + (height - 255) * (0.45 * volume)
    light[shift:-shift, shift:-shift] += (
        height[2 * shift :, 2 * shift :] - height[: -2 * shift, : -2 * shift]
    ) * (0.42 * volume)
    return light


def _wall_shadow(alpha: Image.Image) -> NDArray[np.float32]:
    """How much of the backdrop's light is kept away, 0..1, at the finished size."""
    small = alpha.reduce(4 * SUPERSAMPLING)
    width, height = small.size
    cast = small.crop((-2, -3, width - 2, height - 3)).filter(ImageFilter.GaussianBlur(3.5))
    return _enlarged(cast, alpha) * (0.34 / 255)


def _floor_shadow(alpha: Image.Image) -> NDArray[np.float32]:
    small = alpha.reduce(4 * SUPERSAMPLING)
    left, top, right, bottom = small.getbbox() or (0, 0, *small.size)
    reach = max(2, (bottom - top) // 14)
    floor = Image.new("L", small.size, 0)
    squashed = small.crop((left, top, right, bottom)).resize((right - left, 3 * reach))
    floor.paste(squashed.point(lambda value: value * 0.6), (left + 2, bottom - 2 * reach))
    floor = floor.filter(ImageFilter.GaussianBlur(4))
    contact = Image.new("L", small.size, 0)
    feet = small.crop((left, bottom - reach, right, bottom)).resize((right - left, reach))
    contact.paste(feet, (left, bottom - reach // 2))
    contact = contact.filter(ImageFilter.GaussianBlur(1.6))
    both = np.asarray(floor, dtype=np.float32) * 0.55 + np.asarray(contact, dtype=np.float32) * 0.45
    return _enlarged(Image.fromarray(np.clip(both, 0, 255).astype(np.uint8)), alpha) * (0.62 / 255)


def _enlarged(shadow: Image.Image, alpha: Image.Image) -> NDArray[np.float32]:
    size = (alpha.width // SUPERSAMPLING, alpha.height // SUPERSAMPLING)
    return np.asarray(shadow.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)


def _room(size: tuple[int, int], rng: np.random.Generator, *, standing: bool) -> NDArray[np.float32]:
    """Brightness of the backdrop, [height, width] around 1."""
    width, height = size
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :] - np.float32(between(rng, -0.4, 0.2))
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    room = 1.02 - np.float32(between(rng, 0.02, 0.06)) * (x * x + (y + 0.3) ** 2)
    if standing:
        horizon = np.float32(between(rng, 0.1, 0.35))
        floor = 1 / (1 + np.exp(-(y - horizon) * np.float32(between(rng, 8, 30))))
        room -= np.float32(between(rng, 0.0, 0.05)) * floor
    return np.asarray(room, dtype=np.float32)
