"""POST /v1/captions, /v1/alt, /v1/classify, /v1/ask and /v1/copy: tasks over the pictures of a request."""

from __future__ import annotations

from flask import Blueprint, Response, request

from search import messages as m
from search.alt_text import AltText, csv_header, csv_line, img_line
from search.ask import ask, check_asks
from search.classify import Classifier, check_labels
from search.copywriting import Copywriter
from search.engine import SearchEngine
from search.http.body import answer, read_many
from search.messages import BadRequest
from search.pictures import read_pictures


def pictures_blueprint(engine: SearchEngine) -> Blueprint:
    bp = Blueprint("pictures", __name__, url_prefix="/v1")
    classifier = Classifier(engine.encoder, engine.batching)
    copywriter = Copywriter(engine.encoder, engine.batching, classifier)

    @bp.post("/captions")
    def post_captions() -> Response:
        message, files = read_many(request, m.CaptionsRequest)
        style = engine.captioner.style_in(message.style, message.language)
        captions = engine.captioner.captions(read_pictures(engine, message, files), style, message.decoding)
        return answer(m.CaptionsResponse(captions, engine.encoder.model_id))

    @bp.post("/alt")
    def post_alt() -> Response:
        message, files = read_many(request, m.AltRequest)
        style = engine.captioner.style_in(message.style, message.language)
        pictures = read_pictures(engine, message, files)
        names = message.names or names_of(message, len(pictures))
        if len(names) != len(pictures):
            raise BadRequest(f"{len(pictures)} pictures need a name each, got {len(names)}", "names")
        captions = engine.captioner.captions(pictures, style)
        texts = [AltText(name, c.text, c.score) for name, c in zip(names, captions, strict=True)]
        if message.format == "html":
            lines = (img_line(text, address=bool(message.names)) for text in texts)
            return Response("".join(lines), mimetype="text/html")
        return Response(csv_header() + "".join(map(csv_line, texts)), mimetype="text/csv")

    @bp.post("/classify")
    def post_classify() -> Response:
        message, files = read_many(request, m.ClassifyRequest)
        check_labels(message.labels, message.templates or engine.encoder.calibration.templates)
        return answer(classifier.classify(read_pictures(engine, message, files), message))

    @bp.post("/ask")
    def post_ask() -> Response:
        message, files = read_many(request, m.AskRequest)
        check_asks(engine.encoder, message)
        pictures = read_pictures(engine, message, files)
        answers = ask(engine.batching, pictures, message, calibration=engine.encoder.calibration)
        return answer(m.AskResponse(results=answers, model_id=engine.encoder.model_id))

    @bp.post("/copy")
    def post_copy() -> Response:
        message, files = read_many(request, m.CopyRequest)
        written = copywriter.write(read_pictures(engine, message, files))
        return answer(m.CopyResponse(written, engine.encoder.model_id))

    return bp


def names_of(message: m.AltRequest, count: int) -> list[str]:
    """Of pictures that the request does not name: uploads by their number, stored ones by their key."""
    uploads = count - len(message.image_keys)
    return [*(f"image-{i}" for i in range(1, uploads + 1)), *message.image_keys]
