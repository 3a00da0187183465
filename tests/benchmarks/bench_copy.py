"""How often the attributes that product copy tells are those of the shop, over labelled pictures.

`told`: of all pictures; `right`: of those told whose label the data have; `alone`: how often recognition's best guess
is right, told or not, without a look at the captions.

    python -m tests.benchmarks.bench_copy mini --data "DATA/fashion/val-*.tar"
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from search.classify import Classifier
from search.copywriting import Copywriter
from tests.benchmarks.measure import print_json
from textmm.classify import label_vectors
from textmm.encoder import Encoder
from textmm.evaluate import DataSet, read_data
from textmm.sources import read_source

AT_ONCE = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--trunks", type=Path, default=Path("data/trunks"))
    arguments = parser.parse_args()
    encoder = Encoder.load(arguments.model, arguments.trunks)
    data = read_data(encoder, read_source(arguments.data))
    writer = Copywriter(encoder, encoder, Classifier(encoder, encoder))
    copies = [
        one for i in range(0, len(data.images), AT_ONCE) for one in writer.write(data.images[i : i + AT_ONCE])
    ]
    figures: dict[str, dict[str, float]] = {}
    print(f"{'':16}{'told':>8}{'right':>8}{'alone':>8}")
    for name in encoder.calibration.attributes:
        told = [one.attributes[name].value if name in one.attributes else None for one in copies]
        row = figures[name] = {
            "told": float(np.mean([value is not None for value in told])),
            "right": _right(told, data, name),
            "alone": _right(_guesses(encoder, data, name), data, name),
        }
        print(f"{name:16}{row['told']:8.3f}{row['right']:8.3f}{row['alone']:8.3f}")
    print_json("copy", {"model": encoder.model_id, "data": arguments.data}, {"figures": figures})


def _guesses(encoder: Encoder, data: DataSet, name: str) -> list[str]:
    calibration = encoder.calibration
    values = calibration.attributes[name].values
    words = label_vectors(encoder.encode_texts, [value.lower() for value in values], calibration.templates)
    return [values[best] for best in (data.vectors(encoder) @ words.T).argmax(1)]


def _right(told: Sequence[str | None], data: DataSet, name: str) -> float:
    """Of the values that are told of pictures which have one how many are theirs; 0 where none is told."""
    right = [
        value == item.attributes[name]
        for value, item in zip(told, data.items, strict=True)
        if value is not None and name in item.attributes
    ]
    return sum(right) / max(1, len(right))


if __name__ == "__main__":
    main()
