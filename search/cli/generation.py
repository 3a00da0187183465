"""textmm generation: move a collection to another model while it serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options, load_encoder, on_terminal, opened_database

if TYPE_CHECKING:
    from indexer.database import Database
    from indexer.store.collections import Collection, Generation
    from search.config import Config
    from search.generations import Moves
    from textmm.encoder import Encoder


@click.group()
def generation() -> None:
    """Move a collection to another model while it serves: start, compare, switch; roll back or drop."""


@generation.command()
@click.argument("model")
@click.option("--collection", required=True, help="The collection that moves.")
@command_options
def start(model: str, collection: str, config: Config) -> None:
    """Make vectors of MODEL for all pictures and texts, beside those that serve. Run again, it goes on where it was.

    MODEL is a bundled model, or a folder. Servers that run load it by themselves, and write both from then on.
    Exit code 1: some pictures cannot be read.
    """
    from indexer.store.generations import Generations

    with _opened(config) as (database, moves, encoders):
        found = _collection(database, collection)
        encoder = encoders(model)
        made = Generations(database).start(
            found.collection_id,
            model_id=encoder.model_id,
            model_name=_lasting(model),
            embed_dim=encoder.embed_dim,
            preprocessing=encoder.preprocessing,
        )
        unreadable = _filled(moves, found, made)
        click.echo(
            f"{collection}: all vectors of {made.model_id} are there" if not unreadable else _told(unreadable)
        )
    if unreadable:
        raise click.exceptions.Exit(1)


@generation.command()
@click.argument("collection")
@command_options
def status(collection: str, config: Config) -> None:
    """Which generations a COLLECTION has, how far each is, and what running servers have loaded."""
    from indexer.store.collections import Collections
    from indexer.store.generations import Generations
    from indexer.store.processes import Processes

    with opened_database(config) as database:
        found = _collection(database, collection)
        images, texts = Collections(database).counts(found.collection_id)
        for one in Generations(database).kept(found.collection_id):
            filled = f"{one.images} of {images} images, {one.texts} of {texts} texts"
            click.echo(f"{one.generation.model_id:32} {one.state:9} {filled}")
        for name, models in Processes(database).live().items():
            click.echo(f"server {name} has {', '.join(models)}")


@generation.command()
@click.argument("collection")
@click.option(
    "-k", default=10, show_default=True, type=click.IntRange(1, 100), help="Best hits that are compared."
)
@click.option(
    "--queries",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV of text,key: words and a right answer.",
)
@command_options
def compare(collection: str, k: int, queries: Path | None, config: Config) -> None:
    """How much the generation beside agrees with the one that serves, and which finds more of the right answers."""
    from search.generations import labelled_queries

    with _opened(config) as (database, moves, _):
        found = _collection(database, collection)
        other = _beside(database, found)
        labelled = labelled_queries(queries) if queries else []
        said = moves.compare(found, other, k=k, labelled=labelled)
        assert found.generation is not None
        click.echo(f"{found.generation.model_id} serves, {other.model_id} is beside")
        click.echo(f"  overlap@{k} {said.overlap:.3f} over {said.queries} stored pictures")
        if said.recall is not None:
            click.echo(
                f"  recall@{k}  {said.recall[0]:.3f} -> {said.recall[1]:.3f} over {said.labelled} labelled queries"
            )


@generation.command()
@click.argument("collection")
@command_options
def switch(collection: str, config: Config) -> None:
    """Let the generation beside serve. Refuses while a vector is lacking, or a running server lacks its model."""
    with _opened(config) as (database, moves, _):
        found = _collection(database, collection)
        other = _beside(database, found)
        moves.switch(found, other)
        click.echo(
            f"{collection}: {other.model_id} serves; `textmm generation rollback {collection}` goes back"
        )


@generation.command()
@click.argument("collection")
@command_options
def rollback(collection: str, config: Config) -> None:
    """Let the generation that served before serve again."""
    with _opened(config) as (database, moves, _):
        back = moves.rollback(_collection(database, collection))
        click.echo(f"{collection}: {back.model_id} serves again")


@generation.command()
@click.argument("collection")
@command_options
def drop(collection: str, config: Config) -> None:
    """Delete the generations of a COLLECTION that do not serve, with their vectors."""
    from indexer.store.generations import Generations

    with opened_database(config) as database:
        gone = Generations(database).drop(_collection(database, collection).collection_id)
        click.echo(f"{collection}: {', '.join(one.model_id for one in gone) or 'nothing'} dropped")


class _Encoders:
    """Encoders by the name of their model or by a generation, each loaded once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._by_name: dict[str, Encoder] = {}

    def __call__(self, name: str) -> Encoder:
        if name not in self._by_name:
            self._by_name[name] = load_encoder(self._config, name)
        return self._by_name[name]

    def of(self, generation: Generation) -> Encoder:
        """Raises ModelMissing."""
        from search.generations import ModelMissing

        encoder = self(generation.model_name or self._config.model.name)
        if encoder.model_id != generation.model_id:
            raise ModelMissing(
                f"vectors are of {generation.model_id}, {generation.model_name or self._config.model.name} is "
                f"{encoder.model_id} now: set model.name to what it was made with"
            )
        return encoder


@contextmanager
def _opened(config: Config) -> Iterator[tuple[Database, Moves, _Encoders]]:
    from indexer.files import Blobs
    from indexer.live import LiveIndex
    from search.contents import Contents
    from search.generations import Moves

    with opened_database(config) as database:
        encoders = _Encoders(config)
        live = LiveIndex(database, config.data / "indexes", config.index)
        yield database, Moves(database, Contents(Blobs(config.data / "blobs")), live, encoders.of), encoders


def _collection(database: Database, name: str) -> Collection:
    from indexer.store.collections import Collections

    return Collections(database).get(name)


def _beside(database: Database, collection: Collection) -> Generation:
    """The one that is being filled. Raises NotFound."""
    from indexer.errors import NotFound
    from indexer.store.generations import Generations

    building = [
        one for one in Generations(database).kept(collection.collection_id) if one.state == "building"
    ]
    if not building:
        raise NotFound("generation beside in collection", collection.name)
    return building[0].generation


def _filled(moves: Moves, collection: Collection, generation: Generation) -> dict[str, str]:
    from tqdm import tqdm

    unreadable: dict[str, str] = {}
    with tqdm(unit="vector", desc=generation.model_id, disable=not on_terminal()) as bar:
        for progress in moves.fill(collection, generation):
            bar.total = progress.filled + progress.images_left + progress.texts_left
            bar.update(progress.filled - bar.n)
            unreadable = progress.unreadable
    return unreadable


def _told(unreadable: dict[str, str]) -> str:
    lines = [f"{len(unreadable)} pictures cannot be read: put them again, or delete them"]
    return "\n".join([*lines, *(f"  {key}: {why}" for key, why in list(unreadable.items())[:20])])


def _lasting(model: str) -> str:
    """The name under which other processes find the model: a folder by its whole path."""
    path = Path(model)
    return str(path.absolute()) if path.is_dir() else model
