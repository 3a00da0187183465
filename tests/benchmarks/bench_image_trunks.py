"""Which picture trunk, and at which size: what each brings to everyday photos, and what a picture costs.

Recall@10 of val photos by their sentences and back, by fresh heads over features of locked trunks (four views of
each photo of training: whole, mirrored, two crops), 500 steps of 1,024 pairs; several trunks joined by `+` have their
features side by side. `mirrored`: the mean of a photo's vector and its mirror's. `photos/s`: on two cores in bfloat16,
eight at a time. Good: what the recall gains is worth the time. Some 20 minutes; features are kept in `--out`.

    python -m tests.benchmarks.bench_image_trunks --sources ../shared/data
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor
from torch.nn import functional as F

from tests.benchmarks.measure import median, print_json
from textmm import checkpoint, pretrained
from textmm.colour import colour_features
from textmm.config import ImageConfig
from textmm.efficientnet import LITE0, LITE2, EfficientNetLite
from textmm.image import _all_moments
from textmm.layers import ProjectionHead
from textmm.losses import contrastive_loss
from textmm.model import TextMultiModalModel
from textmm.pairs import Pairs, PairSource
from textmm.transforms import augment, fit, to_tensor

STAGES = {"efficientnet-lite0": LITE0, "efficientnet-lite2": LITE2}
ROWS = (
    "efficientnet-lite0@224",
    "efficientnet-lite0@288",
    "efficientnet-lite2@260",
    "efficientnet-lite0@288+efficientnet-lite2@260",
)
VAL, TRAIN = "flickr8k/val-*.tar", "flickr8k/train-*.tar"
BATCH, VIEWS, RATE, WIDTH = 1024, 4, 1.5e-3, 384


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=ROWS, help="TRUNK@PIXELS, several joined by +")
    parser.add_argument("--trunks", type=Path, default=Path("data/trunks"))
    parser.add_argument("--out", type=Path, default=Path("data/image-trunks"), help="for features")
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    val, train = (Photos(arguments, source) for source in (VAL, TRAIN))
    figures = {}
    print(f"{'':48}{'R@10 of photos':>16}{'of sentences':>14}{'mirrored':>18}{'photos/s':>10}")
    for row in arguments.rows:
        names = row.split("+")
        by_text, by_picture, mirrored = trained_recall(val, train, names, arguments.steps)
        rate = 1 / sum(1 / photos_per_s(Trunk(name, arguments.trunks)) for name in names)
        figures[row] = {
            "recall": [by_text, by_picture],
            "mirrored": mirrored,
            "photos_per_s": round(rate, 1),
        }
        beside = " ".join(f"{value:.3f}" for value in mirrored)
        print(f"{row:48}{by_text:16.3f}{by_picture:14.3f}{beside:>18}{rate:10.0f}", flush=True)
    print_json("image_trunks", vars(arguments), figures)


class Trunk:
    """TRUNK@PIXELS: pictures -> features of the head and of every stage's end."""

    def __init__(self, name: str, trunks: Path) -> None:
        trunk, _, pixels = name.partition("@")
        self.config = replace(
            ImageConfig(mean=(127 / 255,) * 3, std=(128 / 255,) * 3), image_size=int(pixels)
        )
        pretrained.fetch(trunk, trunks)
        module = EfficientNetLite(STAGES[trunk])
        pretrained.load_efficientnet(module, trunk, trunks)
        self._module = module.eval().to(torch.bfloat16).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        maps, top = self._module(pixels.to(torch.bfloat16).contiguous(memory_format=torch.channels_last))
        return torch.cat([top.float().mean((2, 3)), *_all_moments(maps, 0)], 1)


class Photos:
    """Photos of a source with their sentences, and what trunks make of them."""

    def __init__(self, arguments: argparse.Namespace, source: str) -> None:
        self._out, self._trunks, self._of_val = arguments.out, arguments.trunks, source == VAL
        told = PairSource(source=source, share=1.0, views=2, style="photo")
        self._pairs = Pairs((told,), (), data=arguments.sources, drawings=arguments.out, seed=1)
        self.count = len(self._pairs.items)
        self.texts = [text for item in self._pairs.items for text in item.texts]
        self.own = np.repeat(np.arange(self.count), [len(item.texts) for item in self._pairs.items])
        self.starts = np.searchsorted(self.own, np.arange(self.count + 1))
        """The sentences of photo i are starts[i] … starts[i + 1]."""

    def words(self) -> Tensor:
        """[texts, P], of mini's text trunks."""
        path = self._out / f"{'val' if self._of_val else 'train'}.words.npy"
        if not path.exists():
            loaded = checkpoint.load("mini", self._trunks)
            assert isinstance(loaded.model, TextMultiModalModel)
            with torch.inference_mode():
                chunks = [self.texts[i : i + 64] for i in range(0, len(self.texts), 64)]
                rows = [loaded.model.text.trunk(loaded.tokenizer(chunk)).pooled.half() for chunk in chunks]
            np.save(path, torch.cat(rows).numpy())
        return torch.from_numpy(np.load(path)).float()

    def features(self, name: str) -> Tensor:
        """[photos, views, P], colour last."""
        path = self._out / f"{'val' if self._of_val else 'train'}.{name}.npy"
        if not path.exists():
            trunk = Trunk(name, self._trunks)

            def made(i: int) -> np.ndarray:
                torch.set_num_threads(1)
                pixels = self._views(i, trunk.config)
                colour = colour_features(pixels * trunk.config.std[0] + trunk.config.mean[0])
                return torch.cat([trunk(pixels), colour], 1).half().numpy()

            with ThreadPoolExecutor(2) as workers:
                np.save(path, np.stack(list(workers.map(made, range(self.count)))))
            torch.set_num_threads(2)
        return torch.from_numpy(np.load(path)).float()

    def _views(self, i: int, config: ImageConfig) -> Tensor:
        image, rng = self._pairs.picture(i), np.random.default_rng([4, i])
        whole = fit(image, config)
        crops = 0 if self._of_val else VIEWS - 2
        views = [whole, ImageOps.mirror(whole), *(augment(image, config, rng) for _ in range(crops))]
        return to_tensor(views, config)


def trained_recall(
    val: Photos, train: Photos, names: Sequence[str], steps: int
) -> tuple[float, float, list[float]]:
    """Recall@10 of photos by sentences and of sentences by photos, and the two of mirrored means."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pictures, words = torch.cat([train.features(name) for name in names], 2), train.words()
    image_head = ProjectionHead(pictures.shape[2], 1024, WIDTH)
    text_head = ProjectionHead(words.shape[1], 1024, WIDTH)
    image_head.fit(pictures.flatten(0, 1))
    text_head.fit(words)
    scale = torch.nn.Parameter(torch.tensor(math.log(20.0)))
    weights = [*image_head.parameters(), *text_head.parameters(), scale]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.05, betas=(0.9, 0.98))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        ids = rng.choice(train.count, BATCH, replace=False)
        texts = train.starts[ids] + rng.integers(train.starts[ids + 1] - train.starts[ids])
        with torch.autocast("cpu", torch.bfloat16):
            images = image_head(image_head.standardise(pictures[ids, rng.integers(VIEWS, size=BATCH)]))
            said = text_head(text_head.standardise(words[texts]))
        optimizer.zero_grad(set_to_none=True)
        right = torch.eye(BATCH, dtype=torch.bool)
        contrastive_loss(images, said, scale.exp().clamp(max=50), right).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    image_head.eval(), text_head.eval()
    with torch.no_grad():
        photos = torch.cat([val.features(name) for name in names], 2)
        whole, mirrored = (image_head(image_head.standardise(photos[:, view])) for view in (0, 1))
        said = text_head(text_head.standardise(val.words()))
        both = F.normalize(whole + mirrored, dim=-1)
    return *recall_at_10(whole, said, val.own), list(recall_at_10(both, said, val.own))


def recall_at_10(photos: Tensor, texts: Tensor, own: np.ndarray) -> tuple[float, float]:
    scores = texts @ photos.T
    by_text = (scores.topk(10, 1).indices.numpy() == own[:, None]).any(1).mean()
    nearest = own[scores.T.topk(10, 1).indices.numpy()]
    by_picture = (nearest == np.arange(len(photos))[:, None]).any(1).mean()
    return round(float(by_text), 4), round(float(by_picture), 4)


def photos_per_s(trunk: Trunk, rounds: int = 5, batches: int = 10) -> float:
    size = trunk.config.image_size
    pixels = torch.randn(8, 3, size, size)
    trunk(pixels)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(batches):
            trunk(pixels)
        times.append((time.perf_counter() - started) / (8 * batches))
    return 1 / median(times)


if __name__ == "__main__":
    main()
