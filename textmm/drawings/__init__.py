"""Drawn product pictures with titles and attributes: a shop for demos, tests and benchmarks."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from textmm.drawings import accessories, garments, shoes
from textmm.drawings.look import Look
from textmm.drawings.sheet import RGB, Pose, Sheet, between, tint

__all__ = ["COLOURS", "KINDS", "DrawnProduct", "draw_catalogue", "drawn_products"]

COLOURS: dict[str, RGB] = {
    "black": (36, 36, 40),
    "white": (244, 244, 242),
    "grey": (142, 145, 150),
    "red": (202, 32, 40),
    "green": (36, 136, 70),
    "blue": (36, 88, 196),
    "yellow": (246, 206, 40),
    "orange": (240, 122, 26),
    "purple": (116, 52, 160),
    "pink": (244, 140, 178),
    "brown": (112, 70, 42),
    "beige": (218, 196, 160),
}


@dataclass(frozen=True)
class DrawnProduct:
    key: str
    image: Image.Image
    title: str
    attributes: dict[str, str | float]
    """kind, category, colour, pattern, style, and price in whole money with two decimals."""


@dataclass(frozen=True, kw_only=True)
class _Kind:
    draw: Callable[[Sheet, Look, np.random.Generator], None]
    category: str
    price: float
    """The middle of its price range."""
    size: tuple[int, int] = (360, 480)
    unit_px: float = 212
    styles: tuple[str, ...] = ("casual", "sport", "formal")
    patterns: tuple[str, ...] = ("plain", "striped", "dotted", "checked", "colour block")
    grain: float = 0.16
    standing: bool = False
    tilt: float = 0.05
    """Most it is turned, in radians."""


_DRAWN: dict[str, _Kind] = {
    "t-shirt": _Kind(
        draw=garments.t_shirt,
        category="clothing",
        price=22,
        size=(420, 440),
        unit_px=208,
        styles=("casual", "sport"),
    ),
    "shirt": _Kind(
        draw=garments.shirt,
        category="clothing",
        price=45,
        size=(400, 460),
        unit_px=212,
        styles=("casual", "formal"),
        grain=0.13,
    ),
    "dress": _Kind(
        draw=garments.dress, category="clothing", price=70, styles=("casual", "formal", "party"), grain=0.13
    ),
    "jacket": _Kind(
        draw=garments.jacket,
        category="clothing",
        price=110,
        size=(400, 460),
        unit_px=214,
        patterns=("plain", "checked", "colour block"),
    ),
    "trousers": _Kind(
        draw=garments.trousers, category="clothing", price=60, patterns=("plain", "striped", "checked")
    ),
    "skirt": _Kind(
        draw=garments.skirt,
        category="clothing",
        price=40,
        size=(420, 420),
        unit_px=220,
        styles=("casual", "formal", "party"),
    ),
    "handbag": _Kind(
        draw=accessories.handbag,
        patterns=("plain", "striped", "dotted", "checked"),
        category="bags",
        price=95,
        size=(420, 420),
        unit_px=220,
        styles=("casual", "formal"),
        standing=True,
        tilt=0.0,
    ),
    "backpack": _Kind(
        draw=accessories.backpack,
        category="bags",
        price=65,
        unit_px=216,
        styles=("casual", "sport", "outdoor"),
        standing=True,
        tilt=0.0,
    ),
    "watch": _Kind(
        draw=accessories.watch,
        category="accessories",
        price=160,
        unit_px=206,
        patterns=("plain", "striped"),
        grain=0.22,
        tilt=0.2,
    ),
    "sunglasses": _Kind(
        draw=accessories.sunglasses,
        category="accessories",
        price=50,
        size=(480, 360),
        unit_px=216,
        styles=("casual", "sport", "party"),
        patterns=("plain", "striped"),
        grain=0.1,
        standing=True,
    ),
    "sneakers": _Kind(
        draw=shoes.sneakers,
        category="shoes",
        price=80,
        size=(480, 400),
        unit_px=220,
        styles=("casual", "sport"),
        standing=True,
        tilt=0.0,
    ),
    "high heels": _Kind(
        draw=shoes.high_heels,
        category="shoes",
        price=85,
        size=(480, 400),
        unit_px=214,
        styles=("formal", "party"),
        patterns=("plain", "striped", "dotted", "checked"),
        standing=True,
        tilt=0.0,
    ),
    "sandals": _Kind(
        draw=shoes.sandals,
        category="shoes",
        price=42,
        size=(420, 440),
        unit_px=204,
        styles=("casual", "outdoor"),
        patterns=("plain", "striped", "dotted", "checked"),
        tilt=0.15,
    ),
    "cap": _Kind(
        draw=accessories.cap,
        category="accessories",
        price=24,
        size=(440, 400),
        unit_px=214,
        styles=("casual", "sport"),
        standing=True,
    ),
    "belt": _Kind(
        draw=accessories.belt,
        category="accessories",
        price=35,
        size=(480, 360),
        unit_px=228,
        styles=("casual", "formal"),
        patterns=("plain", "striped", "checked"),
        grain=0.12,
        standing=True,
        tilt=0.04,
    ),
    "socks": _Kind(
        draw=garments.socks,
        patterns=("plain", "striped", "dotted", "checked"),
        category="clothing",
        price=12,
        size=(400, 440),
        unit_px=220,
        styles=("casual", "sport"),
        grain=0.14,
        tilt=0.12,
    ),
}

KINDS: tuple[str, ...] = tuple(_DRAWN)

_BACKDROPS: tuple[RGB, ...] = (
    (247, 247, 248),
    (238, 240, 243),
    (245, 240, 232),
    (231, 239, 246),
    (247, 234, 233),
    (232, 242, 233),
    (240, 235, 247),
    (226, 228, 231),
    (214, 222, 228),
    (228, 216, 206),
    (206, 208, 212),
)
_ACCENTS: tuple[RGB, ...] = (
    (246, 246, 244),
    (30, 34, 46),
    (34, 48, 92),
    (232, 196, 92),
    (196, 62, 58),
    (120, 124, 132),
)
_NAME_STARTS = ("Al", "Bre", "Cor", "Da", "El", "Fjo", "Gia", "Hel", "Iso", "Jun", "Ka", "Lu", "Mar", "Nor")
_NAME_ENDS = ("ba", "cco", "dell", "fi", "gan", "la", "line", "mo", "na", "nto", "ra", "sko", "vane", "zo")


def drawn_products(count: int, *, seed: int) -> Iterator[DrawnProduct]:
    """Product i of a seed is the same whatever count is.

    Every len(KINDS) * len(COLOURS) products in a row hold each pair of kind and colour once.
    """
    for index in range(count):
        yield _product(index, seed)


def draw_catalogue(folder: Path, count: int, *, seed: int) -> Path:
    """Draws into folder/pictures/*.jpg and returns folder/products.csv, which is written last.

    Its columns are key, path (relative to the csv), title, kind, category, colour, pattern, style, price.
    """
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    table = io.StringIO(newline="")
    columns = ["key", "path", "title", "kind", "category", "colour", "pattern", "style", "price"]
    rows = csv.DictWriter(table, columns)
    rows.writeheader()
    for product in drawn_products(count, seed=seed):
        path = f"pictures/{product.key}.jpg"
        picture = io.BytesIO()
        product.image.save(picture, "JPEG", quality=90)
        _write_whole(folder / path, picture.getvalue())
        price = f"{product.attributes['price']:.2f}"
        rows.writerow(
            {"key": product.key, "path": path, "title": product.title, **product.attributes, "price": price}
        )
    _write_whole(folder / "products.csv", table.getvalue().encode())
    return folder / "products.csv"


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _product(index: int, seed: int) -> DrawnProduct:
    kind_name, colour = _pair(index, seed)
    kind = _DRAWN[kind_name]
    rng = np.random.default_rng((seed, 0, index))
    pattern = "plain" if rng.random() < 0.4 else str(rng.choice(kind.patterns))
    style = str(rng.choice(kind.styles))
    image = _picture(kind, _look(kind, COLOURS[colour], pattern, style, rng), rng)
    price = round(kind.price * between(rng, 0.6, 1.7) * (1.3 if style in ("formal", "party") else 1.0)) - 0.01
    attributes: dict[str, str | float] = {
        "kind": kind_name,
        "category": kind.category,
        "colour": colour,
        "pattern": pattern,
        "style": style,
        "price": round(price, 2),
    }
    return DrawnProduct(
        f"drawn-{seed}-{index:05d}", image, _title(kind_name, colour, pattern, style, rng), attributes
    )


def _pair(index: int, seed: int) -> tuple[str, str]:
    """Kind and colour: kinds in turn, each time round with the next colour; every block shuffles both."""
    block, place = divmod(index, len(KINDS) * len(COLOURS))
    rng = np.random.default_rng((seed, 1, block))
    kinds, colours = rng.permutation(len(KINDS)), rng.permutation(len(COLOURS))
    turn, kind_place = divmod(place, len(KINDS))
    return KINDS[kinds[kind_place]], list(COLOURS)[colours[(kind_place + turn) % len(COLOURS)]]


def _title(kind: str, colour: str, pattern: str, style: str, rng: np.random.Generator) -> str:
    name = str(rng.choice(_NAME_STARTS)) + str(rng.choice(_NAME_ENDS))
    adjective = "" if pattern == "plain" else pattern.replace(" ", "-")
    templates = (
        f"{adjective} {colour} {kind} '{name}'",
        f"'{name}' {adjective} {style} {kind} in {colour}",
        f"{style} {adjective} {colour} {kind} '{name}'",
        f"{colour} {kind} '{name}', {adjective or 'plain'}, {style}",
        f"{name} {adjective} {kind}, {colour}",
    )
    title = " ".join(templates[int(rng.integers(len(templates)))].split())
    return title[0].upper() + title[1:]


def _look(kind: _Kind, colour: RGB, pattern: str, style: str, rng: np.random.Generator) -> Look:
    spread = min(8, 1 + (max(colour) - min(colour)) // 12)  # greys soon look lilac, beige pink
    r, g, b = (int(np.clip(channel + rng.integers(-spread, spread + 1), 8, 250)) for channel in colour)
    main = tint((r, g, b), between(rng, -0.07, 0.05))
    accents = [
        accent for accent in (*_ACCENTS, tint(main, 0.6), tint(main, -0.55)) if _apart(main, accent) > 170
    ]
    accent = accents[int(rng.integers(len(accents)))]
    grain = kind.grain * between(rng, 0.75, 1.3)
    return Look(main, accent, pattern, style, grain, upright=bool(rng.random() < 0.3))


def _picture(kind: _Kind, look: Look, rng: np.random.Generator) -> Image.Image:
    pose = Pose(
        rotation=between(rng, -kind.tilt, kind.tilt),
        scale=between(rng, 0.86, 1.0),
        shift=(between(rng, -0.04, 0.04), between(rng, -0.03, 0.03)),
        mirrored=bool(rng.random() < 0.5),
    )
    sheet = Sheet(kind.size, kind.unit_px, pose, look.main)
    kind.draw(sheet, look, rng)
    backdrops = [backdrop for backdrop in _BACKDROPS if _apart(look.main, backdrop) > 55] or [_BACKDROPS[-1]]
    return sheet.photograph(backdrops[int(rng.integers(len(backdrops)))], rng, standing=kind.standing)


def _apart(one: RGB, other: RGB) -> float:
    return float(np.linalg.norm(np.subtract(one, other)))
