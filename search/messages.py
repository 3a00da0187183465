"""Request and response types: parse, validate, JSON, OpenAPI. The server and the SDK share them.

Unknown request fields are refused by name. Fields are added, never given another meaning.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

T = TypeVar("T")

Target = Literal["images", "texts"]
Kind = Literal["exact", "near_copy", "similar"]
AttributeType = Literal["string", "number", "bool", "datetime", "strings"]
AttributeValue = str | int | float | bool | list[str]
NO_NUL = r"^[^\x00]*$"
"""What a database takes as text."""
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=NO_NUL)]
Key = Annotated[str, Meta(min_length=1, max_length=512, pattern=NO_NUL)]
Style = Annotated[str, Meta(min_length=1, max_length=64)]
Language = Literal["en", "zh"]

MAX_K = 1000
MAX_FACETS = 20
MAX_DIM = 4096
"""Numbers of a vector from elsewhere."""
Edges = Annotated[list[str | int | float], Meta(max_length=100)]
MAX_TEXT = 20_000
"""Characters of a query or a text; the model reads its first tokens."""
Text = Annotated[str, Meta(max_length=MAX_TEXT, pattern=NO_NUL)]
Word = Annotated[str, Meta(pattern=NO_NUL)]

MAX_LABELS = 1000
MAX_TEMPLATES = 32
Label = Annotated[str, Meta(min_length=1, max_length=200, pattern=NO_NUL)]


class BadRequest(ValueError):
    """A request that is wrong in itself; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Request(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a caller sends."""


class Response(Struct):
    """What comes back. A client takes fields that it does not know as news, not as errors."""


class SearchRequest(Request, kw_only=True):
    collection: Name
    text: Annotated[str, Meta(max_length=MAX_TEXT)] | None = None
    image: str | None = None
    """base64 or a data URI"""
    image_key: Key | None = None
    """a stored picture: more like this"""
    vector: list[float] | None = None
    k: Annotated[int, Meta(ge=1, le=MAX_K)] = 10
    filter: Annotated[str, Meta(max_length=MAX_TEXT)] | dict[str, Any] = {}
    """an expression, or an object: attribute: value, [values] or {"<": value, …}; all must hold"""
    facets: Annotated[list[str | dict[str, Edges]], Meta(max_length=MAX_FACETS)] = []
    """attributes whose values are counted over what the filter lets through; {attribute: edges} by ranges"""
    explain: bool = False
    """say how it was searched"""
    target: Target = "images"
    captions: bool = False
    """caption the hits"""
    caption_style: Style | None = None


class TookMs(Response):
    encode: float = 0.0
    search: float = 0.0
    rows: float = 0.0
    caption: float = 0.0
    total: float = 0.0


class Caption(Response):
    text: str
    score: float
    """cosine of the caption with its picture"""
    generated: bool = True


class Hit(Response):
    key: str
    score: float
    """cosine, -1..1, higher is closer"""
    title: str | None
    caption: Caption | None
    attributes: dict[str, AttributeValue]
    width: int | None
    """null, as are height and addresses: it came as a vector without a picture"""
    height: int | None
    content_url: str | None
    thumbnail_url: str | None


class TextHit(Response):
    text: str
    score: float
    key: str
    """of the picture that the text belongs to"""


class FacetValue(Response):
    value: str | float | bool
    count: int


class FacetRange(Response):
    start: str | int | float | None = field(name="from")
    """itself in; null: from the lowest"""
    end: str | int | float | None = field(name="to")
    """itself not in; null: to the highest"""
    count: int


class Facet(Response, kw_only=True, omit_defaults=True):
    missing: int
    """without the attribute"""
    values: list[FacetValue] | None = None
    """at most 100, the most frequent first"""
    distinct: int | None = None
    """values there are"""
    ranges: list[FacetRange] | None = None


class Explain(Response):
    filter: str | None
    """as it was understood"""
    plan: str
    rows: int
    """that the index holds"""
    allowed: int
    """that the filter lets through"""


class SearchResponse(Response, kw_only=True, omit_defaults=True):
    request_id: str
    collection: str
    model_id: str
    took_ms: TookMs
    hits: list[Hit] | None = None
    """for target images"""
    texts: list[TextHit] | None = None
    """for target texts"""
    caption: Caption | UnsetType | None = UNSET
    """for target texts: of the query when it is a picture, else null"""
    facets: dict[str, Facet] | None = None
    explain: Explain | None = None


class PutImageRequest(Request, kw_only=True):
    image: str | None = None
    """base64 or a data URI; as a file field in multipart"""
    vector: list[float] | None = None
    """instead of a picture, in a collection of model external; of any length but zero"""
    title: Text | None = None
    texts: list[Text] = []
    attributes: dict[Word, Word | int | float | bool | list[Word]] = {}


class Image(Response, kw_only=True):
    key: str
    collection: str
    title: str | None
    texts: list[str]
    attributes: dict[str, AttributeValue]
    sha256: str | None
    """null, as is the size: it came as a vector without a picture"""
    width: int | None
    height: int | None
    created_at: str
    updated_at: str


class ImageList(Response, kw_only=True):
    images: list[Image]
    after: str | None
    """give it back to get the next page; null at the end"""


class Limits(Response, kw_only=True):
    near_copy: int = 31
    """Hamming distance of PDQ hashes, at most"""
    similar: float = 0.9
    """cosine, at least"""


class LimitChanges(Request, kw_only=True):
    """What is not named stays as it is."""

    near_copy: Annotated[int, Meta(ge=0, le=256)] | None = None
    similar: Annotated[float, Meta(ge=-1, le=1)] | None = None


class PutCollectionRequest(Request, kw_only=True):
    bank: bool | None = None
    """a new collection is none unless this says so; one that is there stays what it is"""
    limits: LimitChanges | None = None
    caption_style: Style | None = None
    """style of its captions when a search names none"""
    attributes: dict[Word, AttributeType | None] = {}
    """types that the owner declares; null goes back to the inferred one"""
    model: Literal["external"] | None = None
    """the collection holds vectors that its owner made, of `dim` numbers"""
    dim: Annotated[int, Meta(ge=1, le=MAX_DIM)] | None = None


class Collection(Response, kw_only=True):
    name: str
    bank: bool
    limits: Limits
    caption_style: str
    images: int
    texts: int
    model_id: str | None
    attributes: dict[str, str]
    dim: int | None = None
    """numbers of a vector; null while there is no model"""


class CollectionList(Response):
    collections: list[Collection]


class CaptionRequest(Request, kw_only=True):
    image: str | None = None
    collection: Name | None = None
    image_key: Key | None = None
    style: Style = "photo"
    language: Language = "en"
    """zh: captions of attributes"""


class CaptionResponse(Response):
    caption: Caption
    model_id: str


class PicturesRequest(Request, kw_only=True):
    """Pictures in any number: uploads, or stored ones of a collection, or both; answers in this order."""

    image: str | None = None
    """base64 or a data URI; in multipart the file field, which may be repeated"""
    images: list[str] = []
    """several of them"""
    collection: Name | None = None
    """of the stored pictures"""
    image_keys: list[Key] = []
    """stored pictures"""


class CaptionsRequest(PicturesRequest, kw_only=True):
    style: Style = "photo"
    language: Language = "en"
    """zh: captions of attributes"""


class CaptionsResponse(Response):
    captions: list[Caption]
    model_id: str


class ClassifyRequest(PicturesRequest, kw_only=True):
    labels: Annotated[list[Label], Meta(min_length=2, max_length=MAX_LABELS)]
    templates: Annotated[list[Label], Meta(max_length=MAX_TEMPLATES)] = []
    """prompts, {} is the label; their vectors are averaged. Empty: the model's own"""
    k: Annotated[int, Meta(ge=1, le=MAX_LABELS)] = 5
    """labels told of each picture"""


class LabelProbability(Response):
    label: str
    probability: float
    """of this label among those given; all of them sum to 1"""
    score: float
    """cosine"""


class Classified(Response):
    labels: list[LabelProbability]
    """likeliest first"""


class ClassifyResponse(Response, kw_only=True):
    results: list[Classified]
    """of each picture, in order"""
    model_id: str
    temperature: float
    """cosines are divided by it before the softmax"""
    templates: list[str]


class AskRequest(PicturesRequest, kw_only=True):
    question: Annotated[str, Meta(min_length=1, max_length=500, pattern=NO_NUL)]
    """in English or Chinese"""
    choices: Annotated[list[Label], Meta(max_length=100)] = []
    """two answers or more to rank; empty: the model answers freely"""


class Choice(Response):
    answer: str
    confidence: float
    """of this choice among those given; all of them sum to 1"""


class Answered(Response, kw_only=True):
    answer: str
    """where it is not known, words that say so"""
    known: bool
    """whether confidence reaches what was measured to be needed"""
    confidence: float
    """of the likeliest answer: its probability among all that could be said, or among the choices"""
    choices: list[Choice]
    """likeliest first"""


class AskResponse(Response, kw_only=True):
    results: list[Answered]
    """of each picture, in order"""
    model_id: str


class CopyRequest(PicturesRequest, kw_only=True):
    pass


class CopyAttribute(Response):
    value: str
    probability: float


class ProductCopy(Response, kw_only=True):
    title: str
    description: str
    attributes: dict[str, CopyAttribute]
    """what the model is sure enough of"""
    score: float
    """cosine of the title with its picture"""
    generated: bool = True


class CopyResponse(Response):
    results: list[ProductCopy]
    """of each picture, in order"""
    model_id: str


class EmbeddingsRequest(Request, kw_only=True):
    input: str | list[str | int | list[int]]
    """texts or pictures as data URIs; token arrays are refused"""
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
    modality: Literal["text", "image"] | None = None
    """image: every input is a data URI or base64; by default a data URI of a picture is one"""


class EmbeddingRow(Response):
    index: int
    embedding: list[float] | str
    object: str = "embedding"


class Usage(Response):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(Response):
    data: list[EmbeddingRow]
    model: str
    usage: Usage
    object: str = "list"


class Model(Response):
    id: str
    created: int
    object: str = "model"
    owned_by: str = "textmm"
    dimensions: list[int] = []
    """sizes that vectors may have; of several the last is the whole"""


class ModelList(Response):
    data: list[Model]
    object: str = "list"


class TextPart(Request, tag_field="type", tag="text"):
    text: str


class ImageAddress(Request, kw_only=True):
    url: str
    """a data URI"""
    detail: Literal["auto", "low", "high"] | None = None
    """accepted; the model sees a picture in one size"""


class ImagePart(Request, tag_field="type", tag="image_url"):
    image_url: ImageAddress


class ChatMessage(Request, kw_only=True):
    role: Literal["system", "developer", "user", "assistant"]
    """system and developer are accepted and not followed"""
    content: str | list[TextPart | ImagePart] | None = None
    name: str | None = None
    textmm: dict[str, Any] | None = None
    """of an answer that is sent back: its hits are those that "the second" means"""
    refusal: Any = None
    annotations: Any = None
    audio: Any = None
    tool_calls: Any = None
    function_call: Any = None


class StreamOptions(Request, kw_only=True):
    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(Request, kw_only=True):
    model: str
    """the model that is served; MODEL/COLLECTION names the collection too"""
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=1000)]
    collection: Name | None = None
    """that requests search; not OpenAI's"""
    k: Annotated[int, Meta(ge=1, le=100)] = 10
    """hits of an answer; not OpenAI's"""
    caption_style: Style | None = None
    """of what is said about a picture; not OpenAI's"""
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    """accepted, as are those below, and without a meaning here: an answer is worked out, not sampled"""
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    n: int | None = 1
    """those below are refused where they ask for anything but what is done anyway"""
    logprobs: bool | None = False
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    stop: str | list[str] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None


class ChatSearch(Response, kw_only=True, omit_defaults=True):
    """The search as it is after a turn. One of text, image_key and picture asks."""

    filter: dict[str, Any]
    offset: int
    text: str | None = None
    image_key: str | None = None
    picture: bool = False


class ChatFound(Response, kw_only=True):
    operation: str
    """what the turn was understood to ask for"""
    collection: str | None
    search: ChatSearch | None
    hits: list[Hit]


class ChatAnswer(Response, kw_only=True):
    content: str
    textmm: ChatFound
    role: str = "assistant"
    refusal: None = None


class ChatChoice(Response, kw_only=True):
    message: ChatAnswer
    index: int = 0
    finish_reason: str = "stop"
    logprobs: None = None


class ChatUsage(Response):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatResponse(Response, kw_only=True):
    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    object: str = "chat.completion"


class ChatDelta(Response, kw_only=True, omit_defaults=True):
    role: str | None = None
    content: str | None = None
    textmm: ChatFound | None = None


class ChunkChoice(Response, kw_only=True):
    delta: ChatDelta
    index: int = 0
    finish_reason: str | None = None
    logprobs: None = None


class ChatChunk(Response, kw_only=True):
    """One event of a streamed answer."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: ChatUsage | None = None
    object: str = "chat.completion.chunk"


class LookupRequest(Request, kw_only=True):
    image: str | None = None
    banks: list[Name] | None = None
    """all banks when not given"""
    kinds: list[Kind] = msgspec.field(default_factory=lambda: ["exact", "near_copy", "similar"])


class Match(Response, kw_only=True, omit_defaults=True):
    bank: str
    key: str
    kind: Kind
    distance: int | None = None
    """near_copy: Hamming, lower is closer"""
    score: float | None = None
    """similar: cosine, higher is closer"""
    limit: float | int | None = None
    """the bank's limit that was applied"""
    signal: str | None = None


class LookupResponse(Response):
    matches: list[Match]
    model_id: str


class Error(Response, kw_only=True):
    code: str
    type: str
    message: str
    param: str | None = None
    request_id: str | None = None


class ErrorResponse(Response):
    error: Error


def parse(kind: type[T], data: bytes | str) -> T:
    """A request from JSON. BadRequest names the field and what is wrong with it."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deep") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def convert(kind: type[T], data: Any) -> T:
    """A request from Python values. BadRequest as in `parse`."""
    try:
        return msgspec.convert(data, type=kind)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from error


def to_json(message: object) -> bytes:
    return msgspec.json.encode(message)


_WHERE = r" - at (?:`key` in )?`\$\.?([^`]*)`"
"""How msgspec says where something is wrong."""


def _bad(said: str) -> BadRequest:
    """msgspec's message -> ours, with the field: "… unknown field `x`", "… missing required field `x`", "… at
    `$.x`".
    """
    named = re.search(r"field `([^`]+)`", said)
    where = re.search(_WHERE, said)
    path = where and where[1].replace("[...]", "")  # msgspec's word for "some key of this object"
    param = ".".join(part for part in (path, named and named[1]) if part) or None
    reason = re.sub(_WHERE, "", said)
    if "unknown field" in said:
        return BadRequest(f"unknown field {param}", param)
    if "missing required field" in said:
        return BadRequest(f"{param} is missing", param)
    if "matching regex" in said:
        return BadRequest(f"{param or 'the body'} holds a NUL character", param)
    return BadRequest(f"{param or 'the body'}: {reason[:1].lower()}{reason[1:]}", param)
