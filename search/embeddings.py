"""Vectors for other services, in OpenAI's shape: texts, and pictures as data URIs."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.errors import NotFound
from search import messages as m
from search.engine import SearchEngine
from search.errors import InputTooLarge, InputUnreadable, TooLarge
from search.messages import BadRequest
from search.uploads import is_data_uri
from textmm.encoder import shortened
from textmm.transforms import ImageTooLarge, ImageUnreadable

Rows = NDArray[np.float32]


def embed(engine: SearchEngine, request: m.EmbeddingsRequest) -> m.EmbeddingsResponse:
    """One vector an input, in order; a bad picture is an error that names its place, and nobody else's
    request.

    Raises NotFound (another model), BadRequest, TooLarge, ImageUnreadable, ImageTooLarge, Overloaded.
    """
    check_model_name(engine, request.model)
    inputs = _inputs(request, engine.config.server.max_inputs)
    dimensions = request.dimensions or engine.encoder.embed_dim
    if dimensions > engine.encoder.embed_dim:
        raise BadRequest(
            f"dimensions is {dimensions}, {engine.encoder.model_id} makes {engine.encoder.embed_dim}",
            "dimensions",
        )
    if len(engine.encoder.dimensions) > 1 and dimensions not in engine.encoder.dimensions:
        sizes = ", ".join(map(str, engine.encoder.dimensions))
        raise BadRequest(
            f"dimensions is {dimensions}; {engine.encoder.model_id} was trained for {sizes}", "dimensions"
        )
    pictures = [i for i, one in enumerate(inputs) if request.modality == "image" or _is_picture(request, one)]
    texts = sorted(set(range(len(inputs))) - set(pictures))
    rows = np.empty((len(inputs), engine.encoder.embed_dim), dtype=np.float32)
    if pictures:
        rows[pictures] = engine.batching.encode_images(
            [_picture(engine, inputs[i], f"input[{i}]") for i in pictures]
        )
    tokens = 0
    if texts:
        said = [inputs[i] for i in texts]
        rows[texts] = engine.batching.encode_texts(said)
        tokens = sum(engine.encoder.count_tokens(said))
    return m.EmbeddingsResponse(
        data=[m.EmbeddingRow(i, _coded(row, request)) for i, row in enumerate(shortened(rows, dimensions))],
        model=engine.encoder.model_id,
        usage=m.Usage(tokens, tokens),
    )


def model_names(engine: SearchEngine) -> tuple[str, ...]:
    """What the model that is served may be called by: its id, its id without the hash, and as the settings name it."""
    model_id = engine.encoder.model_id
    return model_id, model_id.rpartition("-")[0], engine.config.model.name


def check_model_name(engine: SearchEngine, name: str) -> None:
    """Raises NotFound unless the name is one of the model that is served."""
    if name not in model_names(engine):
        raise NotFound("model", name)


def _inputs(request: m.EmbeddingsRequest, most: int) -> list[str]:
    given = [request.input] if isinstance(request.input, str) else request.input
    inputs = [one for one in given if isinstance(one, str)]
    if len(inputs) != len(given):
        raise BadRequest("input holds token ids; this model has other tokens: send texts", "input")
    if not inputs:
        raise BadRequest("input is empty", "input")
    if len(inputs) > most:
        raise TooLarge(f"input has {len(inputs)} entries, the limit is {most}", "input")
    empty = next((i for i, one in enumerate(inputs) if not one.strip()), None)
    if empty is not None:
        raise BadRequest(f"input[{empty}] is an empty text", f"input[{empty}]")
    return inputs


def _is_picture(request: m.EmbeddingsRequest, text: str) -> bool:
    return request.modality is None and is_data_uri(text)


def _picture(engine: SearchEngine, text: str, param: str) -> Image.Image:
    try:
        return engine.encoder.fit(engine.uploads.decode(engine.uploads.bytes_of(text, param)))
    except ImageUnreadable as error:
        raise InputUnreadable(error, param) from error
    except ImageTooLarge as error:
        raise InputTooLarge(error, param) from error


def _coded(row: Rows, request: m.EmbeddingsRequest) -> list[float] | str:
    """Numbers, or little-endian float32 in base64."""
    if request.encoding_format == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")
    numbers: list[float] = row.tolist()
    return numbers
