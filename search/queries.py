"""From a search request to the vector that asks: words, a picture, a stored picture or a vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.errors import NotFound
from indexer.store.collections import Collection
from indexer.store.images import Images
from indexer.vector_ingest import unit_rows
from search import messages as m
from search.contents import Contents
from search.messages import BadRequest
from search.models import Models
from search.uploads import Uploads

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Query:
    vector: Rows
    key: str | None = None
    """Of the stored picture that asks; it is not among its own hits."""
    picture: Callable[[], Image.Image] | None = None
    """As the model that captions takes it."""


class Queries:
    def __init__(self, models: Models, images: Images, uploads: Uploads, contents: Contents) -> None:
        self._models = models
        self._images, self._uploads, self._contents = images, uploads, contents

    def of(self, request: m.SearchRequest, image: bytes | None, collection: Collection) -> Query:
        """`image`: the bytes of an uploaded picture.

        Raises BadRequest (not exactly one thing that asks), NotFound, ImageUnreadable, ImageTooLarge, Overloaded.
        """
        picture = request.image if image is None else image
        given = {
            "text": request.text,
            "image": picture,
            "image_key": request.image_key,
            "vector": request.vector,
        }
        names = [name for name, value in given.items() if value is not None]
        if len(names) != 1 or (image is not None and request.image is not None):
            raise BadRequest(
                f"give exactly one of text, image, image_key, vector; got {' and '.join(names) or 'none'}"
            )
        if collection.is_external and names[0] in ("text", "image"):
            raise BadRequest(
                f"collection {collection.name!r} holds vectors that its owner made, which {names[0]} cannot be "
                "compared with: search by vector or image_key",
                names[0],
            )
        if request.text is not None:
            return Query(self._encode_text(request.text, collection))
        if request.vector is not None:
            return Query(self._checked_vector(request.vector, collection))
        if request.image_key is not None:
            return self._stored(collection, request.image_key)
        assert picture is not None
        decoded, served = self._uploads.decode(self._uploads.bytes_of(picture)), self._models.of(collection)
        own = self._models.own.encoder
        vector = served.batching.encode_images([served.encoder.fit(decoded)])[0]
        return Query(vector, picture=lambda: own.fit(decoded))

    def _encode_text(self, text: str, collection: Collection) -> Rows:
        if not text.strip():
            raise BadRequest("text is empty", "text")
        row: Rows = self._models.of(collection).batching.encode_texts([text])[0]
        return row

    def _checked_vector(self, vector: list[float], collection: Collection) -> Rows:
        generation = collection.generation
        own = self._models.own.encoder
        dim = own.embed_dim if generation is None else generation.embed_dim
        if len(vector) != dim:
            model = own.model_id if generation is None else generation.model_id
            others = f"those of collection {collection.name!r} have"
            makes = others if collection.is_external else f"{model} makes"
            raise BadRequest(f"vector has {len(vector)} numbers, {makes} {dim}", "vector")
        row: Rows = unit_rows(np.array(vector, dtype=np.float64)[None])[0]
        if np.isnan(row[0]):
            raise BadRequest("vector must be finite and not zero", "vector")
        return row

    def _stored(self, collection: Collection, key: str) -> Query:
        record = self._images.get(collection.collection_id, key)
        assert collection.generation is not None
        vector = self._images.vector(record.image_id, collection.generation.generation_id)
        if vector is None:
            raise NotFound("image", key)

        if record.sha256 is None:
            return Query(vector, key=key)

        def picture() -> Image.Image:
            try:
                return self._models.own.encoder.fit(self._uploads.decode(self._contents.read(record)))
            except OSError as error:
                raise NotFound("image", key) from error

        return Query(vector, key=key, picture=picture)
