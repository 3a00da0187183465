"""textmm train."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options, on_terminal

if TYPE_CHECKING:
    from tqdm import tqdm

    from search.config import Config
    from textmm.recipe import TrainConfig
    from textmm.train import Progress


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
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where the model computes; under torchrun, `cuda` is a device a process.",
)
@command_options
def train(recipe: Path, sources: Path, out: Path, device: str, config: Config) -> None:
    """Train the model or generator of RECIPE (a TOML file); checkpoint, training.csv and curves.png appear in --out.

    Ctrl-C saves after the step and leaves with exit code 130; the same command then goes on. Recipes that come
    with the project lie in textmm/recipes. Several processes: torchrun --nproc-per-node 2 -m search.cli.main train …
    """
    from textmm.ranks import joined
    from textmm.recipe import TrainConfig
    from textmm.text_to_image.recipe import is_generator
    from textmm.train import train as run

    if is_generator(recipe):
        _train_generator(recipe, sources, out, device, config)
        return
    settings = TrainConfig.read(recipe)
    with joined(device) as ranks, asked_to_stop() as asked:
        with ranks.first():
            _fetch_trunks(settings, config)
        steps = run(
            settings,
            data=sources,
            trunks=config.trunks,
            out=out,
            models=config.models,
            ranks=ranks,
            stop=lambda: bool(asked),
        )
        _follow(steps, out, first=ranks.rank == 0)


def _train_generator(recipe: Path, sources: Path, out: Path, device: str, config: Config) -> None:
    from textmm import checkpoint, pretrained
    from textmm.text_to_image.recipe import GeneratorRecipe
    from textmm.text_to_image.training import PERCEPTUAL_TRUNK
    from textmm.text_to_image.training import train as run

    settings = GeneratorRecipe.read(recipe)
    for trunk in (
        PERCEPTUAL_TRUNK,
        *pretrained.trunks_of(checkpoint.stored_config(checkpoint.find(settings.words))),
    ):
        pretrained.fetch(trunk, config.trunks)
    with asked_to_stop() as asked:
        steps = run(
            settings,
            data=sources,
            trunks=config.trunks,
            out=out,
            device=device,
            stop=lambda: bool(asked),
        )
        _follow(steps, out, first=True)


def _follow(steps: Iterator[Progress], out: Path, *, first: bool) -> None:
    """Show what a run does until it is done, or saved because it was asked to stop. Of several processes the `first`
    one speaks."""
    from textmm.train import TrainingFailed, TrainingStopped

    bars = _Bars(quiet=not first)
    try:
        for progress in steps:
            bars.show(progress)
    except TrainingStopped as stopped:
        if first:
            bars.close()
            _draw(out)
            click.echo(f"{stopped}; the same command goes on from there: {_command()}", err=True)
        raise click.exceptions.Exit(130) from stopped
    except TrainingFailed:
        if first:
            _draw(out)
        raise
    finally:
        bars.close()
    if first:
        _draw(out)
        click.echo(f"checkpoint in {out}")


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """A list that gets the signals by which this process is asked to stop: Ctrl-C, or what torchrun passes on. A
    second Ctrl-C stops at once.
    """
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Bars:
    """A bar for each thing that a run does, on a terminal; else lines."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: tqdm[None] | None = None
        self._what = ""

    def show(self, progress: Progress) -> None:
        from tqdm import tqdm

        if self._quiet:
            return
        if not on_terminal():
            if progress.losses or progress.done == progress.of:
                losses = ", ".join(f"{k} {v:.4f}" for k, v in progress.losses.items())
                speed = f" {losses} {progress.samples_per_s:.0f}/s" if losses else ""
                click.echo(f"{progress.what}: {progress.done}/{progress.of}{speed}")
            return
        if self._bar is None or self._what != progress.what:
            self.close()
            self._what, self._bar = progress.what, tqdm(total=progress.of, desc=progress.what)
        self._bar.n = progress.done
        self._bar.set_postfix({k: f"{v:.3f}" for k, v in progress.losses.items()})

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def _fetch_trunks(settings: TrainConfig, config: Config) -> None:
    from textmm import checkpoint, open_clip_config, open_clip_models, pretrained
    from textmm.config import named_model

    if settings.start:
        if open_clip_models.find(settings.start, config.models) is not None:
            return
        architecture = checkpoint.stored_config(checkpoint.find(settings.start))
    elif open_clip_config.architecture(settings.model) is not None:
        return
    else:
        architecture = named_model(settings.model)
    for trunk in pretrained.trunks_of(architecture):
        pretrained.fetch(trunk, config.trunks)


def _draw(out: Path) -> None:
    from textmm import training_log

    log = out / "training.csv"
    if not log.exists():
        return
    try:
        training_log.draw(log, out / "curves.png")
    except ModuleNotFoundError:
        click.echo("no curves.png: matplotlib is not installed (pip install matplotlib)", err=True)


def _command() -> str:
    """The command as it was given, to be given again."""
    start = "torchrun … -m search.cli.main" if "WORLD_SIZE" in os.environ else "textmm"
    return f"{start} {shlex.join(sys.argv[1:])}"
