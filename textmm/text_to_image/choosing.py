"""Draw more than asked, keep what an encoder finds nearest to the words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from textmm.encoder import Encoder
from textmm.text_to_image.generator import VARIED, Generator

CANDIDATES = 4
"""Drawn for each picture that is asked for."""


@dataclass(frozen=True)
class Drawn:
    picture: Image.Image
    seed: int
    score: float
    """Cosine with the words."""


class CannotDraw(ValueError):
    """What was drawn is not what was asked for; the message gives score and limit."""


def ranked(
    generator: Generator,
    encoder: Encoder,
    prompt: str,
    n: int,
    seed: int,
    *,
    at_least: float = -1.0,
    start: Sequence[Image.Image] = (),
    strength: float = VARIED,
) -> list[Drawn]:
    """CANDIDATES times n pictures, the best first, of which the first n are to be kept; the same words and seed give
    the same ones.

    `start`: a picture to vary, or two to draw something between. Raises CannotDraw when even the best scores below
    `at_least`.
    """
    seeds = [candidate_seed(seed, i) for i in range(n * CANDIDATES)]
    if len(start) == 2:
        pictures = generator.between(start[0], start[1], prompt, seeds)
    else:
        pictures = generator.draw(prompt, seeds, start=start[0] if start else None, strength=strength)
    words = encoder.encode_texts([prompt])
    scores = (encoder.encode_images([encoder.fit(picture) for picture in pictures]) @ words.T)[:, 0]
    best = np.argsort(-scores, kind="stable")
    if scores[best[0]] < at_least:
        raise CannotDraw(
            f"{prompt!r} cannot be drawn: the best of {len(seeds)} tries scores {scores[best[0]]:.2f} and "
            f"{at_least:.2f} is needed; ask for what {generator.generator_id} has learnt to draw"
        )
    return [Drawn(pictures[i], seeds[i], round(float(scores[i]), 4)) for i in best]


def candidate_seed(seed: int, i: int) -> int:
    """Of the i-th try; the first is the seed itself, which so draws again what it is given out for."""
    return (seed + 1_000_003 * i) % 2**63
