"""Product copy from a picture: a title, a short description and attributes, all of it the model's guess."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from search import messages as m
from search.batching import Batching
from search.classify import Classifier
from search.messages import BadRequest
from textmm.classify import probabilities
from textmm.encoder import Caption, Encoder

STYLES = ("title", "attributes", "photo")
"""In the order in which a title takes what there is."""


class Copywriter:
    def __init__(self, encoder: Encoder, inference: Batching | Encoder, classifier: Classifier) -> None:
        self._encoder, self._inference, self._classifier = encoder, inference, classifier

    def write(self, images: Sequence[Image.Image]) -> list[m.ProductCopy]:
        """Copy of each fitted picture. Raises BadRequest (a model without a decoder), Overloaded."""
        styles = [style for style in STYLES if style in self._encoder.styles]
        if not styles:
            raise BadRequest(f"{self._encoder.model_id} has no decoder: it writes nothing", "model")
        attributes = self._attributes(images)
        said = {style: self._inference.caption_images(images, style=style) for style in styles}
        return [
            _copy({style: captions[i] for style, captions in said.items()}, attributes[i])
            for i in range(len(images))
        ]

    def _attributes(self, images: Sequence[Image.Image]) -> list[dict[str, m.CopyAttribute]]:
        """The likeliest value of each attribute that the model was calibrated on, where it is likely enough."""
        calibration = self._encoder.calibration
        told: list[dict[str, m.CopyAttribute]] = [{} for _ in images]
        for name, one in calibration.attributes.items():
            prompts = [value.lower() for value in one.values]
            scores = self._classifier.scores(images, prompts, calibration.templates)
            likely = probabilities(scores, one.temperature)
            for i, best in enumerate(likely.argmax(1)):
                probability = float(np.round(likely[i, best], 6))
                if probability >= one.at_least:
                    told[i][name] = m.CopyAttribute(one.values[best], probability)
        return told


def _copy(captions: Mapping[str, Caption], attributes: dict[str, m.CopyAttribute]) -> m.ProductCopy:
    title = next(captions[style] for style in STYLES if style in captions)
    return m.ProductCopy(
        title=_capital(title.text),
        description=describe({style: one.text for style, one in captions.items()}, attributes),
        attributes=attributes,
        score=round(title.score, 6),
    )


def describe(captions: Mapping[str, str], attributes: Mapping[str, m.CopyAttribute]) -> str:
    """Sentences out of a template: the caption in style attributes (without it, the one in style photo), then each
    attribute whose value it does not hold. Nothing is added that is in neither.
    """
    said = captions.get("attributes") or captions.get("photo") or captions.get("title") or ""
    sentences = [_capital(said)] if said.strip() else []
    for name, one in attributes.items():
        if not re.search(
            rf"(?<!\w){re.escape(one.value)}(?!\w)", said, re.IGNORECASE
        ):  # men are not in women
            sentences.append(f"{_capital(name.replace('_', ' '))}: {one.value}")
    return " ".join(f"{sentence.rstrip(' .')}." for sentence in sentences)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
