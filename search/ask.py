"""Visual question answering: free answers by the fusion decoder, and given choices ranked by it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from search import messages as m
from search.batching import Batching
from search.messages import BadRequest
from textmm.encoder import Answer, Encoder
from textmm.tokenizers import is_latin

AT_LEAST = 0.75
"""Less probable answers are not given: mini's answers for yes or no, which are hardly better than chance, lie below."""
UNKNOWN = {True: "I do not know.", False: "我不知道。"}
"""By whether a question is written in Latin letters."""


def check_asks(encoder: Encoder) -> None:
    """BadRequest unless the model answers questions."""
    if not encoder.asks:
        raise BadRequest(f"{encoder.model_id} was not trained to answer questions", "model")


def ask(
    inference: Batching | Encoder, images: Sequence[Image.Image], request: m.AskRequest
) -> list[m.Answered]:
    """The question about each fitted picture. Raises Overloaded."""
    if request.choices:
        ranked = inference.rank_answers(
            images, [request.question] * len(images), [request.choices] * len(images)
        )
        return [_answered(row[0], request.question, row) for row in ranked]
    return [
        _answered(one, request.question) for one in inference.answer(images, [request.question] * len(images))
    ]


def _answered(best: Answer, question: str, ranked: Sequence[Answer] = ()) -> m.Answered:
    known = best.confidence >= AT_LEAST
    return m.Answered(
        answer=best.text if known else UNKNOWN[is_latin(question)],
        known=known,
        confidence=round(best.confidence, 6),
        choices=[m.Choice(one.text, round(one.confidence, 6)) for one in ranked],
    )
