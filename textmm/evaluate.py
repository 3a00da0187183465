"""A model over a data set: figures under CLIP_benchmark's field names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textmm.encoder import Encoder
from textmm.metrics import bleu_4, cider_d, precision_at_k, recall_at_k, zero_shot_accuracy
from textmm.sources import Item, read_bytes
from textmm.tokenizers import is_latin
from textmm.transforms import ImageTooLarge, ImageUnreadable, decode_image
from textmm.wording import read_translations

Rows = NDArray[np.float32]
Values = tuple[tuple[str, str], ...]
"""(attribute, value) pairs, in the order of a template."""
RECALL_AT = (1, 5, 10)
ENCODE_BATCH = 64


@dataclass(frozen=True)
class Evaluation:
    task: str
    metrics: dict[str, float]
    counts: dict[str, int] = field(default_factory=dict)
    """How many pictures, queries, labels … the figures are over."""


@dataclass(frozen=True)
class DataSet:
    """Readable pictures of the sources, fitted to a tower, with their items."""

    items: list[Item]
    images: list[Image.Image]


def read_data(encoder: Encoder, items: Iterable[Item]) -> DataSet:
    """Decode everything. A picture that cannot be read is a ValueError: figures are over all or none."""
    kept, images = [], []
    for item in items:
        try:
            if item.problem is not None:
                raise ValueError(item.problem)
            images.append(encoder.fit(decode_image(read_bytes(item.locator))))
        except (OSError, ImageUnreadable, ImageTooLarge, ValueError) as error:
            raise ValueError(f"{item.key}: {error}") from error
        kept.append(item)
    if not kept:
        raise ValueError("the data hold no pictures")
    return DataSet(kept, images)


def retrieval(encoder: Encoder, data: DataSet) -> Evaluation:
    """Distinct texts against pictures, both ways; every picture with a text is a right answer for it."""
    texts: dict[str, int] = {}
    rows, columns = [], []
    for i, item in enumerate(data.items):
        for text in item.texts:
            rows.append(texts.setdefault(text, len(texts)))
            columns.append(i)
    if not texts:
        raise ValueError("the data hold no texts: give --text TEMPLATE to make queries from attributes")
    relevant = np.zeros((len(texts), len(data.items)), dtype=bool)
    relevant[rows, columns] = True
    scores = encoder.encode_texts(list(texts)) @ encoder.encode_images(data.images).T
    with_text = relevant.any(0)
    metrics = {}
    for k in RECALL_AT:
        metrics[f"image_retrieval_recall@{k}"] = recall_at_k(scores, relevant, min(k, scores.shape[1]))
        metrics[f"text_retrieval_recall@{k}"] = recall_at_k(
            scores.T[with_text], relevant.T[with_text], min(k, scores.shape[0])
        )
    return Evaluation("zeroshot_retrieval", metrics, {"images": len(data.items), "texts": len(texts)})


def attribute_retrieval(
    encoder: Encoder,
    data: DataSet,
    template: str,
    translations: Mapping[str, list[str]],
    *,
    match: tuple[str, ...] = (),
    at_least: int = 10,
) -> Evaluation:
    """Queries made from attributes, "{base_colour} {article_type}": precision@10 over those with enough
    pictures. A picture is right when it agrees in the attributes `match`; in all of the template's by default.
    """
    names = re.findall(r"{(\w+)}", template)
    if unknown := [name for name in match if name not in names]:
        raise ValueError(f"{', '.join(unknown)} to match by is not in the template {template!r}")
    said = [_filled(template, item) for item in data.items]
    counts = Counter(s for s in said if s is not None)
    queries = sorted(q for q, n in counts.items() if n >= at_least)
    if not queries:
        raise ValueError(f"no query of {template!r} has {at_least} right pictures")
    relevant = np.array([[s is not None and _agree(s, q, match) for s in said] for q in queries])
    words = [_in_words(template, dict(query), translations) for query in queries]
    scores = encoder.encode_texts(words) @ encoder.encode_images(data.images).T
    value = precision_at_k(scores, relevant, 10)
    return Evaluation(
        "retrieval", {"precision@10": value}, {"images": len(data.items), "queries": len(queries)}
    )


def classify(
    encoder: Encoder, data: DataSet, label: str, translations: Mapping[str, list[str]], *, at_least: int = 10
) -> Evaluation:
    """Nearest of the label's values (those with enough pictures), written in lower case."""
    counts = Counter(str(i.attributes[label]) for i in data.items if label in i.attributes)
    values = sorted(v for v, n in counts.items() if n >= at_least)
    if len(values) < 2:
        raise ValueError(
            f"attribute {label!r} has {len(values)} values with {at_least} pictures; two are needed"
        )
    kept = [i for i, item in enumerate(data.items) if str(item.attributes.get(label)) in values]
    truth = np.array([values.index(str(data.items[i].attributes[label])) for i in kept])
    prompts = [_translated(value, translations) for value in values]
    scores = encoder.encode_images([data.images[i] for i in kept]) @ encoder.encode_texts(prompts).T
    guess = scores.argmax(1)
    recalls = [float((guess[truth == c] == c).mean()) for c in range(len(values))]
    metrics = {"acc1": zero_shot_accuracy(scores, truth), "mean_per_class_recall": float(np.mean(recalls))}
    return Evaluation("zeroshot_classification", metrics, {"images": len(kept), "labels": len(values)})


def captions(encoder: Encoder, data: DataSet, style: str, *, beams: int = 3) -> Evaluation:
    """BLEU-4 and CIDEr-D against the texts; in style `attributes`, how often type and colour are named
    rightly.
    """
    made = [c.text for c in encoder.caption_images(data.images, style=style, beams=beams)]
    if style == "attributes":
        metrics = {
            f"names_{name}": _names_rightly(made, [i.attributes.get(name) for i in data.items])
            for name in ("article_type", "base_colour")
        }
        return Evaluation("captioning", metrics, {"images": len(made)})
    references = [list(item.texts) for item in data.items]
    if not all(references):
        raise ValueError("some pictures have no text to compare a caption with")
    metrics = {"Bleu_4": bleu_4(made, references), "CIDEr": cider_d(made, references)}
    return Evaluation("captioning", metrics, {"images": len(made)})


def load_translations(path: str | None) -> dict[str, list[str]]:
    return {} if path is None else read_translations(path)


def _names_rightly(captions: Sequence[str], truth: Sequence[object]) -> float:
    """Share of captions whose longest known value is the right one; "navy blue" is not "blue"."""
    known = sorted({str(v).lower() for v in truth if v is not None}, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, known))})(?!\w)")
    right = total = 0
    for caption, value in zip(captions, truth, strict=True):
        if value is not None:
            found = max(pattern.findall(caption), key=len, default=None)
            right += found == str(value).lower()
            total += 1
    return right / total if total else float("nan")


def _filled(template: str, item: Item) -> Values | None:
    """The attribute values that a template asks of an item, or None when one is missing."""
    names = re.findall(r"{(\w+)}", template)
    if not all(name in item.attributes for name in names):
        return None
    return tuple((name, str(item.attributes[name])) for name in names)


def _agree(one: Values, other: Values, match: tuple[str, ...]) -> bool:
    return one == other if not match else all(dict(one)[name] == dict(other)[name] for name in match)


def _in_words(template: str, values: Mapping[str, str], translations: Mapping[str, list[str]]) -> str:
    words = {name: _translated(value, translations) for name, value in values.items()}
    said = template.format(**words)
    return said if is_latin(said) else said.replace(" ", "")


def _translated(value: str, translations: Mapping[str, list[str]]) -> str:
    """The value in lower case, or its first translation."""
    if not translations:
        return value.lower()
    try:
        return translations[value.lower()][0]
    except KeyError:
        raise ValueError(f"the translations have no entry for {value!r}") from None
