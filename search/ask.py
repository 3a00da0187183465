"""Visual question answering: free answers by the fusion decoder, and given choices ranked by it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from search import messages as m
from search.batching import Batching
from search.lexicon import is_chinese
from search.messages import BadRequest
from textmm.calibration import Calibration
from textmm.encoder import Answer, Encoder
from textmm.questions import answer_in

UNKNOWN = {False: "I do not know.", True: "我不知道。"}
"""By whether the answer is to be Chinese."""


def check_asks(encoder: Encoder, request: m.AskRequest) -> None:
    """BadRequest unless the model answers questions, and choices are several."""
    if not encoder.asks:
        raise BadRequest(f"{encoder.model_id} was not trained to answer questions", "model")
    if not request.question.strip():
        raise BadRequest("question is blank", "question")
    distinct = {choice.casefold() for choice in request.choices}
    if len(distinct) < len(request.choices):
        raise BadRequest("choices holds an answer twice", "choices")
    if len(distinct) == 1:
        raise BadRequest("choices holds one answer: give two or more to rank, or none", "choices")


def ask(
    inference: Batching | Encoder,
    images: Sequence[Image.Image],
    request: m.AskRequest,
    *,
    calibration: Calibration,
) -> list[m.Answered]:
    """The question about each fitted picture. An answer less probable than the calibration asks for is not given.
    Raises Overloaded."""
    chinese = is_chinese(request.question) if request.language is None else request.language == "zh"
    if request.choices:
        ranked = inference.rank_answers(
            images, [request.question] * len(images), [request.choices] * len(images)
        )
        return [_answered(row[0].text, row, calibration, chinese) for row in ranked]
    answers = inference.answer(images, [request.question] * len(images))
    return [
        _answered(answer_in(one.text, _language(chinese)), [one], calibration, chinese) for one in answers
    ]


def _language(chinese: bool) -> str:
    return "zh" if chinese else "en"


def _answered(text: str, ranked: Sequence[Answer], calibration: Calibration, chinese: bool) -> m.Answered:
    """`ranked`: the choices, the likeliest first, or the one free answer."""
    best, sayable = ranked[0], sum(one.free for one in ranked)
    known = best.confidence >= calibration.answer_at_least
    known = known and (len(ranked) == 1 or sayable >= calibration.choices_at_least)
    return m.Answered(
        answer=text if known else UNKNOWN[chinese],
        known=known,
        confidence=round(best.confidence, 6),
        choices=[m.Choice(one.text, round(one.confidence, 6)) for one in ranked] if len(ranked) > 1 else [],
    )
