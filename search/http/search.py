"""POST /v1/search and POST /v1/caption."""

from __future__ import annotations

from flask import Blueprint, Response, g, request

from search import messages as m
from search.engine import SearchEngine
from search.http.body import answer, read
from search.messages import BadRequest


def search_blueprint(engine: SearchEngine) -> Blueprint:
    bp = Blueprint("search", __name__, url_prefix="/v1")

    @bp.post("/search")
    def post_search() -> Response:
        message, image = read(request, m.SearchRequest)
        found = engine.search(message, image=image)
        found.request_id = g.request_id  # the one in the header and the log
        return answer(found)

    @bp.post("/caption")
    def post_caption() -> Response:
        message, image = read(request, m.CaptionRequest)
        return answer(caption(engine, message, image))

    return bp


def caption(engine: SearchEngine, message: m.CaptionRequest, image: bytes | None) -> m.CaptionResponse:
    """Of an upload, or of a stored picture by collection and image_key."""
    stored = message.image_key is not None
    uploaded = image if image is not None else message.image
    if stored == (uploaded is not None) or stored != (message.collection is not None):
        raise BadRequest("give either image, or collection and image_key", "image")
    style = engine.captioner.style_in(message.style, message.language)
    if uploaded is not None:
        picture = engine.uploads.decode(engine.uploads.bytes_of(uploaded))
        made = engine.captioner.caption(picture, style, message.decoding)
        return m.CaptionResponse(made, engine.encoder.model_id)
    if message.decoding is not None:
        raise BadRequest("decoding goes with image: captions of stored pictures are remembered", "decoding")
    found = engine.catalogue.stored_caption(message.collection or "", message.image_key or "", style)
    return m.CaptionResponse(found, engine.encoder.model_id)
