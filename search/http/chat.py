"""POST /v1/chat/completions, in OpenAI's shape."""

from __future__ import annotations

from flask import Blueprint, Response, request

from search import messages as m
from search.chat import chat, chunks
from search.dialogue import Dialogue
from search.engine import SearchEngine
from search.http.body import answer, read_json


def chat_blueprint(engine: SearchEngine, dialogue: Dialogue) -> Blueprint:
    bp = Blueprint("chat", __name__, url_prefix="/v1/chat")

    @bp.post("/completions")
    def post_completions() -> Response:
        message = read_json(request, m.ChatRequest)
        response = chat(engine, dialogue, message)  # whole before the first event: an error keeps its status
        if not message.stream:
            return answer(response)
        usage = message.stream_options is not None and message.stream_options.include_usage
        events = Response(chunks(response, usage=usage), mimetype="text/event-stream")
        events.headers["Cache-Control"] = "no-cache"
        return events

    return bp
