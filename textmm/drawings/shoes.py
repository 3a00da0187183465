"""Shoes: sneakers and high heels from the side with the toe to the left, sandals from above."""

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
    tint,
)

_LINING: RGB = (222, 204, 180)


def sneakers(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    rise = (
        between(rng, 0.16, 0.26)
        if look.style == "casual" and rng.random() < 0.4
        else between(rng, -0.14, -0.06)
    )
    soles: list[RGB] = [(245, 244, 240), (245, 244, 240), (196, 152, 104), tint(look.main, -0.45)]
    sole = soles[int(rng.integers(len(soles)))]
    swell = 0.05 if look.style == "sport" else 0.0
    marking = int(rng.integers(3))
    places = ((0.12, -0.12 + rise / 2, 0.88), (-0.06, 0.1 + rise / 2, 0.92))
    for x, y, scale in places if rng.random() < 0.5 else ((0.0, rise / 2, 1.0),):
        sheet.at(x, y, scale)
        _sneaker_upper(sheet, look, rise)
        _sneaker_marking(sheet, look, marking)
        _laces(sheet, look, rise)
        _sneaker_sole(sheet, sole, swell)
    sheet.at(0, 0)


def high_heels(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    rise = between(rng, -0.12, 0.12)
    block = between(rng, 0.035, 0.06) if rng.random() < 0.7 else between(rng, 0.12, 0.17)
    strap = look.style == "party" or rng.random() < 0.3
    metal = METALS[int(rng.integers(len(METALS)))]
    places = ((0.14, -0.12, 0.88), (-0.08, 0.1, 0.9))
    for x, y, scale in places if rng.random() < 0.5 else ((0.0, 0.0, 1.0),):
        sheet.at(x, y, scale)
        _pump(sheet, look, rise, block)
        if strap:
            _ankle_strap(sheet, look, rise, metal)
    sheet.at(0, 0)


def sandals(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    thong = rng.random() < 0.45
    beds: list[RGB] = [(206, 170, 128), (226, 206, 178), tint(look.main, 0.25)]
    bed = beds[2 if thong else int(rng.integers(3))]
    metal = METALS[int(rng.integers(2))]
    slant = between(rng, -0.06, 0.06)
    for side in (-1, 1):
        sheet.at(side * between(rng, 0.4, 0.44), side * slant, 0.95)
        _footbed(sheet, look, side, bed)
        if thong:
            _thong(sheet, look, side)
        else:
            _two_straps(sheet, look, metal, side)
    sheet.at(0, 0)


def _sneaker_upper(sheet: Sheet, look: Look, rise: float) -> None:
    lining = tint(look.main, -0.55)
    inside = curve(
        [(0.88, -0.36 - rise), (0.6, -0.37 - rise), (0.24, -0.48 - rise), (0.34, -0.2), (0.8, -0.15)]
    )
    sheet.part(inside, lining, volume=0.4)
    tongue = curve(
        [
            (-0.1, -0.3, 0),
            (0.03, -0.48 - rise),
            (0.15, -0.6 - rise),
            (0.27, -0.57 - rise),
            (0.36, -0.34 - rise, 0),
        ]
    )
    sheet.part(tongue, tint(look.main, -0.08), softness=0.05, edge=look.edge)
    upper = curve(
        [
            (0.9, 0.3, 0),
            (0.93, 0.02),
            (0.86, -0.2),
            (0.9, -0.4 - rise, 0),
            (0.82, -0.42 - rise),
            (0.62, -0.27 - rise),
            (0.36, -0.38 - rise),
            (0.22, -0.5 - rise, 0),
            (0.06, -0.42 - rise * 0.6),
            (-0.16, -0.2),
            (-0.38, -0.06),
            (-0.68, -0.0),
            (-0.9, 0.12),
            (-0.96, 0.3, 0),
        ]
    )
    bends = [
        Crease(curve([(-0.42, -0.02), (-0.36, 0.1), (-0.4, 0.2)], closed=False), 0.03, -0.3),
        Crease(curve([(-0.84, 0.1), (-0.66, 0.04), (-0.46, 0.02)], closed=False), 0.05, 0.4),
        Crease(curve([(0.2, -0.3), (0.5, -0.18), (0.8, -0.24)], closed=False), 0.05, 0.2),
    ]
    sheet.part(upper, look.cloth(sheet), volume=0.6, softness=0.1, creases=bends, edge=look.edge)
    collar = curve(
        [(0.89, -0.4 - rise), (0.62, -0.25 - rise), (0.36, -0.36 - rise), (0.22, -0.48 - rise)], closed=False
    )
    sheet.part(ribbon(collar, 0.06), tint(look.main, -0.22), softness=0.04)
    toe = curve(
        [(-0.96, 0.3, 0), (-0.92, 0.13), (-0.72, 0.005), (-0.58, -0.01, 0), (-0.52, 0.14), (-0.56, 0.3, 0)]
    )
    heel = curve([(0.9, 0.3, 0), (0.93, 0.02), (0.875, -0.18, 0), (0.7, -0.04), (0.56, 0.3, 0)])
    for panel in (toe, heel):
        sheet.part(panel, tint(look.main, -0.09), volume=0.5, edge=look.edge)
    for seam in (toe[20:46], heel[20:40]):
        sheet.stitches(moved(seam, 0.02, 0.01), tint(look.main, 0.4))


def _sneaker_marking(sheet: Sheet, look: Look, marking: int) -> None:
    colour: RGB = look.accent
    if marking == 0:
        wave = curve([(0.58, -0.02), (0.36, 0.12), (0.12, 0.02), (-0.08, 0.14), (-0.28, 0.12)], closed=False)
        sheet.part(ribbon(wave, np.linspace(0.14, 0.03, len(wave))), colour, volume=0.2, softness=0.02)
    elif marking == 1:
        for x in (0.0, 0.17):
            stripe = curve([(x - 0.02, 0.24), (x + 0.1, 0.02), (x, -0.18)], closed=False)
            sheet.part(ribbon(stripe, 0.075), colour, volume=0.2, softness=0.02)
    else:
        sheet.part(ellipse(0.4, 0.0, 0.1, 0.1), colour, volume=0.3, softness=0.02, edge=tint(colour, -0.2))
        sheet.part(ellipse(0.4, 0.0, 0.05, 0.05), look.main, volume=0.2, softness=0.02)


def _laces(sheet: Sheet, look: Look, rise: float) -> None:
    stay = [(0.24, -0.5 - rise, 0), (0.36, -0.37 - rise, 0), (0.22, -0.22), (-0.06, 0.02), (-0.26, 0.0)]
    eyestay = curve([*stay, (-0.38, -0.06, 0), (-0.16, -0.2), (0.06, -0.42 - rise * 0.6)])
    sheet.part(eyestay, tint(look.main, -0.05), volume=0.4, softness=0.04, edge=look.edge)
    lace: RGB = (250, 249, 246) if min(look.main) < 200 else (70, 72, 80)
    for share in np.linspace(0.0, 1.0, 6).tolist():
        x, y = 0.19 - 0.44 * share, -0.43 - rise * (1 - share) + 0.37 * share
        sheet.part(
            ellipse(x + 0.06, y + 0.085, 0.016, 0.016), tint(look.main, -0.65), volume=0.2, softness=0.01
        )
        cross = np.array([(x - 0.05, y - 0.03), (x + 0.06, y + 0.08)])
        sheet.part(ribbon(cross, 0.045), lace, volume=0.7, softness=0.02, edge=tint(lace, -0.35))
    for side in (-1, 1):
        loop = curve(
            [(0.16, -0.44 - rise), (0.15 + 0.09 * side, -0.49 - rise), (0.13 + 0.13 * side, -0.38 - rise)],
            closed=False,
        )
        sheet.line(loop, tint(lace, -0.3), 0.036)
        sheet.line(loop, lace, 0.024)


def _sneaker_sole(sheet: Sheet, sole: RGB, swell: float) -> None:
    outline = curve(
        [
            (-0.985, 0.2, 0),
            (-0.7, 0.22),
            (-0.2, 0.22),
            (0.4, 0.22 - swell),
            (0.955, 0.16 - swell * 2, 0),
            (0.985, 0.3),
            (0.9, 0.41, 0),
            (0.3, 0.4),
            (0.1, 0.4 - swell / 2),
            (-0.5, 0.42),
            (-0.84, 0.4),
            (-1.0, 0.3),
        ]
    )
    sheet.part(outline, sole, volume=0.6, softness=0.06, edge=tint(sole, -0.35))
    groove = curve([(-0.97, 0.29), (-0.5, 0.32), (0.2, 0.31), (0.96, 0.27)], closed=False)
    sheet.line(groove, tint(sole, -0.25), 0.014)
    for x in np.linspace(-0.8, 0.85, 24).tolist():
        sheet.line(np.array([(x, 0.375), (x, 0.405)]), tint(sole, -0.4), 0.012)


def _pump(sheet: Sheet, look: Look, rise: float, block: float) -> None:
    back = -0.16 - rise  # height of the heel seat
    top = back - 0.3
    dark = tint(look.main, -0.3)
    heel: list[Point] = [(0.5, back + 0.18, 0), (0.92, back + 0.02, 0), (0.84 + block / 2, 0.3)]
    heel += [
        (0.8 + block, 0.66, 0),
        (0.8 - block, 0.66, 0),
        (0.76 - block, 0.25),
        (0.68 - block, back + 0.26),
    ]
    glint = Crease(curve([(0.8, back + 0.1), (0.79, 0.3), (0.79, 0.64)], closed=False), 0.03, 0.4)
    sheet.part(
        curve(heel), tint(look.main, -0.12), volume=0.7, softness=0.05, creases=[glint], edge=look.edge
    )
    far = [
        (-0.42, 0.34),
        (-0.2, 0.18),
        (0.3, -0.06 - rise * 0.7),
        (0.76, top + 0.03),
        (0.9, top, 0),
        (0.7, back + 0.1),
        (0.1, 0.3),
    ]
    sheet.part(curve(far), _LINING, volume=0.7, softness=0.1, edge=tint(_LINING, -0.3))
    upper: list[Point] = [(0.9, top, 0), (0.96, back - 0.1), (0.93, back + 0.06, 0), (0.6, back + 0.2)]
    upper += [
        (0.2, 0.3 - rise * 0.4),
        (-0.15, 0.56),
        (-0.5, 0.65),
        (-0.95, 0.635, 0),
        (-0.985, 0.6),
        (-0.8, 0.46),
    ]
    upper += [
        (-0.42, 0.3, 0),
        (-0.2, 0.29),
        (0.12, 0.14 - rise * 0.4),
        (0.48, -0.06 - rise * 0.8),
        (0.75, top + 0.15),
    ]
    shine = [
        Crease(curve([(-0.84, 0.52), (-0.6, 0.42), (-0.4, 0.38)], closed=False), 0.05, 0.75),
        Crease(curve([(0.86, top + 0.1), (0.84, back - 0.06), (0.7, back + 0.06)], closed=False), 0.05, 0.5),
    ]
    sheet.part(curve(upper), look.cloth(sheet), volume=0.75, softness=0.09, creases=shine, edge=look.edge)
    sole = curve(
        [(-0.97, 0.63), (-0.5, 0.66), (-0.15, 0.58), (0.2, 0.32 - rise * 0.4), (0.6, back + 0.21)],
        closed=False,
    )
    sheet.part(ribbon(sole, 0.035), dark, volume=0.3, softness=0.02)


def _ankle_strap(sheet: Sheet, look: Look, rise: float, metal: RGB) -> None:
    top = -0.46 - rise
    far = curve([(0.34, top - 0.2), (0.6, top - 0.26), (0.86, top - 0.2)], closed=False)
    sheet.part(ribbon(far, 0.06), tint(look.main, -0.4), softness=0.03)
    tab = curve([(0.9, top + 0.1), (0.9, top - 0.18)], closed=False)
    sheet.part(ribbon(tab, 0.09), look.main, softness=0.03, edge=look.edge)
    near = curve([(0.34, top - 0.2), (0.42, top - 0.12), (0.64, top - 0.08), (0.9, top - 0.16)], closed=False)
    sheet.part(ribbon(near, 0.07), look.main, softness=0.03, edge=look.edge)
    sheet.part(ellipse(0.52, top - 0.1, 0.05, 0.05), metal, softness=0.02, edge=tint(metal, -0.5))
    sheet.part(ellipse(0.52, top - 0.1, 0.022, 0.022), look.main, softness=0.02)


def _footbed(sheet: Sheet, look: Look, side: int, bed: RGB) -> None:
    half: list[Point] = [
        (0.04, -0.96),
        (0.24, -0.88),
        (0.35, -0.6),
        (0.33, -0.3),
        (0.24, 0.1),
        (0.25, 0.5),
        (0.24, 0.8),
    ]
    half += [
        (0.02, 0.95),
        (-0.22, 0.8),
        (-0.27, 0.5),
        (-0.3, 0.1),
        (-0.35, -0.25),
        (-0.33, -0.6),
        (-0.18, -0.88),
    ]
    outline = curve(half) * (-side, 1.0)
    sheet.part(outline * 1.04 + (0.02, 0.03), tint(look.main, -0.35), softness=0.05, edge=look.edge)
    hollow = [
        Crease(ellipse(0, 0.6, 0.12, 0.16), 0.06, -0.18),
        Crease(ellipse(0, -0.5, 0.18, 0.18), 0.06, -0.12),
    ]
    sheet.part(outline, bed, volume=0.5, softness=0.07, creases=hollow, edge=tint(bed, -0.35))
    sheet.stitches(outline * 0.93, tint(bed, -0.3))


def _two_straps(sheet: Sheet, look: Look, metal: RGB, side: int) -> None:
    for y, width, reach in ((-0.42, 0.34, 0.365), (0.02, 0.3, 0.32)):
        strap = curve([(-reach * 0.9, y + 0.05), (0, y - 0.05), (reach * 0.9, y + 0.05)], closed=False)
        bends = [
            Crease(
                curve([(-reach * 0.6, y), (0, y - 0.1), (reach * 0.5, y - 0.03)], closed=False), 0.05, 0.35
            ),
            Crease(np.array([(reach, y - 0.12), (reach, y + 0.25)]), 0.09, -0.5),
            Crease(np.array([(-reach, y - 0.12), (-reach, y + 0.25)]), 0.06, -0.35),
        ]
        outline = _wrapped(curve([(-reach, y + 0.06), (0, y - 0.05), (reach, y + 0.06)], closed=False), width)
        sheet.part(outline, look.cloth(sheet), volume=0.8, softness=0.1, creases=bends, edge=look.edge)
        for shift in (-0.42, 0.42):
            sheet.stitches(moved(strap, 0, width * shift), look.edge)
        _buckle(sheet, side * reach * 0.55, y + 0.02, metal, look.main)
    back = curve([(-0.275, 0.42), (0, 0.36), (0.275, 0.42)], closed=False)
    sheet.part(_wrapped(back, 0.15), look.cloth(sheet), volume=0.8, softness=0.05, edge=look.edge)


def _wrapped(strap: Points, width: float) -> Points:
    """A band that narrows where it goes down the sides of the foot."""
    across = np.linspace(-1, 1, len(strap))
    return ribbon(strap, width * (1 - 0.22 * across**4))


def _buckle(sheet: Sheet, x: float, y: float, metal: RGB, hole: RGB) -> None:
    for grow, fill in ((0.09, metal), (0.055, hole)):
        box = curve(
            [
                (x - grow, y - grow, 0),
                (x + grow, y - grow, 0),
                (x + grow, y + grow, 0),
                (x - grow, y + grow, 0),
            ]
        )
        sheet.part(box, fill, volume=0.6, softness=0.03, edge=tint(metal, -0.5))
    sheet.line(np.array([(x - 0.08, y), (x + 0.07, y)]), tint(metal, -0.1), 0.025)


def _thong(sheet: Sheet, look: Look, side: int) -> None:
    post = (side * 0.1, -0.6)
    for end in ((-0.3, 0.06), (0.3, 0.06)):
        bend = (end[0] * 0.75 + post[0] * 0.3, -0.34)
        middle = curve([post, bend, end], closed=False)
        width = np.linspace(0.1, 0.2, len(middle))
        shine = Crease(middle - (0.02, 0.02), 0.04, 0.35)
        sheet.part(
            ribbon(middle, width),
            look.cloth(sheet),
            volume=0.8,
            softness=0.06,
            creases=[shine],
            edge=look.edge,
        )
    sheet.part(ellipse(*post, 0.07, 0.08), look.main, volume=0.8, softness=0.04, edge=look.edge)
    ankle = curve([(-0.27, 0.36), (0, 0.28), (0.27, 0.36)], closed=False)
    sheet.part(_wrapped(ankle, 0.13), look.cloth(sheet), volume=0.8, softness=0.05, edge=look.edge)
