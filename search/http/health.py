"""/livez: the process runs. /readyz: a tiny real query just worked. /metrics: for Prometheus. /openapi.json."""

from __future__ import annotations

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from search.engine import SearchEngine
from search.errors import NotReady
from search.metrics import exposition
from search.openapi import document


def health_blueprint(engine: SearchEngine) -> Blueprint:
    bp = Blueprint("health", __name__)

    @bp.get("/livez")
    def live() -> Response:
        return Response("ok", mimetype="text/plain")

    @bp.get("/readyz")
    def ready() -> Response:
        try:
            engine.check_ready()
        except NotReady as error:
            return Response(f"{error}\n", 503, mimetype="text/plain")
        return Response("ok", mimetype="text/plain")

    @bp.get("/metrics")
    def metrics() -> Response:
        names = {one.collection_id: one.name for one in engine.collections.all()}
        return Response(exposition(engine.live.views(), names), content_type=CONTENT_TYPE_PLAIN_0_0_4)

    @bp.get("/openapi.json")
    def openapi() -> Response:
        return Response(document(), mimetype="application/json")

    return bp
