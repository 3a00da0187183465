"""textmm status, textmm db upgrade."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options, opened_database

if TYPE_CHECKING:
    from search.config import Config


@click.command()
@click.argument("collection", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a collection.")
@command_options
def status(collection: str | None, as_json: bool, config: Config) -> None:
    """What there is: images, texts, model and index of all collections or of one."""
    from indexer.store.builds import Builds
    from indexer.store.collections import Collections
    from indexer.store.embeddings import Embeddings

    with opened_database(config) as database:
        collections, builds, embeddings = Collections(database), Builds(database), Embeddings(database)
        chosen = [collections.get(collection)] if collection else collections.all()
        for one in chosen:
            images, texts = collections.counts(one.collection_id)
            row = {
                "collection": one.name,
                "bank": one.is_bank,
                "images": images,
                "texts": texts,
                "model_id": None,
            }
            if one.generation is not None:
                ids = (one.collection_id, one.generation.generation_id)
                built = builds.latest(*ids, "images")
                row |= {
                    "model_id": one.generation.model_id,
                    "vectors": embeddings.alive(*ids),
                    "change_seq": one.change_seq,
                    "folded_seq": built.through_seq if built else 0,
                    "factory": built.settings["factory"] if built else None,
                }
            if as_json:
                click.echo(json.dumps(row))
            else:
                kind = "bank" if one.is_bank else "collection"
                click.echo(
                    f"{kind} {one.name}: {images} images, {texts} texts, model {row['model_id'] or 'none yet'}"
                )
                if collection and one.generation is not None:
                    click.echo(
                        f"  vectors {row['vectors']}, index through change {row['folded_seq']} of {one.change_seq}"
                    )
        if not chosen:
            click.echo("no collections: make one with `textmm index SOURCE --collection NAME`", err=True)


@click.group()
def db() -> None:
    """The database's schema."""


@db.command()
@command_options
def upgrade(config: Config) -> None:
    """Bring the database to this version's schema."""
    with opened_database(config) as database:
        database.check()
    click.echo(f"{database.url.partition('://')[0]}: the schema is that of this version")
