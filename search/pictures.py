"""The pictures that a request is about: uploads and stored ones, decoded and fitted, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image

from search import messages as m
from search.engine import SearchEngine
from search.errors import InputTooLarge, InputUnreadable, TooLarge
from search.messages import BadRequest
from textmm.transforms import ImageTooLarge, ImageUnreadable


def read_pictures(
    engine: SearchEngine, request: m.PicturesRequest, files: Sequence[bytes] = ()
) -> list[Image.Image]:
    """`files`: uploaded ones, which come first; then `image`, `images` and `image_keys`.

    A picture that cannot be read is an error that names its place, and nobody else's request. Raises BadRequest,
    TooLarge, NotFound, InputUnreadable, InputTooLarge.
    """
    count = len(files) + (request.image is not None) + len(request.images) + len(request.image_keys)
    if count == 0:
        raise BadRequest("give image, images, or collection and image_keys", "image")
    if bool(request.image_keys) != (request.collection is not None):
        raise BadRequest("collection and image_keys go together", "image_keys")
    most = engine.config.server.max_inputs
    if count > most:
        raise TooLarge(f"the request has {count} pictures, the limit is {most}", "images")
    return [_fitted(engine, data, param) for param, data in _all_bytes(engine, request, files)]


def _all_bytes(
    engine: SearchEngine, request: m.PicturesRequest, files: Sequence[bytes]
) -> Iterator[tuple[str, bytes]]:
    """(the field that names it, its bytes), one at a time: not all of them lie in memory decoded from base64."""
    for i, file in enumerate(files):
        param = "image" if len(files) == 1 else f"image[{i}]"
        yield param, engine.uploads.bytes_of(file, param)
    if request.image is not None:
        yield "image", engine.uploads.bytes_of(request.image)
    for i, image in enumerate(request.images):
        yield f"images[{i}]", engine.uploads.bytes_of(image, f"images[{i}]")
    if request.image_keys:
        name = engine.collections.get(request.collection or "").name
        for i, key in enumerate(request.image_keys):
            yield f"image_keys[{i}]", _stored(engine, name, key)


def _stored(engine: SearchEngine, collection: str, key: str) -> bytes:
    data, _ = engine.catalogue.content(collection, key, thumbnail=False)
    return data


def _fitted(engine: SearchEngine, data: bytes, param: str) -> Image.Image:
    try:
        return engine.encoder.fit(engine.uploads.decode(data))
    except ImageUnreadable as error:
        raise InputUnreadable(error, param) from error
    except ImageTooLarge as error:
        raise InputTooLarge(error, param) from error
