"""Recognition: how likely each label of any set is for a picture."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search import messages as m
from search.batching import Batching
from search.errors import TooLarge
from search.messages import BadRequest
from textmm.classify import check_template, label_vectors, probabilities
from textmm.encoder import Encoder

Rows = NDArray[np.float32]
Prompts = tuple[tuple[str, ...], tuple[str, ...]]
"""Labels and templates."""

KEPT_SETS = 32
"""Label sets whose vectors are kept; the largest is 1.5 MB with 384 numbers."""
MAX_PROMPTS = 4096
"""Labels times templates of a request."""
PROMPTS_AT_ONCE = 64
"""A large label set goes through the queue in parts, so that others get their turn between them."""


class Classifier:
    def __init__(self, encoder: Encoder, inference: Batching | Encoder) -> None:
        """`inference`: what encodes, the queue of a server or the encoder itself."""
        self.encoder, self._inference = encoder, inference
        self._kept: OrderedDict[Prompts, Rows] = OrderedDict()
        self._lock = threading.Lock()

    def classify(self, images: Sequence[Image.Image], request: m.ClassifyRequest) -> m.ClassifyResponse:
        """The k likeliest labels of each fitted picture; the labels are checked. Raises Overloaded."""
        calibration = self.encoder.calibration
        templates = request.templates or list(calibration.templates)
        scores = self.scores(images, request.labels, templates)
        likely = probabilities(scores, calibration.temperature)
        return m.ClassifyResponse(
            results=[
                m.Classified(_best(request.labels, *rows, request.k))
                for rows in zip(likely, scores, strict=True)
            ],
            model_id=self.encoder.model_id,
            temperature=calibration.temperature,
            templates=templates,
        )

    def scores(
        self, images: Sequence[Image.Image], labels: Sequence[str], templates: Sequence[str]
    ) -> NDArray[np.float32]:
        """Cosines [n, L] of fitted pictures with labels. Raises Overloaded."""
        found: NDArray[np.float32] = self._inference.encode_images(images) @ self.vectors(labels, templates).T
        return found

    def vectors(self, labels: Sequence[str], templates: Sequence[str]) -> Rows:
        """[L, embed_dim] of a label set, encoded once while it is among the sets asked for last. Raises Overloaded."""
        prompts = tuple(labels), tuple(templates)
        with self._lock:
            if prompts in self._kept:
                self._kept.move_to_end(prompts)
                return self._kept[prompts]
        vectors = label_vectors(self._encode_in_parts, *prompts)
        with self._lock:
            self._kept[prompts] = vectors
            while len(self._kept) > KEPT_SETS:
                self._kept.popitem(last=False)
        return vectors

    def _encode_in_parts(self, texts: Sequence[str]) -> Rows:
        starts = range(0, len(texts), PROMPTS_AT_ONCE)
        return np.concatenate([self._inference.encode_texts(texts[i : i + PROMPTS_AT_ONCE]) for i in starts])


def check_labels(labels: Sequence[str], templates: Sequence[str]) -> None:
    """Raises BadRequest (an empty label, one given twice, a template without {}), TooLarge."""
    for i, label in enumerate(labels):
        if not label.strip():
            raise BadRequest(f"labels[{i}] is empty", f"labels[{i}]")
    if len(set(labels)) < len(labels):
        twice = next(label for i, label in enumerate(labels) if label in labels[:i])
        raise BadRequest(f"labels hold {twice!r} twice", "labels")
    for i, template in enumerate(templates):
        try:
            check_template(template)
        except ValueError as error:
            raise BadRequest(f"templates[{i}]: {error}", f"templates[{i}]") from error
    if len(labels) * len(templates) > MAX_PROMPTS:
        raise TooLarge(
            f"{len(labels)} labels in {len(templates)} templates are {len(labels) * len(templates)} prompts, "
            f"the limit is {MAX_PROMPTS}",
            "labels",
        )


def _best(
    labels: Sequence[str], likely: NDArray[np.float64], scores: NDArray[np.float32], k: int
) -> list[m.LabelProbability]:
    order = np.argsort(-likely, kind="stable")[:k]
    return [
        m.LabelProbability(labels[i], round(float(likely[i]), 6), round(float(scores[i]), 6)) for i in order
    ]
