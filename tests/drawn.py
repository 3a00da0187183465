"""Sixteen small pictures with their words: four shapes in four colours."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": (214, 40, 40), "green": (40, 160, 70), "blue": (40, 80, 210), "yellow": (245, 210, 50)}
SHAPES = ("circle", "square", "triangle", "cross")
SIDE = 64


def draw(shape: str, colour: str, *, side: int = SIDE) -> Image.Image:
    image = Image.new("RGB", (side, side), (245, 245, 245))
    pen = ImageDraw.Draw(image)
    low, middle, high = side // 6, side // 2, side - side // 6
    fill = COLOURS[colour]
    match shape:
        case "circle":
            pen.ellipse((low, low, high, high), fill=fill)
        case "square":
            pen.rectangle((low, low, high, high), fill=fill)
        case "triangle":
            pen.polygon([(middle, low), (high, high), (low, high)], fill=fill)
        case _:
            third = side // 8
            pen.rectangle((middle - third, low, middle + third, high), fill=fill)
            pen.rectangle((low, middle - third, high, middle + third), fill=fill)
    return image


def encoded(image: Image.Image, kind: str = "PNG", **how: int) -> bytes:
    """The bytes of a file with this picture."""
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def write_pictures(folder: Path) -> Path:
    """PNGs and captions.csv (key, path, title, colour, shape, number); returns the CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[list[str | int]] = []
    for shape in SHAPES:
        for colour in COLOURS:
            name = f"{colour}-{shape}.png"
            draw(shape, colour).save(folder / name)
            title = f"a {colour} {shape}"
            rows.append([name, name, title, colour, shape, len(rows)])
    table = folder / "captions.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["key", "path", "title", "colour", "shape", "number"], *rows])
    return table
