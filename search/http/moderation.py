"""POST /v1/moderation/lookup."""

from __future__ import annotations

from flask import Blueprint, Response, request

from search import messages as m
from search.http.body import answer, read
from search.moderation import Moderation


def moderation_blueprint(moderation: Moderation) -> Blueprint:
    bp = Blueprint("moderation", __name__, url_prefix="/v1/moderation")

    @bp.post("/lookup")
    def post_lookup() -> Response:
        message, image = read(request, m.LookupRequest)
        return answer(moderation.look_up(message, image=image))

    return bp
