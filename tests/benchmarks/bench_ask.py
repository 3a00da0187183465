"""How well a model answers questions about val pictures, asked in words that training never had.

Open questions about an attribute are right when the answer is the shop's value; questions for yes or no are balanced
(half are true). Beside each figure stand what is right without looking:

- `majority`: always the most frequent value (or "yes");
- `blind`: the model is shown a grey picture;
- `shuffled`: the model is shown another picture of the same set;

and beside it how many answers are `told` (probable enough, `Calibration.answer_at_least`) and how often those are
right.

Good: category .85, gender .75, base colour .60, yes/no .80, with `shuffled` near `blind` and `majority`.

    python -m tests.benchmarks.bench_ask mini --fashion "DATA/fashion/val-*.tar" --flickr "DATA/flickr8k/val-*.tar"
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.benchmarks.measure import print_json
from textmm.encoder import Encoder
from textmm.evaluate import read_data
from textmm.questions import THINGS, Question, Questions
from textmm.sources import Item, read_source

PHRASINGS = str(Path(__file__).parent / "ask" / "questions.toml")
SHUFFLED_BY = 137


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--fashion", required=True)
    parser.add_argument("--flickr", required=True)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=1, help="questions a picture")
    parser.add_argument("--most", type=int, default=1000, help="pictures of a set, spread over it")
    arguments = parser.parse_args()
    encoder = Encoder.load(arguments.model, arguments.data / "trunks")
    figures: dict[str, dict[str, float]] = {}
    for source in (arguments.fashion, arguments.flickr):
        items = list(read_source(source))
        data = read_data(encoder, items[:: max(1, -(-len(items) // arguments.most))])
        for language in ("en", "zh"):
            asked = questions_about(data.items, arguments.rounds, language)
            figures |= measured(encoder, data.images, asked, language)
    head = f"{'questions':28} {'count':>6} {'right':>6} {'majority':>9} {'blind':>6} {'shuffled':>9}"
    print(f"{head} {'told':>5} {'right then':>10}")
    for name, row in figures.items():
        print(
            f"{name:28} {row['count']:6.0f} {row['right']:6.3f} {row['majority']:9.3f} {row['blind']:6.3f} "
            f"{row['shuffled']:9.3f} {row['told']:5.2f} {row['right_when_told']:10.3f}"
        )
    print_json(
        "ask",
        {"model": encoder.model_id, "rounds": arguments.rounds, "most": arguments.most},
        {"figures": figures},
    )


def questions_about(items: Sequence[Item], rounds: int, language: str) -> list[tuple[int, Question]]:
    """(which picture, question), the same every time."""
    maker, rng = Questions(PHRASINGS, items), np.random.default_rng(11)
    made = [
        (i, maker.ask(item, rng, language=language)) for _ in range(rounds) for i, item in enumerate(items)
    ]
    return [(i, q) for i, q in made if q is not None and not (q.about == THINGS and q.yes is None)]


def measured(
    encoder: Encoder, images: Sequence[Image.Image], asked: Sequence[tuple[int, Question]], language: str
) -> dict[str, dict[str, float]]:
    grey = Image.new("RGB", images[0].size, (128, 128, 128))
    shown = {
        "right": [images[i] for i, _ in asked],
        "blind": [grey for _ in asked],
        "shuffled": [images[(i + SHUFFLED_BY) % len(images)] for i, _ in asked],
    }
    texts = [question.text for _, question in asked]
    answers = {how: encoder.answer(pictures, texts) for how, pictures in shown.items()}
    right = {
        how: np.array([one.text == q.answer for one, (_, q) in zip(given, asked, strict=True)])
        for how, given in answers.items()
    }
    sure = np.array([one.confidence for one in answers["right"]])
    groups: dict[str, list[int]] = {}
    for at, (_, question) in enumerate(asked):
        kind = question.about if question.yes is None else f"{question.about}, yes or no"
        groups.setdefault(f"{language}: {kind}", []).append(at)
        if question.yes is not None:
            where = "things" if question.about == "things" else "attributes"
            groups.setdefault(f"{language}: yes or no, {where}", []).append(at)
    out: dict[str, dict[str, Any]] = {}
    for name, rows in sorted(groups.items()):
        most = Counter(asked[at][1].answer for at in rows).most_common(1)[0][1]
        told = sure[rows] >= encoder.calibration.answer_at_least
        out[name] = {
            "count": len(rows),
            "majority": most / len(rows),
            "told": float(told.mean()),
            "right_when_told": float(right["right"][rows][told].mean()) if told.any() else 0.0,
        } | {how: float(found[rows].mean()) for how, found in right.items()}
    return out


if __name__ == "__main__":
    main()
