"""Tasks over pictures: captions, recognition, questions, product copy; and pictures from words."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from search.messages.message import (
    MAX_DRAWN,
    MAX_LABELS,
    MAX_TEMPLATES,
    NO_NUL,
    Key,
    Label,
    Language,
    Name,
    Request,
    Response,
    Style,
)
from search.messages.searching import Caption


class Decoding(Request, kw_only=True):
    """How the words of a caption are found."""

    beams: Annotated[int, Meta(ge=1, le=64)] | None = None
    """captions looked at side by side; null: the model's, one where words are drawn"""
    temperature: Annotated[float, Meta(ge=0, le=10)] = 0.0
    """above 0: each word is drawn, from the softmax of logits over it"""
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """drawn are the likeliest words only that together are so probable"""
    repetition_penalty: Annotated[float, Meta(ge=1, le=10)] = 1.0
    """logits of words that came are divided by it"""
    min_length: Annotated[int, Meta(ge=0, le=1000)] = 0
    max_length: Annotated[int, Meta(ge=1, le=1000)] | None = None
    """tokens at least and at most; null: as many as the model can"""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """of what is drawn: the same picture and seed, the same caption"""


class CaptionRequest(Request, kw_only=True):
    image: str | None = None
    collection: Name | None = None
    image_key: Key | None = None
    style: Style | None = None
    """null: photo; where language is zh, attributes"""
    language: Language = "en"
    """zh: captions of attributes"""
    decoding: Decoding | None = None


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
    style: Style | None = None
    """null: photo; where language is zh, attributes"""
    language: Language = "en"
    """zh: captions of attributes"""
    decoding: Decoding | None = None


class CaptionsResponse(Response):
    captions: list[Caption]
    model_id: str


class AltRequest(PicturesRequest, kw_only=True):
    names: list[Annotated[str, Meta(min_length=1, max_length=1024, pattern=NO_NUL)]] = []
    """what the pictures are called, in order: the key of a line of CSV, the address in <img>. Empty: image-1 … for
    uploads, keys for stored ones"""
    format: Literal["csv", "html"] = "csv"
    """key, alt, confidence; or a line <img src="…" alt="…"> each"""
    style: Style | None = None
    """null: photo; where language is zh, attributes"""
    language: Language = "en"
    """zh: captions of attributes"""


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
    language: Language | None = None
    """of the answer; null: the question's"""
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


class DrawRequest(Request, kw_only=True):
    """OpenAI's `images.generate`, and what it has not: seed, image, strength."""

    prompt: Annotated[str, Meta(min_length=1, max_length=1000, pattern=NO_NUL)]
    model: Annotated[str, Meta(max_length=200)] | None = None
    """the generator that is served; null: whichever it is"""
    n: Annotated[int, Meta(ge=1, le=MAX_DRAWN)] = 1
    size: Annotated[str, Meta(max_length=20)] = "auto"
    """WIDTHxHEIGHT as it draws; auto: that"""
    response_format: Literal["b64_json"] = "b64_json"
    output_format: Literal["png"] = "png"
    seed: Annotated[int, Meta(ge=0, lt=2**53)] | None = None
    """the same words and seed give the same pictures; null: another each time"""
    image: str | Annotated[list[str], Meta(min_length=1, max_length=2)] | None = None
    """base64 or data URI: a picture to vary, or two to draw something between"""
    strength: Annotated[float, Meta(gt=0, le=1)] = 0.6
    """of a variation: 1 keeps nothing of the picture"""
    user: str = ""
    """not looked at"""


class DrawnImage(Response, kw_only=True):
    b64_json: str
    """PNG with the mark of a generator in its XMP"""
    seed: int
    """of the try that it is"""
    score: float
    """cosine with the prompt"""
    generated: bool = True


class DrawResponse(Response, kw_only=True):
    created: int
    """seconds since 1970"""
    data: list[DrawnImage]
    """best first"""
    seed: int
    """the same words, n and seed draw them all again"""
    model: str
    """the generator and a hash of its weights"""
    size: str
    output_format: str = "png"


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
