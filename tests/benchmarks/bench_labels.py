"""What labels alone could give: bounds on figures of `mini`, which is trained with words.

Told from pictures: a classifier trained with the labels themselves, an MLP with dropout over standardised features of
whole pictures, the mean of three seeds; `by heart` is its accuracy on the pictures it was trained with. Labels that are
few in --train are in too: accuracy is over all pictures of --val. Captions and prompts can hardly do better on the same
features. `precision@10`: for each pair of values of the labels that ten pictures have, the ten pictures of which the
classifiers together are surest.

Known for certain: recall@10 of pictures by their titles for somebody who knows the labels of every picture, and by a
title those of its own, and nothing else; ties fall by chance.

    python -m tests.benchmarks.bench_labels mini --sources ../shared/data
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmarks.measure import print_json
from textmm import checkpoint, trunk_cache, validation
from textmm.image import CNN
from textmm.metrics import precisions_at_k
from textmm.model import TextMultiModalModel
from textmm.optimiser import adamw, pace
from textmm.recipe import Stage, Validation
from textmm.sources import Item
from textmm.trunk_cache import CachedInputs

STAGE = Stage(name="labels", steps=1, batch_size=2, learning_rate=1e-3)
EPOCHS, BATCH, SEEDS = 25, 256, 3
KNOWN = (
    ("article_type", "base_colour"),
    ("article_type", "base_colour", "gender"),
    ("article_type", "base_colour", "gender", "usage"),
    ("article_type", "base_colour", "gender", "usage", "season", "year"),
)
"""Labels by which titles are found. No title of val says a year, and 19 of 1,519 a season."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--train", nargs="+", default=["fashion/train-*.tar", "fashion/small-*.tar"])
    parser.add_argument("--val", default="fashion/val-*.tar")
    parser.add_argument("--label", nargs="+", default=["base_colour", "article_type"])
    parser.add_argument("--trunks", type=Path, default=Path("data/trunks"))
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    model = checkpoint.load(arguments.model, arguments.trunks).model.eval()
    assert isinstance(model, TextMultiModalModel)
    parts = [_read(arguments, model, source) for source in arguments.train]
    learnt = _Pictures(torch.cat([one.rows for one in parts]), [item for one in parts for item in one.items])
    asked = _read(arguments, model, arguments.val)
    figures = told_from_pictures(learnt, asked, arguments.label) | known_for_certain(asked.items)
    print_json("labels", {"train": arguments.train, "val": arguments.val}, figures)


def told_from_pictures(learnt: _Pictures, asked: _Pictures, labels: Sequence[str]) -> dict[str, float]:
    print(f"{'told from pictures':56}{'val':>8}{'by heart':>12}")
    figures: dict[str, float] = {}
    likely, values = [], []
    for label in labels:
        names = sorted({str(v) for v in learnt.labels(label) if v is not None})
        truth, right = (_numbers(pictures.labels(label), names) for pictures in (learnt, asked))
        seeds = [_shares(learnt.rows, truth, (asked.rows, learnt.rows), len(names), s) for s in range(SEEDS)]
        told = np.mean([shares.argmax(1) == right for shares, _ in seeds])
        by_heart = np.mean([(shares.argmax(1) == truth)[truth >= 0] for _, shares in seeds])
        figures |= {label: float(told), f"{label}, by heart": float(by_heart)}
        print(f"{label:56}{told:8.3f}{by_heart:12.3f}", flush=True)
        likely.append(np.mean([shares for shares, _ in seeds], 0))
        values.append(right)
    name = f"{' and '.join(labels)}, precision@10"
    figures[name] = _precision_at_10(likely, values)
    print(f"{name:56}{figures[name]:8.3f}")
    return figures


def known_for_certain(items: Sequence[Item]) -> dict[str, float]:
    print("known for certain, recall@10 of titles")
    figures = {", ".join(labels): _recall_by_labels(items, labels) for labels in KNOWN}
    for name, found in figures.items():
        print(f"{name:56}{found:8.3f}")
    return figures


@dataclass(frozen=True)
class _Pictures:
    rows: Tensor
    """Features, standardised as the model does, [n, P]."""
    items: list[Item]

    def labels(self, name: str) -> list[object]:
        return [item.attributes.get(name) for item in self.items]


def _read(arguments: argparse.Namespace, model: TextMultiModalModel, source: str) -> _Pictures:
    assert isinstance(model.image, CNN)
    with tempfile.TemporaryDirectory() as name:  # kept features say nothing of the model that made them
        folder = Path(name)
        pairs = validation.read_pairs(
            Validation(source=source), STAGE, data=arguments.sources, drawings=folder, seed=1
        )
        for what, done, of in trunk_cache.fill_pictures(folder, model, pairs):
            if done == of:
                print(f"{what}: {of} pictures")
        everything = np.arange(len(pairs.items))
        pooled = CachedInputs(folder, pairs).pictures(everything, None, memory=False).pooled
    return _Pictures(model.image.projection.standardise(pooled), pairs.items)


def _numbers(values: list[object], names: list[str]) -> NDArray[np.int64]:
    places = {name: i for i, name in enumerate(names)}
    return np.array([places.get(str(value), -1) for value in values])


def _shares(
    x: Tensor, truth: NDArray[np.int64], asked: Sequence[Tensor], count: int, seed: int
) -> list[NDArray[np.float32]]:
    """What a classifier that learnt `truth` (-1: not known) of x makes of the rows asked, each [n, count]."""
    torch.manual_seed(seed)
    known = torch.from_numpy(np.flatnonzero(truth >= 0))
    targets = torch.from_numpy(truth)
    net = nn.Sequential(
        nn.Dropout(0.5), nn.Linear(x.shape[1], 1024), nn.GELU(), nn.Dropout(0.5), nn.Linear(1024, count)
    )
    optimizer = adamw(list(net.parameters()), STAGE.learning_rate, 0.01)
    steps = EPOCHS * -(-len(known) // BATCH)
    order = torch.cat([known[torch.randperm(len(known))] for _ in range(EPOCHS)])
    parts = torch.tensor_split(order, steps)
    for step, rows in enumerate(parts):
        for group in optimizer.param_groups:
            group["lr"] = STAGE.learning_rate * pace(step, steps, STAGE.warmup_steps)
        loss = F.cross_entropy(net(x[rows]), targets[rows], label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    net.eval()
    with torch.no_grad():
        return [net(rows).softmax(1).numpy() for rows in asked]


def _precision_at_10(likely: Sequence[NDArray[np.float32]], values: Sequence[NDArray[np.int64]]) -> float:
    """Of combinations of values that ten pictures have, by the products of their shares: label by label [n, L], [n]."""
    has = list(zip(*(rows.tolist() for rows in values), strict=True))
    asked = sorted(one for one, count in Counter(has).items() if count >= 10 and min(one) >= 0)
    scores = np.stack([np.prod([p[:, v] for p, v in zip(likely, one, strict=True)], 0) for one in asked])
    relevant = np.array([[of_picture == one for of_picture in has] for one in asked])
    return float(precisions_at_k(scores, relevant, 10).mean())


def _recall_by_labels(items: Sequence[Item], labels: Sequence[str]) -> float:
    """Recall@10 of distinct texts, where pictures are ranked by how many labels they share with the text's own."""
    own: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        for text in item.texts:
            own.setdefault(text, []).append(i)
    values = np.array([[str(item.attributes.get(name)) for name in labels] for item in items])
    found = []
    for rows in own.values():
        shared = (values == values[rows[0]]).sum(1)  # the first of its pictures says what the text is about
        ahead, alike = int((shared == len(labels)).sum()), int((shared[rows] == len(labels)).sum())
        room = min(10, ahead)
        found.append(1 - comb(ahead - alike, room) / comb(ahead, room))
    return float(np.mean(found))


if __name__ == "__main__":
    main()
