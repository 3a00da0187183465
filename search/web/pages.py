"""GET and POST /: the page. It is rendered here and works without scripts; page.js makes it quicker to use."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from flask import Blueprint, Request, Response, render_template, request, send_from_directory, url_for
from werkzeug.exceptions import RequestEntityTooLarge

from indexer.conditions import AllOf, Compare
from indexer.facets import MOST_VALUES
from indexer.filter_text import written
from indexer.hashing import sha256
from indexer.store.collections import EXTERNAL
from search import messages as m
from search.engine import SearchEngine
from search.errors import STATUS, TooLarge
from search.messages import BadRequest
from textmm.transforms import thumbnail_jpeg

STATIC = Path(__file__).parent / "static"
STEP = 24
"""Pictures at first, and as many again each time more are asked for."""
TEXTS = 6
"""Best-fitting texts of a picture."""
EXAMPLES = 4
FACETS = 6
"""Attributes to narrow down by, and of each so many values."""
FACET_VALUES = 8
PREVIEW_SIDE = 320
A_YEAR_S = 31_536_000
POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
REMEDIES = {
    404: "It may have been removed or renamed.",
    413: "Choose a smaller picture.",
    422: "Is it a picture, and whole? Try another one.",
    429: "Many people are searching right now: try again in a moment.",
}
"""What to do about an error, by its status."""


def pages_blueprint(engine: SearchEngine, *, draws: bool = False) -> Blueprint:
    """`draws`: whether pictures can be drawn here."""
    bp = Blueprint("pages", __name__, template_folder="templates")
    versions = {path.name: sha256(path.read_bytes())[:12] for path in STATIC.iterdir()}

    @bp.route("/", methods=["GET", "POST"])
    def page() -> Response:
        shown, status, asked = Shown(), 200, Asked()
        try:
            asked = read_asked(request)
            shown = look_up(engine, asked)
        except tuple(STATUS) as error:
            status = next(code for kind, (code, _) in STATUS.items() if isinstance(error, kind))
            shown = explain(engine, asked, error, status)
        if shown.collection is not None:
            asked = replace(asked, collection=shown.collection.name)
        html = render_template(
            "page.html",
            asked=asked,
            shown=shown,
            collections=engine.collections.all(),
            model_id=engine.encoder.model_id,
            max_bytes=engine.config.server.max_image_bytes,
            link=asked.link,
            search=m.to_json(shown.search).decode() if shown.search is not None and shown.style else "",
            static=lambda name: url_for("pages.static_file", name=name, v=versions[name]),
            score_text=score_text,
            value_text=value_text,
            draws=draws,
        )
        return _guarded(Response(html, status, mimetype="text/html"))

    @bp.get("/static/<name>")
    def static_file(name: str) -> Response:
        lasting = request.args.get("v") == versions.get(name)
        response = send_from_directory(STATIC, name, max_age=A_YEAR_S if lasting else None)
        response.cache_control.immutable = lasting
        return response

    return bp


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the address, or the form with a picture, asks for."""

    collection: str = ""
    """Empty: the first there is."""
    q: str = ""
    like: str = ""
    """Key of a stored picture."""
    k: int = STEP
    filters: tuple[str, ...] = ()
    """name:value"""
    picture: bytes | None = None

    def link(self, *, add: str = "", drop: str = "", **changes: str | int) -> str:
        """The page's address with changes. `add` and `drop`: a filter; another number of pictures is not
        kept.
        """
        filters = [one for one in dict.fromkeys((*self.filters, add)) if one and one != drop]
        kept: dict[str, str | int] = {"collection": self.collection, "q": self.q, "like": self.like}
        query = {name: value for name, value in (kept | changes).items() if value}
        return url_for("pages.page", **query, f=filters)  # type: ignore[arg-type]


@dataclass(kw_only=True)
class Shown:
    """What the page shows."""

    collection: m.Collection | None = None
    hits: Sequence[m.Hit] = ()
    passing: int = 0
    """Pictures that the filters let through."""
    more: int = 0
    """How many pictures to ask for next; 0: there are no more."""
    search: m.SearchRequest | None = None
    """What found the hits; None: the collection's first pictures."""
    style: str = ""
    """Of the captions; empty: this model makes none."""
    filters: Mapping[str, str] = field(default_factory=dict)
    facets: Mapping[str, Sequence[m.FacetValue]] = field(default_factory=dict)
    """Values to narrow down by, with how many pictures have each."""
    examples: Sequence[str] = ()
    like: m.Image | None = None
    preview: str = ""
    """The query picture as a data URI."""
    says: m.SearchResponse | None = None
    """Texts and caption of the query picture."""
    error: str = ""
    remedy: str = ""


def read_asked(request: Request) -> Asked:
    """Raises BadRequest, TooLarge."""
    try:
        values, file = request.values, request.files.get("image")
    except RequestEntityTooLarge as error:
        raise TooLarge(f"the upload is over the limit of {request.max_content_length:,} bytes") from error
    if request.method == "POST" and (file is None or not file.filename):
        raise BadRequest("no picture was chosen", "image")
    k = values.get("k", str(STEP))
    if not k.isdecimal() or not 1 <= int(k[:9]) <= m.MAX_K:
        raise BadRequest(f"k must be a number from 1 to {m.MAX_K}, got {k!r}", "k")
    return Asked(
        collection=values.get("collection", ""),
        q=values.get("q", "").strip() if file is None else "",
        like=values.get("like", "") if file is None else "",
        k=int(k),
        filters=tuple(dict.fromkeys(values.getlist("f"))),
        picture=None if file is None else file.read(),
    )


def look_up(engine: SearchEngine, asked: Asked) -> Shown:
    """Raises what the engine raises."""
    collection = _collection(engine, asked.collection)
    if collection is None:
        return Shown()
    external = collection.model_id == EXTERNAL
    style = engine.captioner.style(None, collection.caption_style)
    captions = style in engine.encoder.styles and not external
    shown = Shown(collection=collection, style=style if captions else "")
    shown.filters = dict(equality(one, collection.attributes) for one in asked.filters)
    fetch = min(asked.k + 1, m.MAX_K)
    if not (asked.q or asked.like or asked.picture is not None or shown.filters):
        images = engine.catalogue.list_images(collection.name, after="", limit=fetch).images
        _show_hits(shown, [_as_hit(image) for image in images], asked.k)
        shown.examples = [] if external else examples(images)
        return shown
    query: dict[str, object] = {"collection": collection.name, "k": fetch}
    if shown.filters:
        query["filter"] = written(AllOf(tuple(Compare(name, "=", v) for name, v in shown.filters.items())))
    if asked.like:
        shown.like = engine.catalogue.get_image(collection.name, asked.like)
    query |= _asking(asked, collection, shown.filters)
    search = m.convert(
        m.SearchRequest, query | {"facets": narrowable(engine, collection, shown.filters), "explain": True}
    )
    found = engine.search(search, image=asked.picture)
    _show_hits(shown, found.hits or [], asked.k)
    shown.facets = choices(found.facets or {})
    shown.passing = found.explain.allowed if found.explain else 0
    shown.search = m.convert(m.SearchRequest, query | {"k": asked.k, "captions": True})
    if asked.picture is not None:
        texts = m.SearchRequest(collection=collection.name, k=TEXTS, target="texts")
        shown.says = engine.search(texts, image=asked.picture)
        small = thumbnail_jpeg(engine.uploads.decode(asked.picture), PREVIEW_SIDE)
        shown.preview = "data:image/jpeg;base64," + base64.b64encode(small).decode()
    return shown


def explain(engine: SearchEngine, asked: Asked, error: Exception, status: int) -> Shown:
    """The page with an error instead of hits; the collection stays chosen when there is one of that name."""
    said = str(error).strip().rstrip(".")
    found = engine.collections.find(asked.collection)
    return Shown(
        collection=engine.catalogue.collection_message(found) if found is not None else None,
        error=f"{said[:1].upper()}{said[1:]}.",
        remedy=REMEDIES.get(status, ""),
    )


def equality(text: str, known: Iterable[str]) -> tuple[str, str]:
    """name:value, where the name may hold colons when the collection has an attribute of that name.

    Raises BadRequest.
    """
    longest = max((name for name in known if text.startswith(f"{name}:")), key=len, default=None)
    name = longest if longest is not None else text.partition(":")[0]
    if not text.startswith(f"{name}:"):
        raise BadRequest(f"f must be name:value, got {text!r}", "f")
    return name, text[len(name) + 1 :]


def narrowable(engine: SearchEngine, collection: m.Collection, filters: Iterable[str]) -> list[str]:
    """Attributes that may be narrowed down by: those of words that this process's view has, as many as may be asked."""
    view = engine.live.view(engine.collections.get(collection.name))
    types = view.images.attributes.types if view is not None else {}
    kinds = ("string", "strings", "bool")
    return [name for name, kind in sorted(types.items()) if kind in kinds and name not in filters][
        : m.MAX_FACETS
    ]


def choices(facets: Mapping[str, m.Facet]) -> dict[str, Sequence[m.FacetValue]]:
    """The facets that leave a choice and can be taken in at a glance, those of fewest values first."""
    told = [(facet.distinct or 0, name) for name, facet in facets.items()]
    few = [name for distinct, name in sorted(told) if 2 <= distinct <= MOST_VALUES]
    return {name: (facets[name].values or [])[:FACET_VALUES] for name in few[:FACETS]}


def examples(images: Sequence[m.Image]) -> list[str]:
    """A few queries that this collection can answer: what its own pictures are called."""
    step = max(1, len(images) // EXAMPLES)
    words = (_words(image) for image in (*images[::step], *images))
    return list(dict.fromkeys(w for w in words if w and len(w) <= 48))[:EXAMPLES]


def score_text(score: float) -> str:
    """.31: two digits, no leading zero."""
    rounded = round(score, 2) + 0.0  # no -0.0
    return f"{rounded:.2f}".replace("0.", ".", 1).replace("-", "−")


def value_text(value: m.AttributeValue) -> str:
    """As it stands in f=name:value."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _collection(engine: SearchEngine, name: str) -> m.Collection | None:
    """That of the name; without one, the first that holds pictures and is no bank. Raises NotFound."""
    if name:
        return engine.catalogue.collection_message(engine.collections.get(name))
    there = sorted(engine.collections.all(), key=lambda c: (c.is_bank, c.generation is None, c.name))
    return engine.catalogue.collection_message(there[0]) if there else None


def _asking(asked: Asked, collection: m.Collection, filters: Mapping[str, str]) -> dict[str, object]:
    """The field of a search that asks, but for a picture."""
    if asked.picture is not None:
        return {}
    if asked.like:
        return {"image_key": asked.like}
    if collection.model_id == EXTERNAL and collection.dim and not asked.q:
        return {
            "vector": [1.0] * collection.dim
        }  # any would do: what passes the filters is shown, without scores
    return {"text": asked.q or " ".join(map(value_text, filters.values()))}


def _show_hits(shown: Shown, hits: Sequence[m.Hit], k: int) -> None:
    shown.hits = hits[:k]
    shown.more = min(k + STEP, m.MAX_K) if len(hits) > k else 0


def _as_hit(image: m.Image) -> m.Hit:
    at = partial(url_for, "images.get_bytes", collection=image.collection, key=image.key)
    return m.Hit(
        key=image.key,
        score=0.0,
        title=image.title,
        caption=None,
        attributes=image.attributes,
        width=image.width,
        height=image.height,
        content_url=at(thumbnail=False) if image.sha256 else None,
        thumbnail_url=at(thumbnail=True) if image.sha256 else None,
    )


def _words(image: m.Image) -> str:
    given = {name.lower(): value for name, value in image.attributes.items() if isinstance(value, str)}
    colour = given.get("colour") or given.get("color")
    kind = given.get("kind") or given.get("type") or given.get("category")
    return f"{colour} {kind}" if colour and kind else image.title or ""


def _guarded(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "same-origin"
    response.cache_control.no_cache = True
    return response
