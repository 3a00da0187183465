"""The bundled model's text trunks, both and each alone: what each costs a query and what it brings.

What it means: `encode_ms` is one new text encoded alone, median over rounds that alternate; recall is text to picture,
as `textmm evaluate` measures it. The head was trained with either part left out now and then, so each alone is a fair
question. Good: both are worth more than the milliseconds that the second costs.

    python -m tests.benchmarks.bench_text_trunks --data 'DATA/flickr8k/val-*.tar' 'DATA/fashion/val-*.tar'
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

from search.config import Config
from tests.benchmarks.measure import median, print_json
from textmm import checkpoint
from textmm.encoder import Encoder
from textmm.evaluate import DataSet, read_data, retrieval
from textmm.sources import read_source
from textmm.text import Tokens
from textmm.tokenizers import Tokenizer

PARTS = ("MiniLM and USE", "USE alone", "MiniLM alone")
QUERIES = 64


class LeftOut:
    """A tokenizer that gives one trunk nothing to read."""

    def __init__(self, tokenizer: Tokenizer, part: int) -> None:
        self._tokenizer, self._part = tokenizer, part

    def __call__(self, texts: Sequence[str]) -> Tokens:
        tokens = list(self._tokenizer(texts))
        tokens[self._part] = tokens[self._part][:, :0]
        return tuple(tokens)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return self._tokenizer.lengths(texts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", required=True, help="sources with texts")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    config = Config()
    loaded = checkpoint.load(config.model.name, config.trunks)
    encoders = {
        name: Encoder(
            loaded if left_out is None else replace(loaded, tokenizer=LeftOut(loaded.tokenizer, left_out))
        )
        for name, left_out in zip(PARTS, (None, 0, 1), strict=True)
    }
    figures: dict[str, dict[str, float]] = {name: {} for name in PARTS}
    titles: list[str] = []
    for source in arguments.data:
        data = read_data(encoders[PARTS[0]], read_source(source))
        titles += distinct_texts(data)[: QUERIES // len(arguments.data)]
        for name, encoder in encoders.items():
            metrics = retrieval(encoder, data).metrics
            for k in (1, 10):
                figures[name][f"{source} recall@{k}"] = round(metrics[f"image_retrieval_recall@{k}"], 4)
    rounds: dict[str, list[float]] = {name: [] for name in PARTS}
    for _ in range(arguments.rounds):
        for name, encoder in encoders.items():
            rounds[name].append(query_ms(encoder, titles))
    for name in PARTS:
        figures[name]["encode_ms"] = round(median(rounds[name]), 2)
        print(f"{name:15}", "  ".join(f"{what} {value}" for what, value in figures[name].items()))
    print_json("text_trunks", vars(arguments), {"results": figures})


def distinct_texts(data: DataSet) -> list[str]:
    return list(dict.fromkeys(text for item in data.items for text in item.texts))


def query_ms(encoder: Encoder, texts: Sequence[str]) -> float:
    encoder.encode_texts(texts[:1])
    started = time.perf_counter()
    for text in texts:
        encoder.encode_texts([text])
    return (time.perf_counter() - started) * 1e3 / len(texts)


if __name__ == "__main__":
    main()
