"""textmm draw: pictures from words, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options, load_encoder, opened_engine

if TYPE_CHECKING:
    from search.config import Config

IMAGE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("prompt")
@click.option("-n", "count", default=4, show_default=True, help="How many, 8 at most.")
@click.option("--seed", type=int, help="Draws the same pictures again.  [default: another each time]")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=IMAGE,
    help="A picture to vary; given twice: draw something between the two.",
)
@click.option(
    "--strength", default=0.6, show_default=True, help="Of a variation: 1 keeps nothing of the picture."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=".", show_default=True, help="Folder."
)
@click.option("--generator", default=None, help="Instead of the one in config.toml.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a picture.")
@command_options
def draw(
    prompt: str,
    count: int,
    seed: int | None,
    images: tuple[Path, ...],
    strength: float,
    out: Path,
    generator: str | None,
    as_json: bool,
    config: Config,
) -> None:
    """Draw pictures for PROMPT, the best first; each is a PNG that carries the mark of a generator.

    Exit code 1: this cannot be drawn.
    """
    import base64
    import json
    from dataclasses import replace
    from functools import partial

    from search import messages as m
    from search.drawing import Drawing
    from search.moderation import Moderation
    from search.uploads import Uploads
    from textmm.text_to_image.choosing import CannotDraw

    section = config.draw if generator is None else replace(config.draw, generator=generator)
    fields = {"prompt": prompt, "n": count, "seed": seed, "strength": strength}
    if images:
        fields["image"] = [base64.b64encode(path.read_bytes()).decode() for path in images]
    request = m.convert(m.DrawRequest, fields)
    out.mkdir(parents=True, exist_ok=True)
    try:
        if section.banks:  # only they need the database
            with opened_engine(config) as engine:
                moderation = Moderation(engine)
                drawing = Drawing(section, engine.encoder, engine.load_model, engine.uploads, moderation)
                response = drawing.draw(request)
        else:
            server, load = config.server, partial(load_encoder, config)
            uploads = Uploads(max_bytes=server.max_image_bytes, max_pixels=server.max_image_pixels)
            response = Drawing(section, load(), load, uploads, None).draw(request)
    except CannotDraw as error:
        click.echo(str(error), err=True)
        raise click.exceptions.Exit(1) from error
    for i, one in enumerate(response.data, start=1):
        path = out / f"{_file_name(prompt)}-{i}.png"
        path.write_bytes(base64.b64decode(one.b64_json))
        row = {"file": str(path), "seed": response.seed, "score": one.score, "generated": True}
        click.echo(json.dumps(row) if as_json else f"{path}\t{one.score:.3f}\tseed {response.seed}")


def _file_name(prompt: str) -> str:
    """Letters and digits of any script, the rest as dashes."""
    words = "".join(c if c.isalnum() else " " for c in prompt).split()
    return "-".join(words)[:60] or "drawing"
