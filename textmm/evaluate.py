"""A model over a data set: figures under CLIP_benchmark's field names, each with a bootstrap interval."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textmm.bootstrap import mean_of, median_of
from textmm.calibration import (
    TEMPLATES,
    AttributeCalibration,
    Calibration,
    fit_temperature,
    least_probability,
)
from textmm.caption_metrics import bleu_counts, bleu_of, cider_ds, rouge_ls
from textmm.classified import Classified
from textmm.classify import label_vectors, probabilities
from textmm.encoder import CaptionDecoding, Encoder
from textmm.figures import Confusion, Evaluation, Figures, Miss, Misses, RecallCurve, Reliability, measured
from textmm.metrics import (
    confusion_matrix,
    first_right_ranks,
    ndcgs_at_k,
    precisions_at_k,
)
from textmm.misses import WORST, fewest_right, last_ranked, surest_mistakes
from textmm.phrases import fields_of
from textmm.sources import Item, one_per_picture, read_bytes
from textmm.tokenizers import is_latin
from textmm.transforms import ImageTooLarge, ImageUnreadable, decode_image
from textmm.wording import named_in, read_translations, style_in

Rows = NDArray[np.float32]
Values = tuple[tuple[str, str], ...]
"""(attribute, value) pairs, in the order of a template."""
RECALL_AT = (1, 5, 10)
CURVE_TO = 100
"""recall@k is drawn for k up to this."""
CAPTIONS = 400
"""So many, at most, say whether captions speak of an attribute."""


@dataclass(frozen=True)
class DataSet:
    """Readable pictures of the sources, fitted to a tower, with their items."""

    items: list[Item]
    images: list[Image.Image]
    _vectors: dict[str, Rows] = field(default_factory=dict, init=False, repr=False, compare=False)

    def vectors(self, encoder: Encoder) -> Rows:
        """[n, embed_dim], made once for each model."""
        if encoder.model_id not in self._vectors:
            self._vectors[encoder.model_id] = encoder.encode_images(self.images)
        return self._vectors[encoder.model_id]


def read_data(encoder: Encoder, items: Iterable[Item], *, text_column: str = "") -> DataSet:
    """Decode everything, each picture once (see `one_per_picture`). A picture that cannot be read is a ValueError:
    figures are over all or none."""
    kept, images = [], []
    for item in one_per_picture(items, text_column):
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
    with_text = np.flatnonzero(relevant.any(0))
    to_texts = scores.T[with_text], relevant.T[with_text]
    ways = {"image": (scores, relevant), "text": to_texts}
    ranks = {way: first_right_ranks(*asked) for way, asked in ways.items()}
    figures: Figures = {}
    for k in RECALL_AT:
        for way, (way_scores, _) in ways.items():
            hits = ranks[way] <= min(k, way_scores.shape[1])
            figures[f"{way}_retrieval_recall@{k}"] = mean_of(hits), len(hits)
    for way, (way_scores, right) in ways.items():
        gains = ndcgs_at_k(way_scores, right, min(10, way_scores.shape[1]))
        figures[f"{way}_retrieval_median_rank"] = median_of(ranks[way]), len(gains)
        figures[f"{way}_retrieval_ndcg@10"] = mean_of(gains), len(gains)
    return Evaluation(
        "zeroshot_retrieval",
        *measured(figures),
        {"images": len(data.items), "texts": len(texts)},
        pictures=(
            RecallCurve(
                {
                    "text to image": _curve(ranks["image"], scores.shape[1]),
                    "image to text": _curve(ranks["text"], scores.shape[0]),
                }
            ),
            Misses("text-to-image", last_ranked(*ways["image"], list(texts), range(len(data.items)))),
            Misses("image-to-text", last_ranked(*ways["text"], with_text.tolist(), list(texts))),
        ),
    )


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
    names = _fields(template)
    for name in names:
        if not any(name in item.attributes for item in data.items):
            there = sorted({name for item in data.items for name in item.attributes})
            raise ValueError(
                f"no picture has the attribute {name!r} of {template!r}; there are: {', '.join(there) or 'none'}"
            )
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
    precisions = precisions_at_k(scores, relevant, 10)
    return Evaluation(
        "retrieval",
        *measured({"precision@10": (mean_of(precisions), len(queries))}),
        {"images": len(data.items), "queries": len(queries)},
        pictures=(
            RecallCurve({"text to image": _curve(first_right_ranks(scores, relevant), scores.shape[1])}),
            Misses("text-to-image", fewest_right(scores, relevant, words, precisions)),
        ),
    )


def classify(
    encoder: Encoder,
    data: DataSet,
    label: str,
    translations: Mapping[str, list[str]],
    *,
    templates: Sequence[str] = TEMPLATES,
    at_least: int = 10,
) -> Evaluation:
    """Nearest of the label's values with `at_least` pictures, written in lower case into the templates; pictures with
    another value count as `rare`.

    Confidences are at the temperature of the model's calibration for any labels; without one, at that of its training.
    """
    asked = _label_scores(encoder, data, label, translations, templates, at_least=at_least)
    scores, truth, values, kept = asked.scores, asked.truth, asked.values, asked.kept
    given, shares = scores.argmax(1), probabilities(scores, encoder.calibration.temperature)
    answered = Classified(truth, given, shares.max(1), len(values))
    metrics, ends = answered.metrics()
    if len(values) >= 5:
        best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        acc5, acc5_ends = measured({"acc5": (mean_of((best == truth[:, None]).any(1)), len(kept))})
        metrics, ends = metrics | acc5, ends | acc5_ends
    return Evaluation(
        "zeroshot_classification",
        metrics,
        ends,
        {
            "images": len(kept),
            "labels": len(values),
            "rare": sum(label in item.attributes for item in data.items) - len(kept),
        },
        per_class=answered.per_class(values),
        pictures=(
            Confusion(values, confusion_matrix(truth, given, len(values))),
            Reliability(answered.binned(np.ones((1, len(kept))))),
            Misses("labels", surest_mistakes(scores, shares, truth, values, kept)),
        ),
    )


def calibrate(
    encoder: Encoder,
    data: DataSet,
    labels: Sequence[str],
    *,
    templates: Sequence[str] = TEMPLATES,
    precision: float = 0.8,
    at_least: int = 10,
    fitted_on: str = "",
) -> Calibration:
    """One temperature over all the labels alike, and one for each; from which probability on a label's best value is
    right in `precision` of the cases; None for one that never is, and for one of which most captions name a value.

    The pictures must be new to the model: on those it was trained with it is surer than it is elsewhere. Raises
    ValueError for a label with less than two values of `at_least` pictures.
    """
    found = {name: _label_scores(encoder, data, name, {}, templates, at_least=at_least) for name in labels}
    captions: list[str] = []
    if encoder.styles:
        style = ATTRIBUTES if ATTRIBUTES in encoder.styles else encoder.styles[0]
        some = data.images[:: -(-len(data.images) // CAPTIONS)]
        captions = [caption.text for caption in encoder.caption_images(some, style=style)]

    def spoken_of(values: Sequence[str]) -> float:
        return sum(bool(named_in(caption, values)) for caption in captions) / max(1, len(captions))

    attributes = {}
    for name, asked in found.items():
        temperature = round(fit_temperature([(asked.scores, asked.truth)]), 5)
        bound = least_probability(probabilities(asked.scores, temperature), asked.truth, precision)
        told_from = None if bound is None or spoken_of(asked.values) > 0.5 else round(bound, 3)
        attributes[name] = AttributeCalibration(tuple(asked.values), temperature, told_from)
    overall = round(fit_temperature([(asked.scores, asked.truth) for asked in found.values()]), 5)
    return Calibration(overall, tuple(templates), attributes, fitted_on=fitted_on)


@dataclass(frozen=True)
class _LabelScores:
    scores: Rows
    """Cosines [n, L] of the pictures that have one of the values."""
    truth: NDArray[np.int64]
    """The right value of each, [n]."""
    values: list[str]
    kept: list[int]
    """Place of each picture in the data."""


def _label_scores(
    encoder: Encoder,
    data: DataSet,
    label: str,
    translations: Mapping[str, list[str]],
    templates: Sequence[str],
    *,
    at_least: int,
) -> _LabelScores:
    counts = Counter(str(i.attributes[label]) for i in data.items if label in i.attributes)
    values = sorted(v for v, n in counts.items() if n >= at_least)
    if len(values) < 2:
        raise ValueError(
            f"attribute {label!r} has {len(values)} values with {at_least} pictures; two are needed"
        )
    kept = [i for i, item in enumerate(data.items) if str(item.attributes.get(label)) in values]
    truth = np.array([values.index(str(data.items[i].attributes[label])) for i in kept])
    words = [_translated(value, translations) for value in values]
    vectors = label_vectors(encoder.encode_texts, words, templates)
    return _LabelScores(data.vectors(encoder)[kept] @ vectors.T, truth, values, kept)


def captions(encoder: Encoder, data: DataSet, style: str, *, beams: int | None = None) -> Evaluation:
    """BLEU-4, ROUGE-L and CIDEr-D against the texts; in style `attributes`, how often type and colour are named
    rightly (in `attributes_zh` by the first words of zh.csv). By so many beams; None: by the model's.

    In resamples n-grams weigh what they weigh over all the pictures.
    """
    how = CaptionDecoding(beams=beams)
    made = [c.text for c in encoder.caption_images(data.images, style=style, how=how)]
    counts = {"images": len(made)}
    if style == ATTRIBUTES:
        return _attribute_captions(data, made, counts, {})
    if style == style_in(ATTRIBUTES, "zh"):
        return _attribute_captions(data, made, counts, read_translations("zh.csv"))
    references = [list(item.texts) for item in data.items]
    if not all(references):
        raise ValueError("some pictures have no text to compare a caption with")
    ngrams, ciders, rouges = (
        bleu_counts(made, references),
        cider_ds(made, references),
        rouge_ls(made, references),
    )
    figures: Figures = {
        "Bleu_4": (lambda weights: bleu_of(weights @ ngrams), len(made)),
        "CIDEr": (mean_of(ciders), len(made)),
        "ROUGE_L": (mean_of(rouges), len(made)),
    }
    worst = [
        Miss(int(i), tuple(references[i]), (made[i],), f"CIDEr-D {ciders[i]:.2f}")
        for i in np.lexsort((rouges, ciders))[:WORST]
    ]
    return Evaluation("captioning", *measured(figures), counts, pictures=(Misses("captions", worst),))


def load_translations(path: str | None) -> dict[str, list[str]]:
    return {} if path is None else read_translations(path)


ATTRIBUTES = "attributes"
NAMED = ("article_type", "base_colour")


def _attribute_captions(
    data: DataSet, made: list[str], counts: dict[str, int], words: Mapping[str, list[str]]
) -> Evaluation:
    figures: Figures = {}
    wrong: list[Miss] = []
    if not any(name in item.attributes for item in data.items for name in NAMED):
        raise ValueError(f"no picture has {' or '.join(NAMED)}, which captions in style {ATTRIBUTES} name")
    for name in NAMED:
        if not any(name in item.attributes for item in data.items):
            continue
        truth = [_in_language(item.attributes.get(name), words) for item in data.items]
        at, named = _named_rightly(made, truth)
        figures[f"names_{name}"] = mean_of(named), len(named)
        wrong += [Miss(i, (str(truth[i]),), (made[i],), name) for i in at[~named].tolist()]
    counted = Counter(miss.asked for miss in wrong)
    wrong.sort(key=lambda miss: -counted[miss.asked])  # all wrong before half wrong
    return Evaluation("captioning", *measured(figures), counts, pictures=(Misses("captions", wrong[:WORST]),))


def _in_language(value: object, words: Mapping[str, list[str]]) -> str | None:
    return None if value is None else words.get(str(value).lower(), [str(value)])[0]


def _names_rightly(captions: Sequence[str], truth: Sequence[object]) -> float:
    """Share of captions whose longest known value is the right one; "navy blue" is not "blue"."""
    _, named = _named_rightly(captions, truth)
    return float(named.mean()) if named.size else float("nan")


def _named_rightly(
    captions: Sequence[str], truth: Sequence[object]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which captions have a true value, and whether they name it."""
    known = sorted({str(v).lower() for v in truth if v is not None}, key=len, reverse=True)
    # words are set apart by spaces where letters are Latin; a Chinese one stands within others
    words = "|".join(rf"(?<!\w){re.escape(v)}(?!\w)" if is_latin(v) else re.escape(v) for v in known)
    pattern = re.compile(words)
    at = [i for i, value in enumerate(truth) if value is not None]
    named = [max(pattern.findall(captions[i]), key=len, default=None) == str(truth[i]).lower() for i in at]
    return np.array(at, dtype=np.int64), np.array(named, dtype=bool)


def _filled(template: str, item: Item) -> Values | None:
    """The attribute values that a template asks of an item, or None when one is missing."""
    names = _fields(template)
    if not all(name in item.attributes for name in names):
        return None
    return tuple((name, str(item.attributes[name])) for name in names)


def _fields(template: str) -> list[str]:
    """The attributes that a template names. ValueError for one that names none, or cannot be read."""
    try:
        names = fields_of(template)
    except ValueError as error:
        raise ValueError(f"{template!r} cannot be read as a template: {error}") from error
    if not names:
        raise ValueError(f'{template!r} names no attribute: write them in braces, "{{colour}} {{kind}}"')
    return names


def _agree(one: Values, other: Values, match: tuple[str, ...]) -> bool:
    return one == other if not match else all(dict(one)[name] == dict(other)[name] for name in match)


def _in_words(template: str, values: Mapping[str, str], translations: Mapping[str, list[str]]) -> str:
    words = {name: _translated(value, translations) for name, value in values.items()}
    said = "".join(
        before + (words[name] if name else "") for before, name, _, _ in Formatter().parse(template)
    )
    return said if is_latin(said) else said.replace(" ", "")


def _translated(value: str, translations: Mapping[str, list[str]]) -> str:
    """The value in lower case, or its first translation."""
    if not translations:
        return value.lower()
    try:
        return translations[value.lower()][0]
    except KeyError:
        raise ValueError(f"the translations have no entry for {value!r}") from None


def _curve(ranks: NDArray[np.int64], items: int) -> NDArray[np.float64]:
    """recall@k for k = 1 .. 100, or as many items as there are."""
    k = np.arange(1, min(CURVE_TO, items) + 1)
    shares: NDArray[np.float64] = (ranks[:, None] <= k).mean(axis=0)
    return shares
