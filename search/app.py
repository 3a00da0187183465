"""create_app(config): the engine, its blueprints, and what happens to errors."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from flask import Flask, Request, Response, g, request
from werkzeug.exceptions import HTTPException

from indexer.database import Database
from search import errors
from search import messages as m
from search.config import Config
from search.dialogue import Dialogue
from search.drawing import Drawing
from search.engine import SearchEngine, new_request_id
from search.http.body import answer
from search.http.chat import chat_blueprint
from search.http.drawing import drawing_blueprint
from search.http.embeddings import embeddings_blueprint
from search.http.health import health_blueprint
from search.http.images import KeyConverter, collections_blueprint, images_blueprint
from search.http.moderation import moderation_blueprint
from search.http.pictures import pictures_blueprint
from search.http.search import search_blueprint
from search.messages import BadRequest
from search.moderation import Moderation
from search.web.pages import pages_blueprint
from textmm.encoder import Encoder

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)


def create_app(config: Config, *, encoder: Encoder | None = None) -> Flask:
    """The application with a started engine under app.extensions["engine"]; close it with `close`.

    `encoder`: one that is loaded already. Raises WeightsMissing, DatabaseTooOld.
    """
    config.data.mkdir(parents=True, exist_ok=True)
    database = Database(config.database_url, busy_timeout_s=config.database.busy_timeout_s)
    database.upgrade()
    if encoder is None:
        model = config.model
        encoder = Encoder.load(
            model.name, config.trunks, models=config.models, device=model.device, threads=model.threads
        )
    engine = SearchEngine(config, database, encoder)
    engine.start()
    app = Flask("search", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = config.server.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = config.server.max_body_bytes
    app.url_map.merge_slashes = False  # a key with // is refused by us, not redirected
    app.url_map.converters["key"] = KeyConverter
    dialogue, moderation = Dialogue(engine), Moderation(engine)
    drawing = Drawing(config.draw, encoder, engine.load_model, engine.uploads, moderation)
    app.extensions["engine"], app.extensions["dialogue"] = engine, dialogue
    app.extensions["database"] = database
    for blueprint in (
        search_blueprint(engine),
        images_blueprint(engine),
        collections_blueprint(engine),
        embeddings_blueprint(engine),
        chat_blueprint(engine, dialogue),
        pictures_blueprint(engine),
        moderation_blueprint(moderation),
        drawing_blueprint(drawing),
        health_blueprint(engine),
        pages_blueprint(engine, draws=drawing.name is not None),
    ):
        app.register_blueprint(blueprint)
    _handle_requests(app)
    app.wsgi_app = _with_slashes(app.wsgi_app)  # type: ignore[method-assign, assignment]
    return app


def close(app: Flask) -> None:
    app.extensions["engine"].close()
    app.extensions["database"].close()


def _with_slashes(app: WSGIApplication) -> WSGIApplication:
    """cheroot leaves %2F in a path as it is; WSGI decodes it, as it does every other character of a key."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        asked: str = environ.get("REQUEST_URI", "")
        if "%2F" in environ["PATH_INFO"] and asked.startswith("/") and not environ["SCRIPT_NAME"]:
            path = asked.partition("?")[0].encode("latin-1")
            environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1")
        return app(environ, start_response)

    return call


def check_address(request: Request) -> None:
    """Raises BadRequest: a key that is not UTF-8 or holds a NUL is refused, not read as another key."""
    if any("\0" in part for part in (request.path, *request.args.values())):
        raise BadRequest("the address holds a NUL character")
    try:
        request.environ["PATH_INFO"].encode("latin-1").decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the address is not UTF-8: {request.path}") from error


def _handle_requests(app: Flask) -> None:
    @app.before_request
    def begin() -> None:
        g.request_id = new_request_id()
        check_address(request)

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response | HTTPException:
        status = error.code or 500
        if status < 400:
            return error
        code = errors.HTTP_CODES.get(status, "invalid_request" if status < 500 else "internal")
        said = error.description or error.name
        if status == 413:
            size = f"has {request.content_length} bytes" if request.content_length else "is too long"
            said = f"the body {size}, the limit is {request.max_content_length}"
        return _answer_error(status, code, said, None)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        for kind, (status, code) in errors.STATUS.items():
            if isinstance(error, kind):
                return _answer_error(status, code, str(error), errors.param_of(error))
        logger.exception("request %s failed", g.get("request_id"))
        return _answer_error(500, "internal", "something went wrong on our side; it is logged", None)


def _answer_error(status: int, code: str, message: str, param: str | None) -> Response:
    error = m.Error(
        code=code,
        type=errors.error_type(status),
        message=message,
        param=param,
        request_id=g.get("request_id"),
    )
    response: Any = answer(m.ErrorResponse(error), status)
    if status == 429:
        response.headers["Retry-After"] = "1"
    return response  # type: ignore[no-any-return]
