"""Visual question answering: free answers by the fusion decoder, and given choices ranked by it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from search import messages as m
from search.batching import Batching
from search.lexicon import is_chinese
from search.messages import BadRequest
from textmm.encoder import Answer, Encoder

UNKNOWN = {False: "I do not know.", True: "我不知道。"}
"""By whether a question is Chinese."""


def check_asks(encoder: Encoder, request: m.AskRequest) -> None:
    """BadRequest unless the model answers questions, and choices are several."""
    if not encoder.asks:
        raise BadRequest(f"{encoder.model_id} was not trained to answer questions", "model")
    distinct = set(request.choices)
    if len(distinct) < len(request.choices):
        raise BadRequest("choices holds an answer twice", "choices")
    if len(distinct) == 1:
        raise BadRequest("choices holds one answer: give two or more to rank, or none", "choices")


def ask(
    inference: Batching | Encoder,
    images: Sequence[Image.Image],
    request: m.AskRequest,
    *,
    at_least: float,
) -> list[m.Answered]:
    """The question about each fitted picture. An answer less probable than `at_least` is not given (see
    `Calibration.answer_at_least`). Raises Overloaded."""
    if request.choices:
        ranked = inference.rank_answers(
            images, [request.question] * len(images), [request.choices] * len(images)
        )
        return [_answered(row[0], request.question, at_least, row) for row in ranked]
    answers = inference.answer(images, [request.question] * len(images))
    return [_answered(one, request.question, at_least) for one in answers]


def _answered(best: Answer, question: str, at_least: float, ranked: Sequence[Answer] = ()) -> m.Answered:
    known = best.confidence >= at_least
    return m.Answered(
        answer=best.text if known else UNKNOWN[is_chinese(question)],
        known=known,
        confidence=round(best.confidence, 6),
        choices=[m.Choice(one.text, round(one.confidence, 6)) for one in ranked],
    )
