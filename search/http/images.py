"""Collections, their images, the bytes and the thumbnails."""

from __future__ import annotations

import re

from flask import Blueprint, Response, request
from werkzeug.routing import PathConverter

from indexer.errors import NotFound
from search import messages as m
from search.engine import SearchEngine
from search.http.body import answer, read, read_json
from search.messages import BadRequest
from textmm.transforms import media_type


class KeyConverter(PathConverter):
    """Anything, slashes and line breaks included: the answer says what is wrong with such a key."""

    part_isolating = False
    regex = r"[\s\S]+?"


def images_blueprint(engine: SearchEngine) -> Blueprint:
    bp = Blueprint("images", __name__, url_prefix="/v1/collections")

    @bp.get("/<collection>/images")
    def list_images(collection: str) -> Response:
        limit = request.args.get("limit", "100")
        if not re.fullmatch(r"[0-9]{1,9}", limit):
            raise BadRequest(f"limit must be a number, got {limit[:20]!r}", "limit")
        return answer(
            engine.catalogue.list_images(collection, after=request.args.get("after", ""), limit=int(limit))
        )

    @bp.put("/<collection>/images/<key:key>")
    def put_image(collection: str, key: str) -> Response:
        message, image = read(request, m.PutImageRequest)
        record, new = engine.catalogue.put_image(collection, key, message, image=image)
        return answer(record, 201 if new else 200)

    @bp.get("/<collection>/images/<key:key>")
    def get_image(collection: str, key: str) -> Response:
        return answer(engine.catalogue.get_image(collection, key))

    @bp.delete("/<collection>/images/<key:key>")
    def delete_image(collection: str, key: str) -> Response:
        if not engine.catalogue.delete_images(collection, [key]):
            raise NotFound("image", key)
        return Response(status=204)

    @bp.get("/<collection>/contents/<key:key>", defaults={"thumbnail": False})
    @bp.get("/<collection>/thumbnails/<key:key>", defaults={"thumbnail": True})
    def get_bytes(collection: str, key: str, thumbnail: bool) -> Response:
        data, digest = engine.catalogue.content(collection, key, thumbnail=thumbnail)
        response = Response(data, mimetype=media_type(data))
        response.set_etag(digest)
        response.cache_control.no_cache = True  # ask each time: a replaced picture keeps its address
        response.headers["Content-Security-Policy"] = "default-src 'none'"
        response.make_conditional(request)
        return response

    return bp


def collections_blueprint(engine: SearchEngine) -> Blueprint:
    bp = Blueprint("collections", __name__, url_prefix="/v1/collections")

    @bp.get("")
    def list_collections() -> Response:
        return answer(engine.catalogue.list_collections())

    @bp.put("/<name>")
    def put_collection(name: str) -> Response:
        message = read_json(request, m.PutCollectionRequest)
        made, new = engine.catalogue.put_collection(name, message)
        return answer(made, 201 if new else 200)

    @bp.get("/<name>")
    def get_collection(name: str) -> Response:
        return answer(engine.catalogue.collection_message(engine.collections.get(name)))

    @bp.delete("/<name>")
    def delete_collection(name: str) -> Response:
        engine.catalogue.delete_collection(name)
        return Response(status=204)

    return bp
