"""What a generator draws, judged: by `mini` and by a classifier that has seen real pictures only; copies, variety,
speed.

Rows of the first table are 64 prompts "{colour} {type}" (tests/benchmarks/draw), four pictures each: as they are handed
out (the best of four tries each), the first tries, real val pictures of the same pairs at full and at drawn size, the
autoencoder's version of those, and a generator of random weights (chance). A picture is right when the nearest of 29
types, or of 12 colours, is the one that was asked for.

Good: both right .75, type .85, colour .88, the autoencoder's type .80; the other judge within .05; the share of
pictures closer than .98 to a training picture no higher than val's own; variety within .05 of real pictures; Chinese
.9 of English; 1.0 s a picture at n = 1 and .5 at n = 8.

    python -m tests.benchmarks.bench_draw mini-draw --sources ../shared/data --out /tmp/draw

In --out, not for the project (they show pictures of the catalogue): closest.png. To be looked at: prompts.png, zh.png.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import linalg
from sklearn.linear_model import LogisticRegression

from tests.benchmarks.measure import median, print_json
from textmm import pretrained
from textmm.efficientnet import LITE2, EfficientNetLite
from textmm.encoder import Encoder
from textmm.sources import Item, read_bytes, read_source
from textmm.text_to_image import checkpoint
from textmm.text_to_image.autoencoder import Autoencoder
from textmm.text_to_image.checkpoint import LoadedGenerator
from textmm.text_to_image.choosing import ranked
from textmm.text_to_image.flow import Flow
from textmm.text_to_image.generator import FlowGenerator, to_pixels
from textmm.transforms import decode_image

FOLDER = Path(__file__).parent / "draw"
COLOURS = [
    "Black",
    "White",
    "Grey",
    "Brown",
    "Beige",
    "Red",
    "Pink",
    "Orange",
    "Yellow",
    "Green",
    "Blue",
    "Purple",
]
UNKNOWN = [
    *(
        "a dog",
        "two dogs playing in snow",
        "a red car",
        "a house on a hill",
        "a bowl of soup",
        "a mountain lake",
    ),
    *(
        "a bicycle",
        "an aeroplane in the sky",
        "a cat on a sofa",
        "a green apple",
        "a guitar",
        "a laptop computer",
    ),
    *(
        "a child on a swing",
        "a football match",
        "a wooden table",
        "a cup of coffee",
        "the Eiffel tower",
        "a horse",
    ),
    *(
        "a city at night",
        "a sunflower",
        "a slice of pizza",
        "a train station",
        "a fish",
        "a map of the world",
    ),
    *("一只狗", "一辆红色的汽车", "山上的房子", "一碗汤", "一只猫", "一架飞机", "一朵花", "夜晚的城市"),
]
EACH, MANY, TRUNK = 4, 1519, "efficientnet-lite2"
CLOSE = 0.98
Rows = NDArray[np.float32]
Picture = Image.Image


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("generator")
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="the first table and the speed only")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    encoder = Encoder.load("mini", arguments.data / "trunks")
    loaded = checkpoint.load(arguments.generator)
    generator = FlowGenerator(loaded, encoder)
    prompts = [Prompt(**row) for row in csv.DictReader((FOLDER / "prompts.csv").open(encoding="utf-8"))]
    types = (FOLDER / "types.txt").read_text().split("\n")[:-1]
    figures: dict[str, Any] = {"speed": speed(generator, encoder)}
    print(figures["speed"])

    train = [i for i in read_source(f"{arguments.sources}/fashion/train-*.tar") if i.problem is None]
    val = [i for i in read_source(f"{arguments.sources}/fashion/val-*.tar") if i.problem is None]
    lite2 = Lite2(arguments.data / "trunks")
    shown, first = draw_all(generator, encoder, [p.en for p in prompts], seed=1000)
    in_chinese, _ = draw_all(generator, encoder, [p.zh for p in prompts], seed=1000)
    sheet(shown, arguments.out / "prompts.png")
    sheet(in_chinese, arguments.out / "zh.png")
    real = real_pictures(val, prompts)
    small = [at_size(picture, generator.size) for picture, _ in real]
    chance, _ = draw_all(
        FlowGenerator(untrained(loaded), encoder), encoder, [p.en for p in prompts], seed=1000
    )
    asked = [p for p in prompts for _ in range(EACH)]
    sets = {
        "drawn": (shown, asked),
        "drawn, first tries": (first, asked),
        "drawn, Chinese": (in_chinese, asked),
        "real, full size": ([picture for picture, _ in real], [p for _, p in real]),
        "real, drawn size": (small, [p for _, p in real]),
        "autoencoder": (reconstructed(loaded.autoencoder, small), [p for _, p in real]),
        "untrained": (chance, asked),
    }
    judges: dict[str, NearestWords | Classified] = {
        "mini": NearestWords(encoder, types, COLOURS),
        "Lite2": Classified(lite2, train, types, COLOURS, generator.size),
    }
    print(f"{'':20}" + "".join(f"{name + ': type':>14}{'colour':>8}{'both':>8}" for name in judges))
    for name, (pictures, wanted) in sets.items():
        figures[name] = {judge: right(of, pictures, wanted) for judge, of in judges.items()}
        print(
            f"{name:20}" + "".join(f"{f[0]:14.3f}{f[1]:8.3f}{f[2]:8.3f}" for f in figures[name].values()),
            flush=True,
        )
    figures["scores"] = scores(generator, encoder, prompts)
    if not arguments.quick:
        figures |= copies_and_variety(generator, encoder, lite2, prompts, train, val, arguments.out)
    print_json("draw", {"generator": generator.generator_id}, figures)


@dataclass(frozen=True)
class Prompt:
    colour: str
    type: str
    en: str
    zh: str


def speed(generator: FlowGenerator, encoder: Encoder) -> dict[str, float]:
    """Seconds a picture that is handed out, tries and scoring included; median of five."""
    out = {}
    for n in (1, 8):
        times = []
        for run in range(6):
            started = time.perf_counter()
            ranked(generator, encoder, "red handbag", n, seed=run)
            times.append((time.perf_counter() - started) / n)
        out[f"n={n}"] = round(median(times[1:]), 3)
    return out


def draw_all(
    generator: FlowGenerator, encoder: Encoder, prompts: Sequence[str], *, seed: int
) -> tuple[list[Picture], list[Picture]]:
    """EACH pictures a prompt, one after the other: as they are handed out; and the first tries, unchosen."""
    chosen, first = [], []
    for i, prompt in enumerate(prompts):
        found = ranked(generator, encoder, prompt, EACH, seed + 17 * i)
        chosen += [one.picture for one in found[:EACH]]
        order = sorted(found, key=lambda one: one.seed)
        first += [one.picture for one in order[:EACH]]
    return chosen, first


def scores(generator: FlowGenerator, encoder: Encoder, prompts: Sequence[Prompt]) -> dict[str, list[float]]:
    """Of the best picture of one call, for the prompts and for what is in no catalogue of clothes: what a limit between
    the two would let through."""
    known = [p.en for p in prompts] + [p.zh for p in prompts]
    best = {
        name: np.array([ranked(generator, encoder, words, 1, seed=i)[0].score for i, words in enumerate(of)])
        for name, of in (("known", known), ("unknown", UNKNOWN))
    }
    print(f"{'least score':>12}{'known drawn':>13}{'unknown refused':>17}")
    out: dict[str, list[float]] = {}
    for least in np.arange(0.2, 0.75, 0.05):
        shares = [float((best["known"] >= least).mean()), float((best["unknown"] < least).mean())]
        out[f"{least:.2f}"] = [round(share, 3) for share in shares]
        print(f"{least:12.2f}{shares[0]:13.3f}{shares[1]:17.3f}")
    return out


class Lite2:
    """Features of a trunk that neither `mini` nor the generator has seen."""

    def __init__(self, trunks: Path) -> None:
        pretrained.fetch(TRUNK, trunks)
        self._trunk = EfficientNetLite(LITE2)
        pretrained.load_efficientnet(self._trunk, TRUNK, trunks)
        self._trunk = self._trunk.eval().to(torch.bfloat16).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Picture]) -> Rows:
        """Means [n, 1280] and, of an early stage, [n, 24 + 48]: colours are gone at the top."""
        out = []
        for start in range(0, len(pictures), 16):
            pixels = [
                np.asarray(p.resize((224, 224), Image.Resampling.BICUBIC))
                for p in pictures[start : start + 16]
            ]
            x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().sub(127).div(128)
            maps, top = self._trunk(x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last))
            parts = [top.float().mean((2, 3))]
            for early in maps[:3]:
                parts += [early.float().mean((2, 3)), early.float().amax((2, 3))]
            out.append(torch.cat(parts, 1).numpy())
        return np.concatenate(out)


class NearestWords:
    """The nearest of the words by an encoder."""

    def __init__(self, encoder: Encoder, types: Sequence[str], colours: Sequence[str]) -> None:
        self._encoder, self._names = encoder, (list(types), list(colours))
        self._words = [encoder.encode_texts([name.lower() for name in names]) for names in self._names]

    def __call__(self, pictures: Sequence[Picture]) -> tuple[list[str], list[str]]:
        rows = self._encoder.encode_images([self._encoder.fit(p) for p in pictures])
        types, colours = (
            [names[i] for i in (rows @ words.T).argmax(1)]
            for names, words in zip(self._names, self._words, strict=True)
        )
        return types, colours


class Classified:
    """Linear classifiers over Lite2, fitted on training pictures, half of them at the size that is drawn."""

    def __init__(
        self,
        lite2: Lite2,
        train: Sequence[Item],
        types: Sequence[str],
        colours: Sequence[str],
        size: tuple[int, int],
    ) -> None:
        pictures = [decode_image(read_bytes(item.locator)) for item in train]
        pictures = [at_size(p, size) if i % 2 else p for i, p in enumerate(pictures)]
        rows = lite2(pictures)
        self._lite2, self._mean, self._std = lite2, rows.mean(0), rows.std(0) + 1e-4
        self._fitted = []
        for attribute, names in (("article_type", types), ("base_colour", colours)):
            has = np.array([str(item.attributes.get(attribute)) for item in train])
            known = np.isin(has, names)
            model = LogisticRegression(C=0.01, max_iter=300)
            self._fitted.append(model.fit(self._scaled(rows[known]), has[known]))

    def __call__(self, pictures: Sequence[Picture]) -> tuple[list[str], list[str]]:
        rows = self._scaled(self._lite2(pictures))
        types, colours = (model.predict(rows).tolist() for model in self._fitted)
        return types, colours

    def _scaled(self, rows: Rows) -> Rows:
        scaled: Rows = (rows - self._mean) / self._std
        return scaled


def right(
    judge: NearestWords | Classified, pictures: Sequence[Picture], wanted: Sequence[Prompt]
) -> list[float]:
    """Shares of pictures whose type, colour, and both are those wanted."""
    types, colours = judge(pictures)
    type_right = np.array([t == p.type for t, p in zip(types, wanted, strict=True)])
    colour_right = np.array([c == p.colour for c, p in zip(colours, wanted, strict=True)])
    return [round(float(x.mean()), 3) for x in (type_right, colour_right, type_right & colour_right)]


def real_pictures(val: Sequence[Item], prompts: Sequence[Prompt]) -> list[tuple[Picture, Prompt]]:
    """Up to EACH val pictures of each pair."""
    out = []
    for prompt in prompts:
        of = [
            i
            for i in val
            if i.attributes.get("article_type") == prompt.type
            and i.attributes.get("base_colour") == prompt.colour
        ]
        out += [(decode_image(read_bytes(item.locator)), prompt) for item in of[:EACH]]
    return out


def at_size(picture: Picture, size: tuple[int, int]) -> Picture:
    return picture.resize(size, Image.Resampling.LANCZOS)


@torch.inference_mode()
def reconstructed(autoencoder: Autoencoder, pictures: Sequence[Picture]) -> list[Picture]:
    pixels = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2).float()
    back = autoencoder.decode(autoencoder.encode(pixels.div(127.5).sub(1)))
    return [Image.fromarray(one) for one in to_pixels(back)]


def untrained(loaded: LoadedGenerator) -> LoadedGenerator:
    torch.manual_seed(0)
    flow = Flow(loaded.flow.config)
    for parameter in (flow.leave.weight, flow.steer.weight):
        torch.nn.init.normal_(parameter, std=0.05)
    return LoadedGenerator(loaded.autoencoder, flow.eval(), loaded.words, "untrained")


def copies_and_variety(
    generator: FlowGenerator,
    encoder: Encoder,
    lite2: Lite2,
    prompts: Sequence[Prompt],
    train: Sequence[Item],
    val: Sequence[Item],
    out: Path,
) -> dict[str, Any]:
    size = generator.size
    words = [
        " ".join(
            str(item.attributes[name]).lower()
            for name in ("base_colour", "article_type")
            if name in item.attributes
        )
        for item in val
    ]
    drawn = [generator.draw(prompt, [50_000 + i])[0] for i, prompt in enumerate(words[:MANY])]
    real = [at_size(decode_image(read_bytes(item.locator)), size) for item in val[:MANY]]
    known = [at_size(decode_image(read_bytes(item.locator)), size) for item in train]
    features = {name: lite2(of) for name, of in (("drawn", drawn), ("val", real), ("train", known))}
    distance = frechet(features["drawn"], features["val"])
    own = frechet(features["train"][:: max(1, len(known) // MANY)][:MANY], features["val"])
    vectors = {
        name: encoder.encode_images([encoder.fit(p) for p in of])
        for name, of in (("drawn", drawn), ("val", real), ("train", known))
    }
    nearest = {name: vectors[name] @ vectors["train"].T for name in ("drawn", "val")}
    close = {name: float((rows.max(1) > CLOSE).mean()) for name, rows in nearest.items()}
    best = np.argsort(-nearest["drawn"].max(1))[:16]
    pairs = [one for i in best for one in (drawn[i], known[int(nearest["drawn"][i].argmax())])]
    sheet(pairs, out / "closest.png", columns=8)
    cosines: dict[str, list[float]] = {"drawn": [], "real": []}
    for i, prompt in enumerate(prompts):
        eight = encoder.encode_images(
            [encoder.fit(p) for p in generator.draw(prompt.en, list(range(90_000 + 8 * i, 90_008 + 8 * i)))]
        )
        same = [
            row
            for row, item in enumerate(train)
            if item.attributes.get("article_type") == prompt.type
            and item.attributes.get("base_colour") == prompt.colour
        ][:8]
        if len(same) == 8:
            cosines["drawn"].append(pairwise(eight))
            cosines["real"].append(pairwise(vectors["train"][same]))
    variety = {name: round(float(np.mean(of)), 3) for name, of in cosines.items()}
    print(f"Fréchet distance to val, Lite2: drawn {distance:.1f}, as many of train {own:.1f}")
    print(f"closer than {CLOSE} to a training picture: drawn {close['drawn']:.4f}, val {close['val']:.4f}")
    print(
        f"mean cosine of 8 of a pair ({len(cosines['real'])} pairs): drawn {variety['drawn']}, real {variety['real']}"
    )
    return {"frechet": [round(distance, 2), round(own, 2)], "close": close, "variety": variety}


def frechet(one: Rows, other: Rows) -> float:
    """Distance of two Gaussians (Heusel et al. 2017), over the 1,280 numbers of the top."""
    tops = [rows[:, :1280].astype(np.float64) for rows in (one, other)]
    covariances = [np.cov(rows, rowvar=False) + 1e-6 * np.eye(rows.shape[1]) for rows in tops]
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    between = np.square(tops[0].mean(0) - tops[1].mean(0)).sum()
    return float(between + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(np.real(root)))


def pairwise(rows: Rows) -> float:
    """Mean cosine of each two of them."""
    cosines = rows @ rows.T
    return float(cosines[~np.eye(len(rows), dtype=bool)].mean())


def sheet(pictures: Sequence[Picture], path: Path, *, columns: int = 16) -> None:
    width, height = pictures[0].size
    out = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    for i, picture in enumerate(pictures):
        out.paste(picture, (i % columns * width, i // columns * height))
    out.save(path)


if __name__ == "__main__":
    main()
