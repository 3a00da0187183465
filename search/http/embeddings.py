"""POST /v1/embeddings and GET /v1/models, in OpenAI's shape."""

from __future__ import annotations

import time

from flask import Blueprint, Response, request

from search import messages as m
from search.embeddings import check_model_name, embed
from search.engine import SearchEngine
from search.http.body import answer, read_json


def embeddings_blueprint(engine: SearchEngine) -> Blueprint:
    bp = Blueprint("embeddings", __name__, url_prefix="/v1")
    served = m.Model(engine.encoder.model_id, int(time.time()), dimensions=list(engine.encoder.dimensions))

    @bp.post("/embeddings")
    def post_embeddings() -> Response:
        return answer(embed(engine, read_json(request, m.EmbeddingsRequest)))

    @bp.get("/models")
    def list_models() -> Response:
        return answer(m.ModelList([served]))

    @bp.get("/models/<name>")
    def get_model(name: str) -> Response:
        check_model_name(engine, name)
        return answer(served)

    return bp
