"""POST /v1/images/generations: pictures from words, in OpenAI's shape."""

from __future__ import annotations

from flask import Blueprint, Response, request

from search import messages as m
from search.drawing import Drawing
from search.http.body import answer, read_json


def drawing_blueprint(drawing: Drawing) -> Blueprint:
    bp = Blueprint("drawing", __name__, url_prefix="/v1/images")

    @bp.post("/generations")
    def post_generations() -> Response:
        return answer(drawing.draw(read_json(request, m.DrawRequest)))

    return bp
