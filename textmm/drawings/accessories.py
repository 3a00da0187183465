"""Things carried or worn beside clothes: bags, watch, sunglasses, cap, belt."""

import math

import numpy as np

from textmm.drawings.look import METALS, Look
from textmm.drawings.sheet import (
    RGB,
    Crease,
    Point,
    Points,
    Sheet,
    between,
    curve,
    ellipse,
    moved,
    ribbon,
    rounded,
    symmetric,
    tint,
)


def handbag(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    metal = METALS[int(rng.integers(2))]
    top, wide = between(rng, -0.2, -0.1), between(rng, 0.56, 0.68)
    base, arch = wide + between(rng, 0.08, 0.2), between(rng, 0.6, 0.72)
    flap = look.style == "formal" or rng.random() < 0.4
    handle = look.accent if rng.random() < 0.25 and look.pattern != "plain" else tint(look.main, -0.15)
    _handle(sheet, handle, wide * 0.62, top - 0.03, arch - 0.06, dark=True)
    bottom = 0.72
    right: list[Point] = [
        (0, top),
        (wide * 0.9, top, 0),
        (wide, top + 0.1),
        (base, bottom - 0.14),
        (base - 0.1, bottom),
    ]
    gloss = [
        Crease(curve([(-wide * 0.8, top + 0.12), (-base * 0.86, bottom - 0.2)], closed=False), 0.09, 0.35),
        Crease(
            curve(
                [(wide * 0.4, bottom - 0.1), (0, bottom - 0.06), (-wide * 0.5, bottom - 0.1)], closed=False
            ),
            0.05,
            -0.2,
        ),
    ]
    body = symmetric([*right, (0, bottom + 0.02)])
    sheet.part(body, look.cloth(sheet), volume=0.7, softness=0.14, creases=gloss, edge=look.edge)
    sheet.stitches(body * 0.95 + (0, 0.013), tint(look.main, 0.35))
    if flap:
        _bag_flap(sheet, look, top, wide, metal)
    else:
        _bag_pocket(sheet, look, top, wide, metal)
    _handle(sheet, handle, wide * 0.62, top + 0.08, arch + 0.04, dark=False)
    for side in (-1, 1):
        sheet.part(
            ellipse(side * wide * 0.62, top + 0.09, 0.05, 0.05), metal, softness=0.03, edge=tint(metal, -0.5)
        )
        tab = rounded(side * wide * 0.62 - 0.05, top + 0.1, side * wide * 0.62 + 0.05, top + 0.28, 0.03)
        sheet.part(tab, handle, softness=0.03, edge=look.edge)


def backpack(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    wide, top = between(rng, 0.5, 0.58), between(rng, -0.76, -0.68)
    dark = tint(look.main, -0.3)
    loop = curve(
        [(-0.15, top + 0.05), (-0.12, top - 0.14), (0.12, top - 0.14), (0.15, top + 0.05)], closed=False
    )
    sheet.part(ribbon(loop, 0.065), dark, volume=0.7, softness=0.04, edge=look.edge)
    for side in (-1, 1):
        strap = curve(
            [(side * wide * 0.7, top + 0.12), (side * (wide + 0.14), -0.2), (side * (wide + 0.1), 0.4)],
            closed=False,
        )
        sheet.part(ribbon(strap, 0.13), dark, volume=0.7, softness=0.05, edge=look.edge)
        pocket = curve(
            [
                (side * wide * 0.9, 0.2, 0),
                (side * (wide + 0.12), 0.24),
                (side * (wide + 0.14), 0.7),
                (side * wide * 0.9, 0.8, 0),
            ]
        )
        sheet.part(pocket, tint(look.main, -0.18), volume=0.6, edge=look.edge)
    right: list[Point] = [
        (0, top),
        (wide * 0.62, top + 0.05),
        (wide * 0.95, top + 0.34),
        (wide, 0.1),
        (wide, 0.66),
    ]
    right += [(wide * 0.86, 0.86), (0, 0.9)]
    folds = [Crease(curve([(-wide * 0.7, -0.45), (-wide * 0.78, 0.1)], closed=False), 0.1, 0.3)]
    sheet.part(symmetric(right), look.cloth(sheet), volume=0.7, softness=0.16, creases=folds, edge=look.edge)
    arc = curve(
        [(-wide * 0.86, 0.0), (-wide * 0.8, -0.36), (0, top + 0.14), (wide * 0.8, -0.36), (wide * 0.86, 0.0)],
        closed=False,
    )
    _zip(sheet, arc, look)
    shape = [
        (0, 0.16),
        (wide * 0.66, 0.17),
        (wide * 0.76, 0.3),
        (wide * 0.76, 0.68),
        (wide * 0.64, 0.8),
        (0, 0.82),
    ]
    front = look.accent if look.pattern == "colour block" else look.cloth(sheet)
    sheet.part(symmetric(shape), front, volume=0.7, softness=0.1, edge=look.edge)
    _zip(sheet, curve([(-wide * 0.66, 0.28), (0, 0.25), (wide * 0.66, 0.28)], closed=False), look)
    label = rounded(-0.1, -0.22, 0.1, -0.1, 0.02)
    sheet.part(label, (206, 160, 110), volume=0.4, softness=0.03, edge=(120, 86, 52))


def watch(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    metal = METALS[int(rng.integers(len(METALS)))]
    radius, width = between(rng, 0.42, 0.48), between(rng, 0.25, 0.3)
    dial = [(250, 250, 248), (34, 36, 42), tint(look.main, -0.25), look.main][int(rng.integers(4))]
    for side in (-1, 1):
        _watch_strap(sheet, look, side, width, metal)
    for side in (-1, 1):
        for x in (-width, width):
            lug = rounded(
                x - 0.05, min(side * 0.32, side * 0.5), x + 0.05, max(side * 0.32, side * 0.5), 0.03
            )
            sheet.part(lug, metal, volume=0.8, softness=0.04, edge=tint(metal, -0.45))
    sheet.part(
        rounded(radius, -0.06, radius + 0.09, 0.06, 0.02),
        metal,
        volume=0.9,
        softness=0.04,
        edge=tint(metal, -0.5),
    )
    sheet.part(ellipse(0, 0, radius, radius), metal, volume=1.0, softness=0.05, edge=tint(metal, -0.5))
    if look.style == "sport":
        sheet.part(
            ellipse(0, 0, radius * 0.94, radius * 0.94), tint(look.main, -0.3), volume=0.6, softness=0.04
        )
    sheet.part(
        ellipse(0, 0, radius * 0.8, radius * 0.8), dial, volume=-0.5, softness=0.05, edge=tint(metal, -0.4)
    )
    _dial(sheet, radius * 0.8, dial, rng)


def sunglasses(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    shape = int(rng.integers(3))
    rim = between(rng, 0.1, 0.15)
    lens = [(46, 44, 48), tint(look.main, -0.6), (74, 56, 44)][int(rng.integers(3))]
    for side in (-1, 1):  # folded behind the lenses: only the hinge and what the nose leaves free are seen
        temple = curve([(side * 0.9, -0.19), (side * 0.4, -0.02), (side * -0.1, 0.06)], closed=False)
        sheet.part(ribbon(temple, 0.09), tint(look.main, -0.35), softness=0.04, edge=look.edge)
    bridge = curve([(-0.2, -0.12), (0, -0.19), (0.2, -0.12)], closed=False)
    sheet.part(ribbon(bridge, rim), look.main, volume=0.8, softness=0.04, edge=look.edge)
    for side in (-1, 1):
        outline = _lens(shape, side)
        middle = outline.mean(axis=0)
        grow = 1 + 2.0 * rim
        shine = Crease(outline * 1.0 - (0.02, 0.04), 0.02, 0.3)
        frame = (outline - middle) * (grow * 0.98, grow) + middle
        sheet.part(frame, look.cloth(sheet), volume=0.9, softness=0.05, creases=[shine], edge=look.edge)
        hinge = rounded(side * 0.9 - 0.05, -0.26, side * 0.9 + 0.05, -0.13, 0.03)
        sheet.part(hinge, look.main, volume=0.8, softness=0.04, edge=look.edge)
        sheet.part(ellipse(side * 0.9, -0.195, 0.025, 0.012), METALS[0], softness=0.01)
        glare = [
            Crease(np.array([moved(middle, -0.22, 0.14), moved(middle, 0.02, -0.24)]), 0.12, 0.4),
            Crease(np.array([moved(middle, -0.06, 0.16), moved(middle, 0.12, -0.12)]), 0.04, 0.32),
            Crease(np.array([(side * 0.9, -0.19), (side * 0.1, 0.02)]), 0.09, -0.3),
            Crease(np.array([moved(middle, -0.3, 0.24), moved(middle, 0.3, 0.24)]), 0.16, 0.22),
        ]
        sheet.part(outline, lens, volume=-0.5, softness=0.08, creases=glare, edge=tint(look.main, -0.5))


def cap(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    height, reach = between(rng, -0.68, -0.56), between(rng, -1.0, -0.9)
    visor_colour = look.accent if look.pattern == "colour block" or rng.random() < 0.2 else look.main
    crown = curve(
        [
            (-0.52, 0.28, 0),
            (-0.5, -0.1),
            (-0.3, height + 0.14),
            (0.12, height),
            (0.5, height + 0.16),
            (0.76, -0.06),
            (0.8, 0.3, 0),
            (0.5, 0.4),
            (0.1, 0.42),
            (-0.3, 0.37),
        ]
    )
    folds = [
        Crease(curve([(-0.3, -0.3), (-0.36, 0.0), (-0.36, 0.24)], closed=False), 0.1, 0.3),
        Crease(curve([(0.6, -0.2), (0.66, 0.1), (0.62, 0.3)], closed=False), 0.08, -0.25),
    ]
    sheet.part(crown, look.cloth(sheet), volume=0.75, softness=0.16, creases=folds, edge=look.edge)
    button = (0.1, height + 0.01)
    for x, bulge in ((-0.22, -0.14), (0.34, 0.1), (0.66, 0.3)):
        seam = curve([button, ((button[0] + x) / 2 + bulge, -0.2), (x, 0.38)], closed=False)
        sheet.line(seam, look.edge, 0.012)
        sheet.stitches(moved(seam, 0.025, 0.0), tint(look.main, 0.3))
    for x in (0.06, 0.5):
        sheet.part(
            ellipse(x, -0.26, 0.026, 0.026),
            tint(look.main, -0.6),
            volume=0.4,
            softness=0.02,
            edge=tint(look.main, 0.3),
        )
    sheet.part(ellipse(*button, 0.07, 0.035), look.main, volume=0.9, softness=0.03, edge=look.edge)
    under = curve(
        [(-0.54, 0.2, 0), (reach, 0.44), (reach + 0.02, 0.54), (-0.6, 0.6), (-0.1, 0.52), (0.28, 0.42, 0)]
    )
    sheet.part(under, tint(visor_colour, -0.55), volume=0.3)
    visor = curve(
        [
            (-0.53, 0.14, 0),
            (-0.8, 0.24),
            (reach, 0.42),
            (reach + 0.06, 0.5),
            (-0.6, 0.5),
            (0.28, 0.41, 0),
            (-0.2, 0.3),
        ]
    )
    shine = Crease(curve([(-0.86, 0.4), (-0.6, 0.36), (-0.3, 0.38)], closed=False), 0.06, 0.35)
    sheet.part(visor, visor_colour, volume=0.6, softness=0.07, creases=[shine], edge=look.edge)
    for inset in (0.9, 0.8):
        rows = curve([(-0.58, 0.2), (reach * inset, 0.42), (-0.5, 0.47), (0.1, 0.41)], closed=False)
        sheet.stitches(
            rows, tint(visor_colour, -0.35) if sum(visor_colour) > 200 else tint(visor_colour, 0.3)
        )
    if look.pattern == "plain" and rng.random() < 0.6:
        _emblem(sheet, look, rng)


def belt(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    deep, high = between(rng, 0.28, 0.38), between(rng, 0.22, 0.3)
    metal = METALS[int(rng.integers(len(METALS)))]
    angle = np.linspace(0, math.pi, 40)
    back = np.stack([0.92 * np.cos(angle), -0.1 - deep * np.sin(angle)], axis=1)
    sheet.part(
        np.concatenate([back, (moved(back, 0, high * 0.9))[::-1]]),
        tint(look.main, -0.3),
        volume=0.5,
        softness=0.05,
        edge=look.edge,
    )
    front = np.stack([0.92 * np.cos(angle), -0.1 + deep * np.sin(angle)], axis=1)
    ends = [Crease(moved(front, 0, 0.06), 0.05, 0.4)]
    strip = np.concatenate([front, (moved(front, 0, high))[::-1]])
    sheet.part(strip, look.cloth(sheet), volume=0.7, softness=0.06, creases=ends, edge=look.edge)
    for shift in (0.12, 0.88):
        sheet.stitches(
            moved(front, 0, high * shift), tint(look.main, 0.35) if sum(look.main) < 450 else look.edge
        )
    _belt_tail(sheet, look, deep, high)
    _belt_buckle(sheet, look, deep - 0.1 + high / 2, high, metal)


def _handle(sheet: Sheet, colour: RGB, half: float, foot: float, arch: float, *, dark: bool) -> None:
    middle = curve(
        [
            (-half, foot),
            (-half * 0.8, foot - arch * 0.8),
            (0, foot - arch),
            (half * 0.8, foot - arch * 0.8),
            (half, foot),
        ],
        closed=False,
    )
    fill = tint(colour, -0.3) if dark else colour
    sheet.part(ribbon(middle, 0.075), fill, volume=0.9, softness=0.04, edge=tint(colour, -0.4))


def _bag_flap(sheet: Sheet, look: Look, top: float, wide: float, metal: RGB) -> None:
    drop = top + 0.46
    flap = symmetric(
        [
            (0, top - 0.02),
            (wide * 0.92, top - 0.01, 0),
            (wide * 0.98, top + 0.2),
            (wide * 0.8, drop - 0.08),
            (0, drop),
        ]
    )
    gloss = Crease(
        curve([(-wide * 0.8, top + 0.08), (0, top + 0.1), (wide * 0.4, top + 0.08)], closed=False), 0.08, 0.35
    )
    sheet.part(flap, look.cloth(sheet), volume=0.7, softness=0.08, creases=[gloss], edge=look.edge)
    sheet.part(
        rounded(-0.08, drop - 0.12, 0.08, drop + 0.05, 0.03),
        metal,
        volume=0.9,
        softness=0.05,
        edge=tint(metal, -0.5),
    )
    sheet.line(np.array([(0, drop - 0.06), (0, drop)]), tint(metal, -0.4), 0.03)


def _bag_pocket(sheet: Sheet, look: Look, top: float, wide: float, metal: RGB) -> None:
    _zip(
        sheet,
        curve([(-wide * 0.86, top + 0.05), (0, top + 0.05), (wide * 0.86, top + 0.05)], closed=False),
        look,
    )
    pocket = symmetric(
        [(0, 0.22), (wide * 0.78, 0.22, 0), (wide * 0.84, 0.58), (wide * 0.7, 0.64), (0, 0.65)]
    )
    sheet.part(pocket, look.cloth(sheet), volume=0.5, softness=0.05, edge=look.edge)
    sheet.part(rounded(-0.1, 0.3, 0.1, 0.36, 0.02), metal, volume=0.8, softness=0.03, edge=tint(metal, -0.5))


def _zip(sheet: Sheet, way: Points, look: Look) -> None:
    sheet.line(way, tint(look.main, -0.5), 0.05)
    sheet.line(way, METALS[0], 0.018)
    sheet.stitches(way, tint(look.main, -0.6))
    end = way[-1]
    sheet.part(
        rounded(end[0] - 0.025, end[1] - 0.02, end[0] + 0.025, end[1] + 0.1, 0.02),
        METALS[0],
        volume=0.8,
        softness=0.03,
        edge=(84, 84, 88),
    )


def _watch_strap(sheet: Sheet, look: Look, side: int, width: float, metal: RGB) -> None:
    strap: list[Point] = [(width, 0.34 * side, 0), (width * 0.92, 0.66 * side), (width * 0.8, 0.97 * side, 0)]
    strap += [(-width * 0.8, 0.97 * side, 0), (-width * 0.92, 0.66 * side), (-width, 0.34 * side, 0)]
    outline = curve(strap)
    gloss = [Crease(np.array([(-width * 0.4, 0.4 * side), (-width * 0.36, 0.95 * side)]), 0.07, 0.3)]
    gloss.append(Crease(np.array([(-width, 0.98 * side), (width, 0.98 * side)]), 0.1, -0.5))
    sheet.part(outline, look.cloth(sheet), volume=0.8, softness=0.08, creases=gloss, edge=look.edge)
    for x in (-0.82, 0.82):
        sheet.stitches(
            np.array([(width * x, 0.4 * side), (width * x * 0.82, 0.95 * side)]), tint(look.main, 0.45)
        )
    if side == 1:
        for y in (0.64, 0.74, 0.84):
            sheet.part(ellipse(0, y, 0.022, 0.022), tint(look.main, -0.65), volume=0.3, softness=0.01)
    else:
        sheet.part(
            rounded(-width, -1.0, width, -0.9, 0.03), metal, volume=0.8, softness=0.04, edge=tint(metal, -0.5)
        )


def _dial(sheet: Sheet, radius: float, dial: RGB, rng: np.random.Generator) -> None:
    mark: RGB = (240, 240, 238) if sum(dial) < 400 else (38, 40, 46)
    for hour in range(12):
        ray = np.array([math.sin(hour * math.pi / 6), -math.cos(hour * math.pi / 6)]) * radius
        sheet.line(np.array([ray * 0.78, ray * 0.92]), mark, 0.034 if hour % 3 == 0 else 0.018)
    if rng.random() < 0.4:
        for x in (-0.4, 0.4):
            sheet.part(
                ellipse(x * radius, 0.1 * radius, 0.07, 0.07),
                tint(dial, -0.2),
                volume=-0.4,
                softness=0.03,
                edge=mark,
            )
    minute = between(rng, -0.3, 1.4)
    for angle, length, width in ((-1.05, 0.5, 0.042), (minute, 0.78, 0.03), (math.pi * 0.8, 0.84, 0.012)):
        tip = np.array([math.sin(angle), -math.cos(angle)]) * radius
        sheet.line(np.array([tip * -0.12, tip * length]), (200, 50, 46) if width < 0.02 else mark, width)
    sheet.part(ellipse(0, 0, 0.03, 0.03), mark, softness=0.02)


def _lens(shape: int, side: int) -> Points:
    """0 straight-browed, 1 round, 2 cat-eyed."""
    outer: list[Point]
    if shape == 0:
        outer = [
            (0.16, -0.16),
            (0.5, -0.24),
            (0.82, -0.2),
            (0.84, 0.0),
            (0.74, 0.22),
            (0.5, 0.28),
            (0.26, 0.22),
            (0.15, 0.02),
        ]
    elif shape == 1:
        return ellipse(side * 0.5, 0.02, 0.33, 0.3)
    else:
        outer = [
            (0.16, -0.1),
            (0.4, -0.18),
            (0.66, -0.24),
            (0.88, -0.27),
            (0.84, -0.02),
            (0.7, 0.2),
            (0.46, 0.26),
            (0.22, 0.16),
        ]
    return curve([(x * side, y) for x, y in outer])


def _emblem(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    colour: RGB = (246, 244, 238) if sum(look.main) < 480 else (44, 48, 60)
    spikes = int(rng.integers(3, 7))
    turn = np.arange(spikes * 2) * math.pi / spikes
    reach = np.where(np.arange(spikes * 2) % 2 == 0, 0.13, 0.06)
    star = np.stack([-0.36 + 0.75 * reach * np.sin(turn), -0.04 - reach * np.cos(turn)], axis=1)
    sheet.part(star, colour, volume=0.3, softness=0.02, edge=tint(colour, -0.3))


def _belt_tail(sheet: Sheet, look: Look, deep: float, high: float) -> None:
    """The free end, over the front to the right of the buckle, with its holes and the loop that keeps it."""
    x = np.linspace(-0.2, 0.62, 24)
    upper = np.stack([x, -0.1 + deep * np.sqrt(1 - (x / 0.92) ** 2)], axis=1)
    tip = np.array([(0.7, -0.1 + deep * 0.6 + high * 0.55)])
    outline = np.concatenate([upper - (0, 0.012), tip, (moved(upper, 0, high + 0.012))[::-1]])
    shine = Crease(moved(upper, 0, 0.05), 0.05, 0.4)
    sheet.part(outline, look.cloth(sheet), volume=0.7, softness=0.05, creases=[shine], edge=look.edge)
    for hole_x in (0.16, 0.26, 0.36, 0.46, 0.56):
        y = -0.1 + deep * math.sqrt(1 - (hole_x / 0.92) ** 2) + high / 2
        sheet.part(
            ellipse(hole_x, y, 0.018, 0.022), tint(look.main, -0.7), volume=0.2, softness=0.01, edge=look.edge
        )
    keeper = rounded(0.02, deep - 0.13, 0.1, deep - 0.07 + high, 0.02)
    sheet.part(keeper, tint(look.main, -0.15), volume=0.8, softness=0.03, edge=look.edge)


def _belt_buckle(sheet: Sheet, look: Look, y: float, high: float, metal: RGB) -> None:
    tall = high * 0.5 + 0.08
    dark = tint(metal, -0.5)
    sheet.part(rounded(-0.42, y - tall, -0.1, y + tall, 0.06), metal, volume=1.0, softness=0.05, edge=dark)
    sheet.part(
        rounded(-0.36, y - tall + 0.06, -0.16, y + tall - 0.06, 0.03),
        look.cloth(sheet),
        volume=-0.6,
        softness=0.04,
        edge=dark,
    )
    sheet.part(
        ribbon(np.array([(-0.4, y), (-0.12, y + 0.01)]), 0.045),
        tint(metal, 0.15),
        volume=0.9,
        softness=0.03,
        edge=dark,
    )
