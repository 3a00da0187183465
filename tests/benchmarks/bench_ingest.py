"""Ingest with the configured model, bytes to commit, beside the model's own encoding run alone.

What it means: `ratio` is ingest's images/s over those of encoding decoded pictures (with one title each: pictures and
titles) in the same run, alternating, medians. Good: 0.8 or more; the rest is reading, decoding, thumbnails and SQL
that the two cores could not hide behind the encoder.

    python -m tests.benchmarks.bench_ingest [--data '../shared/data/fashion/val-*.tar'] [--rounds 5]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from indexer.config import IngestConfig
from indexer.database import Database
from indexer.files import Blobs
from indexer.ingest import Ingest
from indexer.report import IngestReport
from indexer.store.collections import Collections
from search.cli.context import load_encoder
from search.config import Config
from tests.benchmarks.measure import median, print_json
from textmm.drawings import draw_catalogue
from textmm.encoder import Encoder
from textmm.sources import Item, read_bytes, read_source
from textmm.transforms import decode_image

BATCH = IngestConfig().batch_size


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="", help="a source; without it drawn products")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--profile", action="store_true", help="print where the writing and encoding thread spends"
    )
    arguments = parser.parse_args()
    encoder = load_encoder(Config())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = arguments.data or str(draw_catalogue(folder / "drawn", arguments.count, seed=5))
        titled = [replace(i, captions=(), title=i.title or i.key) for i in read_source(source)][
            : arguments.count
        ]
        bare = [replace(i, title=None) for i in titled]
        images = [encoder.fit(decode_image(read_bytes(i.locator))) for i in titled]
        titles = [i.title or "" for i in titled]

        def pictures_alone() -> None:
            for start in range(0, len(images), BATCH):
                encoder.encode_images(images[start : start + BATCH])

        def both_alone() -> None:
            for start in range(0, len(images), BATCH):
                encoder.encode_images(images[start : start + BATCH])
                encoder.encode_texts(titles[start : start + BATCH])

        figures = {}
        for name, alone, items in (("pictures", pictures_alone, bare), ("with_titles", both_alone, titled)):
            figures[name] = compare(alone, items, encoder, folder, arguments.rounds)
            row = figures[name]
            print(
                f"{name:12} encoding alone {row['alone_images_per_s']:7.1f}/s   ingest {row['images_per_s']:7.1f}/s"
                f"   ratio {row['ratio']:.3f} ({row['ratio_low']:.3f}-{row['ratio_high']:.3f})"
                f"   busy s: {row['stages_s']}"
            )
        if arguments.profile:
            profile(bare, encoder, folder)
    print_json("ingest", vars(arguments), figures)


def compare(
    alone: Callable[[], None], items: Sequence[Item], encoder: Encoder, folder: Path, rounds: int
) -> dict[str, object]:
    alone()
    ingest(items[:BATCH], encoder, folder)
    rates, ratios, stages = ([], []), [], {}  # type: ignore[var-annotated]
    for _ in range(rounds):
        started = time.perf_counter()
        alone()
        rates[0].append(len(items) / (time.perf_counter() - started))
        started = time.perf_counter()
        stages = ingest(items, encoder, folder).stages_s
        rates[1].append(len(items) / (time.perf_counter() - started))
        ratios.append(rates[1][-1] / rates[0][-1])
    return {
        "images": len(items),
        "alone_images_per_s": median(rates[0]),
        "images_per_s": median(rates[1]),
        "ratio": median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "stages_s": {k: round(v, 2) for k, v in stages.items()},
    }


def ingest(items: Sequence[Item], encoder: Encoder, folder: Path) -> IngestReport:
    """Into a database of its own, on disk; all committed when it returns."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        database = Database(f"sqlite:///{place}/textmm.sqlite")
        database.upgrade()
        collection = Collections(database).create("bench", is_bank=False, limits={})
        total = IngestReport()
        run = Ingest(database, encoder, Blobs(Path(place) / "blobs"), IngestConfig())
        for report in run.run(items, collection, source="bench"):
            total.add(report)
        assert total.added == len(items), total.failed
        database.close()
        return total


def profile(items: Sequence[Item], encoder: Encoder, folder: Path) -> None:
    profiler = cProfile.Profile()
    profiler.runcall(ingest, items, encoder, folder)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(12)


if __name__ == "__main__":
    main()
