"""Chat completions in OpenAI's shape: messages to turns, and a reply to an answer or to the events of a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from indexer.errors import NotFound
from search import messages as m
from search.dialogue import MOST_TURNS, Dialogue, Reply, Turn
from search.embeddings import model_names
from search.engine import SearchEngine, new_request_id
from search.errors import TooLarge
from search.messages import BadRequest
from search.operations import NAMES, Asked, Cheaper


def chat(engine: SearchEngine, dialogue: Dialogue, request: m.ChatRequest) -> m.ChatResponse:
    """The answer to the last turn of the messages.

    Raises NotFound (model or collection), BadRequest, ImageUnreadable, ImageTooLarge, TooLarge, Overloaded.
    """
    check_can_do(request)
    named = _collection_in(engine, request.model)
    if named is not None and request.collection not in (None, named):
        raise BadRequest(
            f"model names collection {named!r} and collection {request.collection!r}", "collection"
        )
    collection = request.collection if named is None else named
    if request.caption_style is not None:
        engine.captioner.check_style(request.caption_style, "caption_style")
    turns = turns_of(engine, request.messages)
    reply = dialogue.reply(turns, collection=collection, page=request.k, style=request.caption_style)
    prompt = sum(engine.encoder.count_tokens([turn.text for turn in turns]))
    completion = sum(engine.encoder.count_tokens([reply.text]))
    return m.ChatResponse(
        id=f"chatcmpl-{new_request_id()}",
        created=int(time.time()),
        model=engine.encoder.model_id,
        choices=[m.ChatChoice(message=m.ChatAnswer(content=reply.text, textmm=found(reply, collection)))],
        usage=m.ChatUsage(prompt, completion, prompt + completion),
    )


def _collection_in(engine: SearchEngine, model: str) -> str | None:
    """Of MODEL/COLLECTION the collection; None for a model alone, whose name may have slashes itself."""
    for name in model_names(engine):
        if model == name:
            return None
        if model.startswith(f"{name}/"):
            return model.removeprefix(f"{name}/")
    raise NotFound("model", model.partition("/")[0])


def check_can_do(request: m.ChatRequest) -> None:
    """Raises BadRequest that names a field whose wish cannot be granted."""
    wishes = {
        "n": request.n not in (None, 1),
        "logprobs": bool(request.logprobs),
        "top_logprobs": bool(request.top_logprobs),
        "logit_bias": bool(request.logit_bias),
        "stop": bool(request.stop),
        "response_format": (request.response_format or {}).get("type", "text") != "text",
        "modalities": (request.modalities or ["text"]) != ["text"],
        "tools": bool(request.tools),
        "tool_choice": request.tool_choice not in (None, "none", "auto"),
        "functions": bool(request.functions),
        "function_call": request.function_call not in (None, "none", "auto"),
        "audio": request.audio is not None,
        "prediction": request.prediction is not None,
        "web_search_options": request.web_search_options is not None,
    }
    wished = next((name for name, there in wishes.items() if there), None)
    if wished is not None:
        raise BadRequest(
            f"{wished} is not supported: one answer of plain text about pictures and searches", wished
        )
    for i, message in enumerate(request.messages):
        if message.tool_calls or message.function_call or message.audio:
            raise BadRequest(
                f"messages[{i}] calls tools or holds audio, which this model has none of", f"messages[{i}]"
            )


def turns_of(engine: SearchEngine, messages: list[m.ChatMessage]) -> list[Turn]:
    """The last turns of the user, each with the hits of the answer that followed it. Raises BadRequest, TooLarge."""
    if messages[-1].role != "user":
        raise BadRequest(f"the last of messages must be of the user, got {messages[-1].role}", "messages")
    turns: list[Turn] = []
    for i, message in enumerate(messages):
        if message.role == "user":
            turns.append(_turn(engine, message, f"messages[{i}].content"))
        elif message.role == "assistant" and turns and message.textmm is not None:
            turns[-1] = replace(turns[-1], shown=_keys(message.textmm))
    return turns[-MOST_TURNS:]


def found(reply: Reply, collection: str | None) -> m.ChatFound:
    operation = reply.operation
    name = "dearer" if isinstance(operation, Cheaper) and operation.dearer else NAMES[type(operation)]
    search = None if reply.asked is None else _search(reply.asked)
    return m.ChatFound(operation=name, collection=collection, search=search, hits=reply.hits)


def chunks(response: m.ChatResponse, *, usage: bool) -> Iterator[bytes]:
    """The events of a stream: the role, the text line by line, the hits with the end; the usage when asked for."""
    (choice,) = response.choices
    yield _event(response, m.ChatDelta(role="assistant", content=""))
    for line in choice.message.content.splitlines(keepends=True):
        yield _event(response, m.ChatDelta(content=line))
    yield _event(response, m.ChatDelta(textmm=choice.message.textmm), finish_reason=choice.finish_reason)
    if usage:
        yield _data(_chunk(response, [], response.usage))
    yield b"data: [DONE]\n\n"


def _event(response: m.ChatResponse, delta: m.ChatDelta, finish_reason: str | None = None) -> bytes:
    return _data(_chunk(response, [m.ChunkChoice(delta=delta, finish_reason=finish_reason)]))


def _chunk(
    response: m.ChatResponse, choices: list[m.ChunkChoice], usage: m.ChatUsage | None = None
) -> m.ChatChunk:
    return m.ChatChunk(
        id=response.id, created=response.created, model=response.model, choices=choices, usage=usage
    )


def _data(chunk: m.ChatChunk) -> bytes:
    return b"data: " + m.to_json(chunk) + b"\n\n"


def _turn(engine: SearchEngine, message: m.ChatMessage, param: str) -> Turn:
    if isinstance(message.content, str):
        return Turn(message.content)
    texts, pictures = [], []
    for i, part in enumerate(message.content or []):
        if isinstance(part, m.TextPart):
            texts.append(part.text)
        else:
            engine.uploads.bytes_of(part.image_url.url, f"{param}[{i}].image_url.url")
            pictures.append(part.image_url.url)
    most = engine.config.server.max_inputs
    if len(pictures) > most:
        raise TooLarge(f"{param} has {len(pictures)} pictures, the limit is {most}", param)
    if not texts and not pictures:
        raise BadRequest(f"{param} is empty", param)
    return Turn(" ".join(texts), tuple(pictures))


def _keys(textmm: dict[str, object]) -> tuple[str, ...] | None:
    """Of the hits that a client sends back; None where they are not as they were sent out."""
    hits = textmm.get("hits")
    if not isinstance(hits, list):
        return None
    keys = [hit.get("key") for hit in hits if isinstance(hit, dict)]
    return (
        tuple(key for key in keys if isinstance(key, str))
        if all(isinstance(key, str) for key in keys)
        else None
    )


def _search(asked: Asked) -> m.ChatSearch:
    by_picture = asked.image_key is not None or asked.picture is not None
    return m.ChatSearch(
        filter=asked.filter(),
        offset=asked.offset,
        text=None if by_picture else asked.text,
        image_key=asked.image_key,
        picture=asked.picture is not None,
    )
