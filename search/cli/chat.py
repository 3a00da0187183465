"""textmm chat: a dialogue, a line a turn."""

from __future__ import annotations

import sys
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options, on_terminal, opened_engine

if TYPE_CHECKING:
    from search.config import Config


@click.command()
@click.option("--collection", help="That requests search.")
@click.option(
    "--image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A picture that the first line is about.",
)
@click.option("-k", default=10, show_default=True, type=click.IntRange(1, 100), help="Hits of an answer.")
@click.option("--json", "as_json", is_flag=True, help="A chat completion a line, as the HTTP API gives it.")
@command_options
def chat(collection: str | None, image: Path | None, k: int, as_json: bool, config: Config) -> None:
    """Ask about pictures and search a collection in words, English or Chinese: a line of stdin is a turn.

    Ends with the input (Ctrl-D). Exit code 1: a line could not be answered; it counts as not said.
    """
    from search import messages as m
    from search.chat import chat as answered
    from search.dialogue import Dialogue

    said: list[m.ChatMessage] = []
    failed = False
    picture: str | None = None if image is None else b64encode(image.read_bytes()).decode()
    with opened_engine(config) as engine:
        dialogue = Dialogue(engine)
        while True:
            if on_terminal():
                click.echo("> ", nl=False, err=True)
            line = sys.stdin.readline()
            if not line:
                break
            if not line.strip():
                continue
            parts: list[m.TextPart | m.ImagePart] = [m.TextPart(line.strip())]
            if picture is not None:
                parts.append(m.ImagePart(m.ImageAddress(url=picture)))
            said.append(m.ChatMessage(role="user", content=parts))
            request = m.ChatRequest(model=engine.encoder.model_id, messages=said, collection=collection, k=k)
            try:
                response = answered(engine, dialogue, request)
            except m.BadRequest as error:
                click.echo(str(error), err=True)
                said.pop()
                failed = True
                continue
            picture = None
            message = response.choices[0].message
            keys = [{"key": hit.key} for hit in message.textmm.hits]
            said.append(m.ChatMessage(role="assistant", content=message.content, textmm={"hits": keys}))
            click.echo(m.to_json(response) if as_json else message.content)
    if failed:
        raise click.exceptions.Exit(1)
