"""How often the attributes that product copy tells are those of the shop, over labelled pictures.

`told`: of all pictures; `right`: of those told whose label the data have. `likely` is the same for what recognition
alone would tell, by its probability, without a look at the captions.

    python -m tests.benchmarks.bench_copy mini --data "DATA/fashion/val-*.tar"
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from search.classify import Classifier
from search.copywriting import Copywriter
from tests.benchmarks.measure import print_json
from textmm.classify import probabilities
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
    print(f"{'':16}{'told':>8}{'right':>8}{'likely told':>14}{'right':>8}")
    for name in encoder.calibration.attributes:
        told = [one.attributes[name].value if name in one.attributes else None for one in copies]
        row, alone = _shares(told, data, name), _shares(_likely(encoder, data, name), data, name)
        figures |= {name: row, f"{name}, likely": alone}
        right, right_alone = (f"{x['right']:.3f}" if "right" in x else "–" for x in (row, alone))
        print(f"{name:16}{row['told']:8.3f}{right:>8}{alone['told']:14.3f}{right_alone:>8}")
    print_json("copy", {"model": encoder.model_id, "data": arguments.data}, {"figures": figures})


def _likely(encoder: Encoder, data: DataSet, name: str) -> list[str | None]:
    one = encoder.calibration.attributes[name]
    scores = Classifier(encoder, encoder).scores(
        data.images, [value.lower() for value in one.values], encoder.calibration.templates
    )
    rows = probabilities(scores, one.temperature)
    enough = np.inf if one.at_least is None else one.at_least
    return [one.values[row.argmax()] if row.max() >= enough else None for row in rows]


def _shares(told: list[str | None], data: DataSet, name: str) -> dict[str, float]:
    """How many of all are told and, where any is, how many of those are right."""
    right = [
        value == item.attributes[name]
        for value, item in zip(told, data.items, strict=True)
        if value is not None and name in item.attributes
    ]
    shares = {"told": float(np.mean([value is not None for value in told]))}
    return shares | ({"right": float(np.mean(right))} if right else {})


if __name__ == "__main__":
    main()
