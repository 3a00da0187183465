"""Figures of a model on pictures that it does not train on, and whether one is better than another."""

# n pictures, m texts, E embed_dim

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from textmm.metrics import recall_at_k
from textmm.model import TextMultiModalModel
from textmm.pairs import Ints, Pairs, PairSource
from textmm.phrases import Phrases
from textmm.recipe import RECALL, Stage, Validation
from textmm.sources import SourceError
from textmm.trunk_cache import TrunkInputs

MOST = 2000
"""Pictures looked at, spread over the source; a look is to cost little beside the steps between two."""
CHUNK = 64


def read_pairs(
    validation: Validation,
    stage: Stage,
    *,
    data: Path,
    drawings: Path,
    seed: int,
    questions: str = "",
    phrases: Sequence[Phrases] = (),
) -> Pairs:
    """Pictures, texts and questions of the validation source. Raises SourceError."""
    source = PairSource(
        source=validation.source,
        share=1.0 if stage.contrastive_loss_weight else 0.0,
        caption_share=1.0 if stage.caption_loss_weight else 0.0,
        question_share=1.0 if stage.question_loss_weight else 0.0,
        question_column=validation.question_column,
        answer_column=validation.answer_column,
        text_column=validation.text_column,
        phrase_share=validation.phrase_share,
        views=1,
        style=validation.style,
    )
    pairs = Pairs((source,), phrases, data=data, drawings=drawings, seed=seed, questions=questions)
    if validation.metric == RECALL and not any(item.texts for item in pairs.items):
        raise SourceError(
            f'{validation.source}: its pictures have no texts, which recall@10 asks with: validate.metric = "loss"'
        )
    return pairs


@torch.no_grad()
def recall_at_10(model: TextMultiModalModel, inputs: TrunkInputs, pairs: Pairs) -> float:
    """Recall@10 of pictures by their texts and of texts by their pictures, mean of the two, 0..1.

    Every picture with a text is a right answer for it. The model is in evaluation mode.
    """
    picture_ids = spread(pairs)
    own = {
        text: row
        for row, text in enumerate(dict.fromkeys(t for i in picture_ids for t in pairs.items[i].texts))
    }
    relevant = np.zeros((len(own), len(picture_ids)), dtype=bool)
    for column, i in enumerate(picture_ids):
        relevant[[own[text] for text in pairs.items[i].texts], column] = True
    ids = {text: i for i, text in enumerate(pairs.texts)}
    text_ids = np.array([ids[text] for text in own])
    pictures = torch.cat(
        [model.image.project(inputs.pictures(c, None, memory=False)) for c in _chunks(picture_ids)]
    )
    texts = torch.cat([model.text.project(inputs.texts(c)) for c in _chunks(text_ids)])
    scores = (texts @ pictures.T).cpu().numpy()  # [m, n]
    if not np.isfinite(scores).all():
        raise FloatingPointError("validation: vectors are no numbers any more")
    told = relevant.any(0)
    by_text = recall_at_k(scores, relevant, min(10, scores.shape[1]))
    by_picture = recall_at_k(scores.T[told], relevant.T[told], min(10, scores.shape[0]))
    return (by_text + by_picture) / 2


def spread(pairs: Pairs) -> Ints:
    """At most MOST pictures, evenly over all."""
    count = len(pairs.items)
    return np.arange(0, count, max(1, -(-count // MOST)))


def is_better(metric: str, figure: float, best: float | None) -> bool:
    """Whether `figure` is better than the best so far: a lower loss, a higher recall."""
    return best is None or (figure < best if metric == "loss" else figure > best)


def _chunks(ids: Ints) -> list[Ints]:
    return [ids[i : i + CHUNK] for i in range(0, len(ids), CHUNK)]
