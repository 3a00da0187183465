"""Product copy from a picture: a title, a short description and attributes, all of it the model's guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from search import messages as m
from search.batching import Batching
from search.classify import Classifier
from search.messages import BadRequest
from textmm.calibration import AttributeCalibration
from textmm.classify import probabilities
from textmm.encoder import Encoder
from textmm.wording import named_in

TITLE = ("title", "attributes", "photo")
DESCRIPTION = ("attributes", "photo", "title")
"""Styles of captions, in the order in which each takes the first that a model has."""


class Copywriter:
    def __init__(self, encoder: Encoder, inference: Batching | Encoder, classifier: Classifier) -> None:
        self._encoder, self._inference, self._classifier = encoder, inference, classifier

    def write(self, images: Sequence[Image.Image]) -> list[m.ProductCopy]:
        """Copy of each fitted picture. Raises BadRequest (a model without a decoder), Overloaded."""
        has = [style for style in TITLE if style in self._encoder.styles]
        if not has:
            raise BadRequest(f"{self._encoder.model_id} has no decoder: it writes nothing", "model")
        styles = [next(style for style in wanted if style in has) for wanted in (TITLE, DESCRIPTION)]
        said = {style: self._inference.caption_images(images, style=style) for style in dict.fromkeys(styles)}
        titles, descriptions = (said[style] for style in styles)
        values = {name: one.values for name, one in self._encoder.calibration.attributes.items()}
        captions = [
            [title.text, description.text] for title, description in zip(titles, descriptions, strict=True)
        ]
        return [
            m.ProductCopy(
                title=_capital(title.text),
                description=describe(description.text, attributes, values),
                attributes=attributes,
                score=round(title.score, 6),
            )
            for title, description, attributes in zip(
                titles, descriptions, self._attributes(images, captions), strict=True
            )
        ]

    def _attributes(
        self, images: Sequence[Image.Image], captions: Sequence[Sequence[str]]
    ) -> list[dict[str, m.CopyAttribute]]:
        """The likeliest value of each attribute that the model was calibrated on, where it may be told."""
        calibration = self._encoder.calibration
        told: list[dict[str, m.CopyAttribute]] = [{} for _ in images]
        if not calibration.attributes:
            return told
        rows = self._inference.encode_images(images)  # once, whatever is asked of them
        for name, one in calibration.attributes.items():
            prompts = [value.lower() for value in one.values]
            scores = rows @ self._classifier.vectors(prompts, calibration.templates).T
            likely = probabilities(scores, one.temperature)
            for i, best in enumerate(likely.argmax(1)):
                guess = m.CopyAttribute(one.values[best], float(np.round(likely[i, best], 6)))
                if may_be_told(guess, captions[i], one):
                    told[i][name] = guess
        return told


def may_be_told(guess: m.CopyAttribute, captions: Sequence[str], attribute: AttributeCalibration) -> bool:
    """Whether what recognition guesses is sure enough: the captions, which the decoder made of the picture in its own
    way, say the same; or they say nothing of it and it is as probable as it has to be.
    """
    named = [values for caption in captions if (values := named_in(caption, attribute.values))]
    if named:
        return all(guess.value in values for values in named)
    return attribute.at_least is not None and guess.probability >= attribute.at_least


def describe(
    caption: str, attributes: Mapping[str, m.CopyAttribute], values: Mapping[str, Sequence[str]]
) -> str:
    """Sentences out of a template: the caption, then each attribute of whose `values` (all that it can have) it names
    none. Nothing is added that is in neither, and nothing that contradicts the caption.
    """
    sentences = [_capital(caption)] if caption.strip() else []
    for name, one in attributes.items():
        if not named_in(caption, values[name]):
            sentences.append(f"{_capital(name.replace('_', ' '))}: {one.value}")
    return " ".join(f"{sentence.rstrip(' .')}." for sentence in sentences)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
