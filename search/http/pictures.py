"""POST /v1/captions, /v1/classify, /v1/ask and /v1/copy: tasks over the pictures of a request."""

from __future__ import annotations

from flask import Blueprint, Response, request

from search import messages as m
from search.ask import ask, check_asks
from search.classify import Classifier, check_labels
from search.copywriting import Copywriter
from search.engine import SearchEngine
from search.http.body import answer, read_many
from search.pictures import read_pictures


def pictures_blueprint(engine: SearchEngine) -> Blueprint:
    bp = Blueprint("pictures", __name__, url_prefix="/v1")
    classifier = Classifier(engine.encoder, engine.batching)
    copywriter = Copywriter(engine.encoder, engine.batching, classifier)

    @bp.post("/captions")
    def post_captions() -> Response:
        message, files = read_many(request, m.CaptionsRequest)
        style = engine.captioner.style_in(message.style, message.language)
        captions = engine.captioner.captions(read_pictures(engine, message, files), style)
        return answer(m.CaptionsResponse(captions, engine.encoder.model_id))

    @bp.post("/classify")
    def post_classify() -> Response:
        message, files = read_many(request, m.ClassifyRequest)
        check_labels(message.labels, message.templates or engine.encoder.calibration.templates)
        return answer(classifier.classify(read_pictures(engine, message, files), message))

    @bp.post("/ask")
    def post_ask() -> Response:
        message, files = read_many(request, m.AskRequest)
        check_asks(engine.encoder, message)
        at_least = engine.encoder.calibration.answer_at_least
        answers = ask(engine.batching, read_pictures(engine, message, files), message, at_least=at_least)
        return answer(m.AskResponse(results=answers, model_id=engine.encoder.model_id))

    @bp.post("/copy")
    def post_copy() -> Response:
        message, files = read_many(request, m.CopyRequest)
        written = copywriter.write(read_pictures(engine, message, files))
        return answer(m.CopyResponse(written, engine.encoder.model_id))

    return bp
