"""Client: the Python SDK. It needs httpx and msgspec only.

    with Client("http://127.0.0.1:8000") as client:
        for hit in client.search("black wrist watch", collection="shop").hits:
            print(hit.key, hit.score)

Errors are drawn from one root:

    ClientError
    ├── ConnectionFailed     no answer
    └── ApiError             an answer that is an error: status, code, param, request_id
        ├── InvalidRequest   400, 413, 415, 422
        ├── NotFound         404
        ├── Conflict         409
        ├── Overloaded       429: wait retry_after_s
        └── ServerFailed     500, 503

A field that cannot be right is not sent: messages.BadRequest, a ValueError, names it.
"""

from __future__ import annotations

import base64
import itertools
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from search import messages as m

T = TypeVar("T")
Picture = bytes | Path | str
"""Bytes of a picture, or the path of its file."""
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""How names of pictures end, as in textmm.sources, which a client does without."""
MOST_AT_ONCE, MOST_BYTES = 32, 16_000_000
"""Pictures of a folder go in parts of so many, and so large."""
TRIES = 10
"""Of a part, where the server is busy."""


class ClientError(Exception):
    pass


class ConnectionFailed(ClientError):
    pass


class ApiError(ClientError):
    def __init__(self, status: int, error: m.Error, retry_after_s: float | None = None) -> None:
        super().__init__(f"{error.message} ({status} {error.code})")
        self.status = status
        self.code = error.code
        self.param = error.param
        self.request_id = error.request_id
        self.retry_after_s = retry_after_s


class InvalidRequest(ApiError):
    pass


class NotFound(ApiError):
    pass


class Conflict(ApiError):
    pass


class Overloaded(ApiError):
    pass


class ServerFailed(ApiError):
    pass


_ERRORS: dict[int, type[ApiError]] = {404: NotFound, 409: Conflict, 429: Overloaded}


class Client:
    """One connection pool to one server. Use it as a context manager, or call `close`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout_s, transport=transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # -- search ----------------------------------------------------------------------------------

    def search(
        self, text: str | None = None, *, collection: str, image: Picture | None = None, **fields: Any
    ) -> m.SearchResponse:
        """Hits for words or a picture; `fields` are those of SearchRequest: image_key, vector, k, filter,
        facets, explain, target, captions, caption_style."""
        request = m.convert(m.SearchRequest, {"collection": collection, "text": text, **fields})
        return self._send("POST", "/v1/search", m.SearchResponse, request, image)

    def caption(
        self, image: Picture | None = None, *, style: str | None = None, **stored: Any
    ) -> m.CaptionResponse:
        """Of a picture, or of a stored one: collection=…, image_key=…. `language`: "zh" says its attributes in Chinese;
        `decoding`: {"beams": 1, "temperature": 0.7, …} as in Decoding."""
        request = m.convert(m.CaptionRequest, {"style": style, **stored})
        return self._send("POST", "/v1/caption", m.CaptionResponse, request, image)

    def captions(
        self, images: Picture | Sequence[Picture] = (), *, style: str | None = None, **stored: Any
    ) -> m.CaptionsResponse:
        """Of one picture or several, and of stored ones: collection=…, image_keys=[…]; in this order; language and
        decoding as in `caption`."""
        request = m.convert(m.CaptionsRequest, {"style": style, **stored})
        return self._send("POST", "/v1/captions", m.CaptionsResponse, request, *_several(images))

    def alt_text(
        self, folder: Path | str, *, format: Literal["csv", "html"] = "csv", **how: Any
    ) -> tuple[str, dict[str, str]]:
        """(alt text of all pictures in a folder and those below as CSV of key, alt, confidence, or as <img> lines; why
        some could not be read, by key). Keys are paths from the folder. `how`: style, language. A busy server is asked
        again."""
        found = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*")}
        paths = {
            key: path for key, path in found.items() if key.lower().endswith(PICTURES) and path.is_file()
        }
        keys, most = sorted(paths), MOST_AT_ONCE
        out: list[str] = []
        failed: dict[str, str] = {}
        while keys:
            sizes = itertools.accumulate(paths[key].stat().st_size for key in keys[:most])
            count = max(1, sum(size <= MOST_BYTES for size in sizes))
            batch, keys = keys[:count], keys[count:]
            names = batch if format == "csv" else [quote(key) for key in batch]
            request = m.convert(m.AltRequest, {"names": names, "format": format, **how})
            try:
                answer = self._patiently("POST", "/v1/alt", request, [paths[key] for key in batch])
            except InvalidRequest as error:
                place = re.fullmatch(r"image(?:\[(\d+)\])?", error.param or "")
                if place is not None or (error.status == 413 and len(batch) == 1):
                    failed[batch.pop(int((place and place[1]) or 0))] = str(error)
                elif error.status == 413:  # the server takes less at a time
                    most = len(batch) // 2
                else:
                    raise
                keys = batch + keys
                continue
            lines = answer.text.splitlines(keepends=True)
            out += lines[1:] if format == "csv" and out else lines
        return "".join(out), failed

    def classify(
        self,
        images: Picture | Sequence[Picture] = (),
        *,
        labels: Sequence[str],
        templates: Sequence[str] = (),
        k: int = 5,
        **stored: Any,
    ) -> m.ClassifyResponse:
        """How likely each label is for each picture, and for stored ones: collection=…, image_keys=[…]."""
        fields = {"labels": list(labels), "templates": list(templates), "k": k, **stored}
        request = m.convert(m.ClassifyRequest, fields)
        return self._send("POST", "/v1/classify", m.ClassifyResponse, request, *_several(images))

    def ask(
        self,
        images: Picture | Sequence[Picture] = (),
        *,
        question: str,
        choices: Sequence[str] = (),
        **stored: Any,
    ) -> m.AskResponse:
        """A question about one picture or several, and about stored ones: collection=…, image_keys=[…]. With choices,
        those are ranked; `language`: of the answer, "en" or "zh"."""
        request = m.convert(m.AskRequest, {"question": question, "choices": list(choices), **stored})
        return self._send("POST", "/v1/ask", m.AskResponse, request, *_several(images))

    def copy(self, images: Picture | Sequence[Picture] = (), **stored: Any) -> m.CopyResponse:
        """Product copy of pictures, and of stored ones: collection=…, image_keys=[…]. All of it is generated."""
        request = m.convert(m.CopyRequest, stored)
        return self._send("POST", "/v1/copy", m.CopyResponse, request, *_several(images))

    def draw(
        self,
        prompt: str,
        *,
        n: int = 1,
        seed: int | None = None,
        images: Picture | Sequence[Picture] = (),
        **fields: Any,
    ) -> list[m.DrawnImage]:
        """Pictures from words, the best first: PNG as base64. `images`: one to vary, or two to draw something between;
        `fields` are those of DrawRequest: model, size, strength."""
        encoded = [base64.b64encode(_bytes_of(image)).decode() for image in _several(images)]
        given = {"prompt": prompt, "n": n, "seed": seed, "image": encoded or None, **fields}
        request = m.convert(m.DrawRequest, given)
        return self._send("POST", "/v1/images/generations", m.DrawResponse, request).data

    def embed(
        self, inputs: str | Sequence[str], *, model: str, dimensions: int | None = None
    ) -> list[list[float]]:
        """A vector for each text or data URI of a picture, in order."""
        given = inputs if isinstance(inputs, str) else list(inputs)
        request = m.convert(m.EmbeddingsRequest, {"input": given, "model": model, "dimensions": dimensions})
        response = self._send("POST", "/v1/embeddings", m.EmbeddingsResponse, request)
        return [row.embedding for row in response.data if not isinstance(row.embedding, str)]

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any] | m.ChatAnswer],
        *,
        model: str,
        collection: str | None = None,
        **fields: Any,
    ) -> m.ChatResponse:
        """The answer to a conversation in OpenAI's shape, earlier answers as they came, or to one line; `fields` are
        those of ChatRequest: k, caption_style. Its hits are in choices[0].message.textmm."""
        given = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        request = m.convert(
            m.ChatRequest,
            {"model": model, "messages": msgspec.to_builtins(given), "collection": collection, **fields},
        )
        return self._send("POST", "/v1/chat/completions", m.ChatResponse, request)

    def models(self) -> list[m.Model]:
        return self._send("GET", "/v1/models", m.ModelList).data

    def look_up(
        self, image: Picture, *, banks: Sequence[str] | None = None, kinds: Sequence[m.Kind] | None = None
    ) -> m.LookupResponse:
        """Is the picture in a bank? All banks and all kinds unless they are named."""
        given = {"banks": banks, "kinds": kinds}
        request = m.convert(m.LookupRequest, {k: list(v) for k, v in given.items() if v is not None})
        return self._send("POST", "/v1/moderation/lookup", m.LookupResponse, request, image)

    # -- images ----------------------------------------------------------------------------------

    def put_image(
        self,
        collection: str,
        key: str,
        image: Picture | None = None,
        *,
        vector: Iterable[float] | None = None,
        title: str | None = None,
        texts: Sequence[str] = (),
        attributes: Mapping[str, m.AttributeValue] | None = None,
    ) -> m.Image:
        """Add a picture, or a vector where the collection holds vectors; or replace the one with this key."""
        request = m.PutImageRequest(
            vector=None if vector is None else [float(number) for number in vector],
            title=title,
            texts=list(texts),
            attributes=dict(attributes or {}),
        )
        return self._send("PUT", _image_path(collection, key), m.Image, request, image)

    def get_image(self, collection: str, key: str) -> m.Image:
        return self._send("GET", _image_path(collection, key), m.Image)

    def delete_image(self, collection: str, key: str) -> None:
        self._call("DELETE", _image_path(collection, key))

    def images(self, collection: str, *, page: int = 100) -> Iterator[m.Image]:
        """All images by key, fetched a page at a time."""
        after: str | None = ""
        while after is not None:
            query = {"after": after, "limit": page}
            answer = self._call("GET", f"{_collection_path(collection)}/images", params=query)
            listed = self._decoded(answer, m.ImageList)
            yield from listed.images
            after = listed.after

    def content(self, collection: str, key: str) -> bytes:
        return self._call("GET", _image_path(collection, key, "contents")).content

    def thumbnail(self, collection: str, key: str) -> bytes:
        return self._call("GET", _image_path(collection, key, "thumbnails")).content

    # -- collections -----------------------------------------------------------------------------

    def collections(self) -> list[m.Collection]:
        return self._send("GET", "/v1/collections", m.CollectionList).collections

    def put_collection(
        self,
        name: str,
        *,
        bank: bool | None = None,
        limits: m.LimitChanges | None = None,
        caption_style: str | None = None,
        attributes: Mapping[str, m.AttributeType | None] | None = None,
        model: Literal["external"] | None = None,
        dim: int | None = None,
    ) -> m.Collection:
        """Make it, or change what is named of the one there is. `attributes`: types that you declare. `model`
        "external": it holds vectors that you make, of `dim` numbers."""
        request = m.PutCollectionRequest(
            bank=bank,
            limits=limits,
            caption_style=caption_style,
            attributes=dict(attributes or {}),
            model=model,
            dim=dim,
        )
        return self._send("PUT", _collection_path(name), m.Collection, request)

    def get_collection(self, name: str) -> m.Collection:
        return self._send("GET", _collection_path(name), m.Collection)

    def delete_collection(self, name: str) -> None:
        self._call("DELETE", _collection_path(name))

    def is_ready(self) -> bool:
        """Whether the server answers a tiny real query just now."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    # -- the wire --------------------------------------------------------------------------------

    def _send(
        self,
        method: str,
        path: str,
        gives: type[T],
        request: m.Request | None = None,
        *images: Picture | None,
    ) -> T:
        uploads = [image for image in images if image is not None]
        return self._decoded(self._request(method, path, request, uploads), gives)

    def _patiently(
        self, method: str, path: str, request: m.Request, uploads: Sequence[Picture]
    ) -> httpx.Response:
        """As `_request`, again after the time that a busy server asks for; Overloaded when it stays so."""
        for _ in range(TRIES - 1):
            try:
                return self._request(method, path, request, uploads)
            except Overloaded as error:
                time.sleep(1.0 if error.retry_after_s is None else error.retry_after_s)
        return self._request(method, path, request, uploads)

    def _request(
        self, method: str, path: str, request: m.Request | None, uploads: Sequence[Picture]
    ) -> httpx.Response:
        body = None if request is None else m.to_json(request)
        if uploads:
            files = [("image", ("image", _bytes_of(image))) for image in uploads]
            return self._call(method, path, files=[("request", (None, body or b"{}")), *files])
        if body is not None:
            return self._call(method, path, content=body, headers={"Content-Type": "application/json"})
        return self._call(method, path)

    def _decoded(self, answer: httpx.Response, gives: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.content, type=gives)
        except msgspec.DecodeError as error:
            raise ClientError(f"{self._http.base_url}: the answer is not textmm's: {error}") from error

    def _call(self, method: str, path: str, **how: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **how)
        except httpx.TransportError as error:
            raise ConnectionFailed(f"{self._http.base_url}: {error}") from error
        if answer.is_success:
            return answer
        try:
            said = msgspec.json.decode(answer.content, type=m.ErrorResponse).error
        except msgspec.DecodeError:  # not our server: a proxy's page, say
            said = m.Error(code="unknown", type="unknown", message=answer.text[:200] or answer.reason_phrase)
        fallback = ServerFailed if answer.status_code >= 500 else InvalidRequest
        wait = answer.headers.get("Retry-After", "")
        kind = _ERRORS.get(answer.status_code, fallback)
        raise kind(answer.status_code, said, float(wait) if wait.isdigit() else None)


def _several(images: Picture | Sequence[Picture]) -> Sequence[Picture]:
    return [images] if isinstance(images, bytes | Path | str) else images


def _bytes_of(image: Picture) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def _collection_path(name: str) -> str:
    return f"/v1/collections/{_segment(name, 'collection')}"


def _image_path(collection: str, key: str, what: str = "images") -> str:
    return f"{_collection_path(collection)}/{what}/{_segment(key, 'key')}"


def _segment(name: str, param: str) -> str:
    """Part of an address. "" and dots are refused here: they would make it another's address."""
    if name in ("", ".", ".."):
        raise m.BadRequest(f"{param} must not be {name!r}", param)
    return quote(name, safe="")
