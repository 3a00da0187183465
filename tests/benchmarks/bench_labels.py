"""How well labels can be told from what a model's picture trunk gives: a classifier trained with the labels themselves.

Captions and prompts, which are trained with words, can hardly do better on the same features. The classifier is an MLP
with dropout over standardised features of whole pictures, the mean of three seeds; `by heart` is its accuracy on the
pictures it was trained with. Labels that are few in --train are in too: accuracy is over all pictures of --val.

    python -m tests.benchmarks.bench_labels mini --sources ../shared/data
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmarks.measure import print_json
from textmm import checkpoint, trunk_cache, validation
from textmm.image import CNN
from textmm.model import TextMultiModalModel
from textmm.optimiser import adamw, pace
from textmm.recipe import Stage, Validation
from textmm.trunk_cache import CachedInputs

STAGE = Stage(name="labels", steps=1, batch_size=2, learning_rate=1e-3)
EPOCHS, BATCH, SEEDS = 25, 256, 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--train", default="fashion/train-*.tar")
    parser.add_argument("--val", default="fashion/val-*.tar")
    parser.add_argument("--label", nargs="+", default=["base_colour", "article_type"])
    parser.add_argument("--trunks", type=Path, default=Path("data/trunks"))
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    model = checkpoint.load(arguments.model, arguments.trunks).model.eval()
    assert isinstance(model, TextMultiModalModel)
    learnt, asked = (_read(arguments, model, source) for source in (arguments.train, arguments.val))
    figures = {}
    print(f"{'':16}{'val':>8}{'by heart':>12}")
    for label in arguments.label:
        names = sorted({str(v) for v in learnt[1][label] if v is not None})
        truths = [_numbers(labels[label], names) for _, labels in (learnt, asked)]
        told = np.mean(
            [_told(learnt[0], truths[0], asked[0], truths[1], len(names), s) for s in range(SEEDS)], 0
        )
        figures[label] = {"val": round(float(told[0]), 4), "by heart": round(float(told[1]), 4)}
        print(f"{label:16}{told[0]:8.3f}{told[1]:12.3f}", flush=True)
    print_json("labels", {"train": arguments.train, "val": arguments.val}, figures)


def _read(
    arguments: argparse.Namespace, model: TextMultiModalModel, source: str
) -> tuple[Tensor, dict[str, list[object]]]:
    """Features of a source's pictures, standardised as the model does, and their labels by name."""
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
    labels: dict[str, list[object]] = {
        name: [item.attributes.get(name) for item in pairs.items] for name in arguments.label
    }
    return model.image.projection.standardise(pooled), labels


def _numbers(values: list[object], names: list[str]) -> NDArray[np.int64]:
    places = {name: i for i, name in enumerate(names)}
    return np.array([places.get(str(value), -1) for value in values])


def _told(
    x: Tensor, truth: NDArray[np.int64], asked: Tensor, right: NDArray[np.int64], count: int, seed: int
) -> tuple[float, float]:
    """Accuracy on what is asked, and on what was learnt."""
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
        given = [net(rows).argmax(1).numpy() for rows in (asked, x)]
    return float((given[0] == right).mean()), float((given[1] == truth)[truth >= 0].mean())


if __name__ == "__main__":
    main()
