"""Clothes, front on, as if worn by a mannequin that cannot be seen."""

import math

import numpy as np
from PIL import Image

from textmm.drawings.look import METALS, Look
from textmm.drawings.sheet import (
    Crease,
    Point,
    Points,
    Sheet,
    between,
    curve,
    ellipse,
    moved,
    ribbon,
    symmetric,
    tint,
)

_SHOULDER: Point = (0.47, -0.79)


def t_shirt(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    neck, hem = between(rng, 0.19, 0.24), between(rng, 0.74, 0.88)
    depth = between(rng, 0.12, 0.2)
    _inside(sheet, look, neck)
    reach, cuff = (between(rng, 0.74, 0.82), between(rng, -0.34, -0.2)), between(rng, 0.27, 0.33)
    for side in (-1, 1):
        hem_line = _sleeve(sheet, look, side, reach, cuff)
        sheet.stitches(hem_line * (1.0, 1.0) - (side * 0.025, 0.03), look.edge)
    _torso(sheet, look, rng, neck=neck, depth=depth, waist=between(rng, 0.40, 0.45), hem=hem)
    low = depth - 0.87
    collar = curve(
        [(-neck, -0.88), (-neck * 0.72, low - 0.05), (0, low), (neck * 0.72, low - 0.05), (neck, -0.88)],
        closed=False,
    )
    sheet.part(ribbon(collar, 0.05), tint(look.main, -0.08), volume=0.5, softness=0.03, edge=look.edge)
    sheet.stitches(curve([(-0.42, hem - 0.06), (0, hem - 0.03), (0.42, hem - 0.06)], closed=False), look.edge)


def shirt(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    hem, neck = between(rng, 0.78, 0.88), 0.19
    _inside(sheet, look, neck)
    short = look.style == "casual" and rng.random() < 0.4
    reach = (0.74, -0.26) if short else (between(rng, 0.68, 0.78), between(rng, 0.5, 0.62))
    cuff = 0.3 if short else between(rng, 0.17, 0.2)
    for side in (-1, 1):
        hem_line = _sleeve(sheet, look, side, reach, cuff)
        if not short:
            sheet.part(
                ribbon(hem_line - (0.0, 0.05), 0.12), tint(look.main, 0.06), softness=0.03, edge=look.edge
            )
    _torso(sheet, look, rng, neck=neck, depth=0.16, waist=between(rng, 0.38, 0.43), hem=hem)
    placket = curve([(0, -0.72), (0, hem)], closed=False)
    sheet.part(ribbon(placket, 0.1), look.cloth(sheet), volume=0.3, softness=0.025, edge=look.edge)
    button = (244, 242, 236) if sum(look.main) < 600 else (120, 112, 104)
    for y in np.linspace(-0.62, hem - 0.14, 6).tolist():
        sheet.part(ellipse(0, y, 0.024, 0.024), button, volume=0.6, softness=0.01, edge=tint(button, -0.5))
    if rng.random() < 0.75:
        _patch_pocket(sheet, look, 0.25, -0.3)
    _shirt_collar(sheet, look, between(rng, 0.24, 0.32))


def dress(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    hem = {"formal": 0.96, "party": between(rng, 0.55, 0.7)}.get(look.style, between(rng, 0.7, 0.86))
    flare, waist_y = between(rng, 0.42, 0.66), between(rng, -0.26, -0.18)
    strapped = look.style == "party" or rng.random() < 0.35
    top, half = _bodice(strapped, waist_y)
    if strapped:
        for side in (-1, 1):
            behind = curve([(side * 0.19, -0.86), (side * 0.14, -0.78), (side * 0.11, -0.6)], closed=False)
            sheet.part(ribbon(behind, 0.05), tint(look.main, -0.45), softness=0.02, edge=look.edge)
            strap = curve([(side * 0.185, -0.87), (side * 0.22, -0.8), (side * 0.23, -0.62)], closed=False)
            sheet.part(ribbon(strap, 0.055), look.main, softness=0.02, edge=look.edge)
        sheet.part(symmetric([(0, -0.68), (0.24, -0.62), (0.2, -0.5), (0, -0.5)]), tint(look.main, -0.45))
    else:
        _inside(sheet, look, 0.2)
        if rng.random() < 0.6:
            for side in (-1, 1):
                _sleeve(
                    sheet, look, side, (0.56, between(rng, -0.5, -0.1)), 0.2, shoulder=(0.36, -0.82), pit=0.33
                )
    sheet.part(
        symmetric([(0, top), *half]), look.cloth(sheet), creases=_armpit_creases(rng, 0.3), edge=look.edge
    )
    wave = between(rng, 0.01, 0.04)
    skirt_half = [(0, waist_y - 0.02), (0.235, waist_y - 0.01, 0), (0.32, waist_y + 0.2), (flare, hem, 0)]
    skirt_half += [(flare * 0.66, hem + wave), (flare * 0.33, hem), (0, hem + wave)]
    creases = _drape(rng, 7, (0.2, waist_y + 0.08), (flare * 0.92, hem))
    sheet.part(symmetric(skirt_half), look.cloth(sheet), softness=0.1, creases=creases, edge=look.edge)
    band = curve([(-0.245, waist_y), (0, waist_y + 0.02), (0.245, waist_y)], closed=False)
    belt = look.accent if rng.random() < 0.4 and look.pattern != "plain" else tint(look.main, -0.2)
    sheet.part(ribbon(band, 0.07), belt, softness=0.03, edge=look.edge)


def jacket(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    blazer = look.style == "formal"
    hem = between(rng, 0.74, 0.88) if blazer else between(rng, 0.56, 0.7)
    if look.style == "sport":
        hood = symmetric([(0, -1.02), (0.24, -0.97), (0.34, -0.78), (0.22, -0.64), (0, -0.6)])
        sheet.part(hood, look.cloth(sheet), creases=_armpit_creases(rng, 0.2), edge=look.edge)
        sheet.part(ellipse(0, -0.81, 0.21, 0.14), tint(look.main, -0.55), volume=0.8, softness=0.06)
    else:
        _inside(sheet, look, 0.21)
    for side in (-1, 1):
        cuff_line = _sleeve(sheet, look, side, (between(rng, 0.7, 0.78), hem - 0.1), 0.21)
        if not blazer:
            sheet.part(
                ribbon(cuff_line - (0, 0.03), 0.11), tint(look.main, -0.22), softness=0.03, edge=look.edge
            )
    _torso(sheet, look, rng, neck=0.2, depth=0.1, waist=0.40 if blazer else 0.45, hem=hem)
    if blazer:
        _blazer_front(sheet, look, hem, METALS[int(rng.integers(len(METALS)))])
    else:
        _zip_front(sheet, look, hem, collared=look.style != "sport")


def trousers(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    cuff, hip = between(rng, 0.15, 0.24), between(rng, 0.35, 0.4)
    ankle, spread = between(rng, 0.84, 0.95), between(rng, 0.27, 0.36)
    jogger = look.style == "sport"
    cuff = 0.13 if jogger else cuff
    waist = hip * 0.8
    sheet.part(symmetric([(0, -0.95), (waist, -0.94), (waist, -0.8), (0, -0.82)]), tint(look.main, -0.5))
    for side in (-1, 1):
        leg = curve(
            [
                (0, -0.8, 0),
                (waist * side, -0.92, 0),
                (hip * side, -0.5),
                ((spread + cuff * 0.9) * side, 0.2),
                ((spread + cuff) * side, ankle, 0),
                ((spread - cuff) * side, ankle + 0.01, 0),
                ((spread - cuff * 1.05) * side, 0.25),
                (0.015 * side, -0.2, 0),
            ]
        )
        middle = curve(
            [(waist * 0.6 * side, -0.7), (spread * side, 0.1), (spread * side, ankle)], closed=False
        )
        creases = [Crease(middle, 0.05, 0.3), *_knee_creases(rng, side, spread)]
        sheet.part(leg, look.cloth(sheet, -0.12 * side), softness=0.1, creases=creases, edge=look.edge)
        _leg_details(sheet, look, side, (waist, hip), (spread, cuff, ankle))
    band = curve([(-waist * 0.985, -0.89), (0, -0.86), (waist * 0.985, -0.89)], closed=False)
    sheet.part(ribbon(band, 0.1), tint(look.main, -0.12), softness=0.03, edge=look.edge)
    sheet.line(curve([(0, -0.8), (0.005, -0.2)], closed=False), look.edge, 0.012)
    sheet.stitches(curve([(0.08, -0.8), (0.08, -0.5), (0.01, -0.38)], closed=False), look.edge)
    if jogger:
        for side in (-1, 1):
            cord = curve([(0, -0.83), (0.05 * side, -0.7), (0.04 * side, -0.56)], closed=False)
            sheet.line(cord, (240, 240, 240) if sum(look.main) < 500 else (70, 70, 74), 0.022)
        return
    for x in (-0.6 * waist, 0.6 * waist):
        sheet.part(ribbon(curve([(x, -0.94), (x, -0.82)], closed=False), 0.035), look.main, edge=look.edge)
    sheet.part(
        ellipse(0.02, -0.86, 0.028, 0.028), METALS[0], volume=0.8, softness=0.02, edge=tint(METALS[0], -0.5)
    )


def skirt(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    waist, hem = between(rng, 0.33, 0.38), between(rng, 0.5, 0.8)
    flare = between(rng, 0.62, 0.88)
    wave = between(rng, 0.02, 0.06)
    pleats = int(rng.choice([5, 9, 13]))
    sheet.part(symmetric([(0, -0.74), (waist, -0.72), (waist, -0.6), (0, -0.6)]), tint(look.main, -0.5))
    right: list[Point] = [(0, -0.62), (waist, -0.68, 0), (waist * 1.3, -0.3), (flare, hem, 0)]
    right += [
        (flare * 0.75, hem + wave),
        (flare * 0.5, hem + 0.02),
        (flare * 0.25, hem + wave * 1.4),
        (0, hem + 0.04),
    ]
    creases = _drape(rng, pleats, (waist * 0.9, -0.55), (flare * 0.95, hem), depth=0.5)
    sheet.part(symmetric(right), look.cloth(sheet), softness=0.12, creases=creases, edge=look.edge)
    if pleats == 13:
        for share in np.linspace(-0.9, 0.9, pleats).tolist():
            sheet.line(np.array([(waist * share, -0.6), (flare * share, hem + 0.01)]), look.edge, 0.008)
    band = curve([(-waist - 0.01, -0.67), (0, -0.61), (waist + 0.01, -0.67)], closed=False)
    sheet.part(ribbon(band, 0.13), tint(look.main, -0.14), softness=0.04, edge=look.edge)
    if rng.random() < 0.4:
        for y in np.linspace(-0.62, hem - 0.15, 6).tolist():
            sheet.part(ellipse(0, y, 0.028, 0.028), METALS[1], volume=0.8, softness=0.02, edge=look.edge)


def socks(sheet: Sheet, look: Look, rng: np.random.Generator) -> None:
    top = {"sport": between(rng, -0.6, -0.4)}.get(look.style, between(rng, -0.9, -0.75))
    patches = look.accent if rng.random() < 0.6 else tint(look.main, -0.25)
    for x, y in ((0.24, -0.07), (-0.12, 0.07)):
        sheet.at(x, y, 0.96)
        _sock(sheet, look, top, patches)
    sheet.at(0, 0)


def _inside(sheet: Sheet, look: Look, neck: float) -> None:
    """The back of a garment as seen through its neck, with a label."""
    back = curve(
        [(-neck, -0.88), (0, -0.9), (neck, -0.88), (neck * 0.7, -0.68), (0, -0.6), (-neck * 0.7, -0.68)]
    )
    sheet.part(back, tint(look.main, -0.42), volume=0.6, edge=look.edge)
    sheet.line(np.array([(-0.045, -0.83), (0.045, -0.83)]), (236, 234, 228), 0.05)


def _torso(
    sheet: Sheet, look: Look, rng: np.random.Generator, *, neck: float, depth: float, waist: float, hem: float
) -> None:
    low = -0.88 + depth
    right: list[Point] = [
        (0, low),
        (neck * 0.72, low - 0.06),
        (neck, -0.89, 0),
        (*_SHOULDER, 0),
        (0.42, -0.52),
        (0.45, -0.38, 0),
    ]
    right += [(waist, 0.12), (waist + 0.04, hem - 0.03, 0), (0, hem)]
    creases = _armpit_creases(rng, 0.42) + _drape(
        rng, 3, (waist * 0.5, -0.2), (waist * 0.85, hem), depth=0.13
    )
    sheet.part(symmetric(right), look.cloth(sheet), softness=0.11, creases=creases, edge=look.edge)


def _sleeve(
    sheet: Sheet,
    look: Look,
    side: int,
    reach: tuple[float, float],
    cuff: float,
    *,
    shoulder: Point = _SHOULDER,
    pit: float = 0.43,
) -> Points:
    """Draws one sleeve whose end has its middle at reach (given for the right side), and returns that end."""
    begin = np.array([(shoulder[0] + pit) / 2, shoulder[1] + 0.2])
    along = np.array(reach) - begin
    along /= np.linalg.norm(along)
    across = np.array([along[1], -along[0]]) * cuff / 2
    outer, inner = np.array(reach) + across, np.array(reach) - across
    elbow = (np.array(shoulder) + outer) / 2 + across * 0.28
    right: list[Point] = [
        (shoulder[0] - 0.08, shoulder[1] - 0.02, 0),
        (shoulder[0] + 0.06, shoulder[1] + 0.05),
    ]
    right += [tuple(elbow.tolist()), (*outer.tolist(), 0), (*inner.tolist(), 0)]
    right += [((inner[0] + pit) / 2 + 0.015, (inner[1] - 0.38) / 2), (pit, -0.36), (pit - 0.06, -0.4, 0)]
    mirror = np.array([side, 1.0])
    outline = curve(right) * mirror
    start, end = np.array([begin, np.array(reach)]) * mirror
    creases = [
        Crease(moved(np.array([start, end]), 0.02 * side, 0), 0.05, 0.2),
        Crease(np.array([(pit * side, -0.36), (start + end) / 2]), 0.03, -0.35),
    ]
    angle = (math.atan2(along[1], along[0]) - math.pi / 2) * side
    sheet.part(outline, look.cloth(sheet, angle), softness=0.09, creases=creases, edge=look.edge)
    end_line: Points = np.array([outer, inner]) * mirror
    return end_line


def _armpit_creases(rng: np.random.Generator, pit: float) -> list[Crease]:
    creases = []
    for side in (-1, 1):
        for drop in (0.1, 0.26):
            end = (side * between(rng, 0.1, 0.26), -0.38 + drop + between(rng, 0.0, 0.12))
            bend = (side * pit * 0.8, -0.36 + drop * 0.35)
            points = curve([(side * pit, -0.37), bend, end], closed=False)
            creases.append(Crease(points, 0.025, between(rng, -0.3, -0.12)))
            creases.append(Crease(moved(points, 0.0, 0.035), 0.025, 0.18))
    return creases


def _drape(
    rng: np.random.Generator,
    count: int,
    top: tuple[float, float],
    bottom: tuple[float, float],
    *,
    depth: float = 0.45,
) -> list[Crease]:
    """Folds that fall from a line of half width top[0] at height top[1] to one of bottom[0] at bottom[1]."""
    creases = []
    for share in np.linspace(-0.9, 0.9, count).tolist():
        fall = share + between(rng, -0.06, 0.06)
        start = (top[0] * share, top[1] + between(rng, 0.0, 0.12))
        middle = ((top[0] + bottom[0]) * 0.5 * fall, (top[1] + bottom[1]) / 2)
        points = curve([start, middle, (bottom[0] * fall, bottom[1] + 0.05)], closed=False)
        width = bottom[0] / count * 0.7
        creases.append(Crease(points, width, -depth * between(rng, 0.5, 1.0)))
        creases.append(Crease(points - (width * 1.1, 0), width * 0.8, depth * between(rng, 0.5, 0.9)))
    return creases


def _patch_pocket(sheet: Sheet, look: Look, x: float, y: float) -> None:
    sides = [(-0.1, -0.1), (0.1, -0.1), (0.1, 0.08), (0.0, 0.13), (-0.1, 0.08)]
    shape = moved(np.array(sides), x, y)
    sheet.part(shape, look.cloth(sheet), volume=0.3, softness=0.02, edge=look.edge)
    sheet.stitches(np.array([(x - 0.1, y - 0.065), (x + 0.1, y - 0.065)]), look.edge)


def _shirt_collar(sheet: Sheet, look: Look, length: float) -> None:
    stand = curve([(-0.19, -0.87), (0, -0.73), (0.19, -0.87)], closed=False)
    sheet.part(ribbon(stand, 0.06), tint(look.main, -0.1), softness=0.03, edge=look.edge)
    for side in (-1, 1):
        leaf = curve(
            [
                (0.13 * side, -0.95, 0),
                (0.24 * side, -0.87),
                (0.25 * side, -0.85 + length * 0.7, 0),
                (0.01 * side, -0.73, 0),
            ]
        )
        sheet.part(leaf, look.cloth(sheet, 0.5 * side), volume=0.45, softness=0.04, edge=look.edge)


def _bodice(strapped: bool, waist_y: float) -> tuple[float, list[Point]]:
    """Height of the neckline's middle, and the right half from its end down to the waist."""
    lower: list[Point] = [(0.23, waist_y, 0), (0, waist_y + 0.02)]
    if strapped:
        return -0.56, [(0.22, -0.66, 0), (0.33, -0.54), (0.32, -0.46), *lower]
    return -0.68, [(0.2, -0.89, 0), (0.37, -0.83, 0), (0.31, -0.62), (0.34, -0.46, 0), *lower]


def _blazer_front(sheet: Sheet, look: Look, hem: float, metal: tuple[int, int, int]) -> None:
    shirt_front = curve([(-0.15, -0.9, 0), (0.15, -0.9, 0), (0.02, -0.1, 0)])
    sheet.part(shirt_front, (242, 242, 244), volume=0.5, softness=0.06, edge=(190, 190, 194))
    right: list[Point] = [(0, -0.81), (0.04, -0.8, 0), (0.028, -0.72, 0), (0.055, -0.3, 0), (0, -0.2, 0)]
    tie = symmetric(right)
    sheet.part(tie, tint(look.main, -0.3) if sum(look.main) > 300 else (128, 36, 46), softness=0.03)
    for side in (-1, 1):
        lapel = [
            (0.13, -0.95, 0),
            (0.22, -0.86),
            (0.31, -0.62, 0),
            (0.24, -0.58, 0),
            (0.29, -0.52, 0),
            (0.02, -0.06, 0),
        ]
        outline = curve([(x * side, *rest) for x, *rest in [*lapel, (0.1, -0.6)]])
        sheet.part(outline, look.cloth(sheet, 0.3 * side), volume=0.5, softness=0.04, edge=look.edge)
        pocket = curve([(0.2 * side, 0.28), (0.37 * side, 0.26)], closed=False)
        sheet.part(ribbon(pocket, 0.07), tint(look.main, -0.1), softness=0.02, edge=look.edge)
    sheet.line(curve([(0.02, -0.06), (0.02, hem * 0.7), (0.1, hem)], closed=False), look.edge, 0.014)
    for y in (0.02, 0.2):
        sheet.part(ellipse(-0.03, y, 0.03, 0.03), metal, volume=0.8, softness=0.02, edge=tint(metal, -0.5))
    sheet.line(np.array([(-0.34, -0.38), (-0.2, -0.4)]), look.edge, 0.02)


def _zip_front(sheet: Sheet, look: Look, hem: float, *, collared: bool) -> None:
    band = curve([(-0.495, hem - 0.04), (0, hem - 0.01), (0.495, hem - 0.04)], closed=False)
    sheet.part(ribbon(band, 0.11), tint(look.main, -0.22), softness=0.04, edge=look.edge)
    for x in np.linspace(-0.44, 0.44, 20).tolist():
        sheet.line(np.array([(x, hem - 0.075), (x, hem + 0.02)]), tint(look.main, -0.4), 0.007)
    top = -0.9 if collared else -0.76
    sheet.line(np.array([(0, top), (0, hem)]), edge_dark := tint(look.main, -0.5), 0.06)
    sheet.line(np.array([(0, top), (0, hem)]), METALS[0], 0.022)
    sheet.stitches(np.array([(0, top), (0, hem)]), edge_dark)
    if not collared:
        for side in (-1, 1):
            cord = curve([(0.13 * side, -0.68), (0.14 * side, -0.5), (0.12 * side, -0.32)], closed=False)
            sheet.line(cord, (240, 240, 240) if sum(look.main) < 500 else (70, 70, 74), 0.024)
    sheet.part(
        ribbon(np.array([(0, top + 0.06), (0, top + 0.15)]), 0.04),
        METALS[0],
        softness=0.02,
        edge=(90, 90, 94),
    )
    for side in (-1, 1):
        sheet.line(np.array([(0.18 * side, 0.3), (0.32 * side, 0.02)]), edge_dark, 0.035)
        sheet.line(np.array([(0.18 * side, 0.3), (0.32 * side, 0.02)]), tint(look.main, 0.15), 0.012)
        if collared:
            flap = [(0.03, -0.94, 0), (0.19, -0.96, 0), (0.26, -0.84), (0.27, -0.66, 0), (0.02, -0.78, 0)]
            sheet.part(curve([(x * side, *rest) for x, *rest in flap]), tint(look.main, -0.1), edge=look.edge)


def _knee_creases(rng: np.random.Generator, side: int, spread: float) -> list[Crease]:
    creases = [Crease(np.array([(0.02 * side, -0.22), (0.2 * side, -0.3)]), 0.02, -0.16)]
    creases.append(Crease(np.array([(0.03 * side, -0.18), (0.2 * side, -0.2)]), 0.02, -0.12))
    for y in (0.24, 0.36, 0.8):
        height = y + between(rng, -0.05, 0.05)
        points = np.array([((spread - 0.16) * side, height), ((spread + 0.1) * side, height + 0.05)])
        creases.append(Crease(points, 0.025, between(rng, -0.25, -0.1)))
    return creases


def _leg_details(
    sheet: Sheet, look: Look, side: int, top: tuple[float, float], bottom: tuple[float, float, float]
) -> None:
    (waist, hip), (spread, cuff, ankle) = top, bottom
    pocket = curve(
        [(waist * 0.62 * side, -0.86), (waist * 0.8 * side, -0.68), (hip * 0.97 * side, -0.6)], closed=False
    )
    sheet.line(pocket, look.edge, 0.012)
    sheet.stitches(moved(pocket, -0.02 * side, 0.015), look.edge)
    end = np.array([((spread - cuff) * side, ankle), ((spread + cuff) * side, ankle)])
    if look.style == "sport":
        sheet.part(ribbon(end - (0, 0.03), 0.1), tint(look.main, -0.2), softness=0.03, edge=look.edge)
    elif look.style == "formal":
        sheet.line(
            curve([(0.2 * side, -0.55), (spread * side, 0.2), (spread * side, ankle)], closed=False),
            look.edge,
            0.01,
        )
    else:
        sheet.stitches(end - (0, 0.05), look.edge)


def _sock(sheet: Sheet, look: Look, top: float, patches: tuple[int, int, int]) -> None:
    outline = curve(
        [
            (0.05, top, 0),
            (0.45, top, 0),
            (0.43, 0.0),
            (0.46, 0.3),
            (0.45, 0.5),
            (0.3, 0.62),
            (0.05, 0.62),
            (-0.4, 0.72),
            (-0.62, 0.66),
            (-0.66, 0.5),
            (-0.5, 0.36),
            (-0.15, 0.26),
            (0.05, 0.1),
            (0.08, -0.2),
        ]
    )
    bends = [
        Crease(curve([(0.06, 0.12), (0.2, 0.2), (0.36, 0.2)], closed=False), 0.03, -0.35),
        Crease(curve([(0.0, 0.2), (0.16, 0.3), (0.3, 0.32)], closed=False), 0.03, -0.3),
        Crease(curve([(0.16, top + 0.1), (0.18, 0.0), (0.14, 0.3), (-0.3, 0.48)], closed=False), 0.06, 0.22),
    ]
    fill: tuple[int, int, int] | Image.Image = look.cloth(sheet)
    sheet.part(outline, fill, softness=0.1, creases=bends, edge=look.edge)
    heel = curve([(0.465, 0.25, 0), (0.45, 0.5), (0.3, 0.62), (0.13, 0.62, 0), (0.22, 0.4)])
    toe = curve([(-0.4, 0.33, 0), (-0.58, 0.4), (-0.66, 0.52), (-0.62, 0.66), (-0.4, 0.715, 0), (-0.36, 0.5)])
    for patch in (heel, toe):
        sheet.part(patch, patches, volume=0.45, edge=look.edge)
    cuff = np.array([(0.045, top + 0.07), (0.455, top + 0.07)])
    sheet.part(ribbon(cuff, 0.17), tint(look.main, -0.1), softness=0.06, edge=look.edge)
    for x in np.linspace(0.08, 0.42, 9).tolist():
        sheet.line(np.array([(x, top), (x, top + 0.14)]), look.edge, 0.008)
