"""Dialogue, in OpenAI's shape."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from search.messages.message import Name, Request, Response, Style
from search.messages.searching import Hit


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
