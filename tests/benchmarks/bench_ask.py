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
from textmm.answers import YES_NO, Asked, questions_about
from textmm.encoder import Encoder
from textmm.evaluate import read_data
from textmm.questions import THINGS
from textmm.sources import read_source

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
            asked = questions_about(data, PHRASINGS, language=language, rounds=arguments.rounds)
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


def measured(
    encoder: Encoder, images: Sequence[Image.Image], asked: Sequence[Asked], language: str
) -> dict[str, dict[str, float]]:
    grey = Image.new("RGB", images[0].size, (128, 128, 128))
    shown = {
        "right": [images[q.image] for q in asked],
        "blind": [grey] * len(asked),
        "shuffled": [images[(q.image + SHUFFLED_BY) % len(images)] for q in asked],
    }
    texts = [q.text for q in asked]
    answers = {how: encoder.answer(pictures, texts) for how, pictures in shown.items()}
    right = {
        how: np.array([one.text in q.answers for one, q in zip(given, asked, strict=True)])
        for how, given in answers.items()
    }
    sure = np.array([one.confidence for one in answers["right"]])
    groups: dict[str, list[int]] = {}
    for at, question in enumerate(asked):
        about = question.kind.removeprefix(YES_NO)
        whether = about != question.kind
        groups.setdefault(f"{language}: {about}{', yes or no' if whether else ''}", []).append(at)
        if whether and about != THINGS:
            groups.setdefault(f"{language}: yes or no, attributes", []).append(at)
    out: dict[str, dict[str, Any]] = {}
    for name, rows in sorted(groups.items()):
        most = Counter(asked[at].answers[0] for at in rows).most_common(1)[0][1]
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
