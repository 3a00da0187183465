"""How well a model understands attribute queries in languages, beside English: precision@10 over the fashion val split.

150 queries a language, the same things in each: colour and type, type and whom it is for, type; those with most
pictures first. The words were written for this (tests/benchmarks/languages). Training has no text in Spanish, German,
French, Russian, Japanese or Arabic; it has most of the Chinese words, since there is hardly another for a shirt.
Precision@10 counts against the best that is possible where fewer than ten pictures are right. `free_zh.csv` holds what
a buyer might type, in Chinese.

Good: .8 of English to claim a language; Chinese .95; free wording .75.

    python -m tests.benchmarks.bench_languages mini --fashion "DATA/fashion/val-*.tar"
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.measure import print_json
from textmm.encoder import Encoder
from textmm.evaluate import read_data
from textmm.sources import Item, read_source

FOLDER = Path(__file__).parent / "languages"
QUERIES, LEAST = 150, 5
SLOTS = {"colour": "base_colour", "type": "article_type", "gender": "gender"}
Wanted = tuple[tuple[str, str], ...]
"""(attribute, value) pairs that a right picture has."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--fashion", required=True)
    parser.add_argument("--data", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    encoder = Encoder.load(arguments.model, arguments.data / "trunks")
    data = read_data(encoder, read_source(arguments.fashion))
    pictures = encoder.encode_images(data.images)
    templates = {row["language"]: row for row in rows("templates.csv")}
    words = {row["value"]: row for row in rows("words.csv")}
    wanted = queries(data.items, words)
    figures = {}
    for language, template in templates.items():
        texts = [said(want, template, words, language) for want in wanted]
        figures[language] = precision(encoder.encode_texts(texts) @ pictures.T, wanted, data.items)
    free = rows("free_zh.csv")
    asked = [tuple((name, row[name]) for name in SLOTS.values() if row[name]) for row in free]
    figures["zh, free wording"] = precision(
        encoder.encode_texts([row["query"] for row in free]) @ pictures.T, asked, data.items
    )
    print(
        f"{'language':20} {'P@10':>6} {'of English':>11}   ({len(wanted)} queries, {len(free)} in free wording)"
    )
    for language, value in figures.items():
        print(f"{language:20} {value:6.3f} {value / figures['en']:11.3f}")
    print_json("languages", {"model": encoder.model_id}, {"precision_at_10": figures, "queries": len(wanted)})


def rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def queries(items: list[Item], words: dict[str, dict[str, str]]) -> list[Wanted]:
    """The combinations with most pictures, of values that have words."""
    counts: Counter[Wanted] = Counter()
    for item in items:
        has = {name: str(item.attributes[name]) for name in SLOTS.values() if name in item.attributes}
        for slots in (("colour", "type"), ("type", "gender"), ("type",)):
            if all(has.get(SLOTS[slot]) in words for slot in slots):
                counts[tuple((SLOTS[slot], has[SLOTS[slot]]) for slot in slots)] += 1
    return [want for want, n in counts.most_common(QUERIES) if n >= LEAST]


def said(want: Wanted, template: dict[str, str], words: dict[str, dict[str, str]], language: str) -> str:
    slot_of = {attribute: slot for slot, attribute in SLOTS.items()}
    values = {slot_of[name]: words[value][language] for name, value in want}
    return template["_".join(values)].format(**values)


def precision(scores: NDArray[np.float32], wanted: list[Wanted], items: list[Item]) -> float:
    """Mean over the queries of right pictures among the ten best, of as many as there can be."""
    out = []
    for row, want in zip(scores, wanted, strict=True):
        right = np.array([all(str(i.attributes.get(name)) == value for name, value in want) for i in items])
        if not right.any():
            raise ValueError(f"no picture is right for {want}: take the query out")
        out.append(right[np.argsort(-row)[:10]].sum() / min(10, right.sum()))
    return float(np.mean(out))


if __name__ == "__main__":
    main()
