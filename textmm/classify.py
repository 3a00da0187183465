"""Recognition without training: labels become prompts, prompts vectors, cosines probabilities.

After CLIP (Radford et al. 2021, section 3.1.4): the vectors of a label's prompts are averaged and normalised again.
"""

# n pictures, L labels, E embed_dim

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from textmm import metrics

Rows = NDArray[np.float32]
Probabilities = NDArray[np.float64]


def check_template(template: str) -> None:
    """ValueError unless `{}` stands in it once and nothing else in braces does."""
    if template.count("{}") != 1 or {"{", "}"} & set(template.replace("{}", "")):
        raise ValueError(
            f"template {template!r} must hold {{}} once, where the label goes, and no other brace"
        )


def label_vectors(
    encode_texts: Callable[[Sequence[str]], Rows], labels: Sequence[str], templates: Sequence[str]
) -> Rows:
    """[L, E], L2-normalised: the mean direction of each label's prompts. Labels are said as they are written."""
    rows = encode_texts([template.replace("{}", label) for label in labels for template in templates])
    means = rows.reshape(len(labels), len(templates), -1).mean(1)
    vectors: Rows = means / np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
    return vectors


def probabilities(scores: NDArray[np.floating], temperature: float) -> Probabilities:
    """Softmax of cosines [n, L] over the labels, divided by `temperature` first; rows sum to 1."""
    return metrics.probabilities(scores, 1 / temperature)
