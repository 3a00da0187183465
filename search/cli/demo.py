"""textmm demo: something to search, then the page in the browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options, load_encoder, log_to_stderr, opened_database
from search.cli.index import ensure_collection, index_sources
from search.cli.serve import run_server

if TYPE_CHECKING:
    from search.config import Config


@click.command()
@click.option(
    "--pictures",
    type=click.Path(exists=True, path_type=Path),
    default=None,
    help="Index this folder instead of drawn products.",
)
@click.option("--host", default=None, help="Address to listen on.  [default: server.host]")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Port.  [default: server.port]")
@click.option("--products", default=600, show_default=True, help="How many to draw.")
@click.option("--seed", default=2026, show_default=True, help="Seed of the drawings; training saw 17 alone.")
@click.option("--index-only", is_flag=True, help="Do not serve.")
@command_options
def demo(
    pictures: Path | None,
    host: str | None,
    port: int | None,
    products: int,
    seed: int,
    index_only: bool,
    config: Config,
) -> None:
    """Draw a catalogue of products (or take your --pictures), index it, and serve the page."""
    from textmm.drawings import draw_catalogue

    log_to_stderr()
    if pictures is None:
        folder = config.data / f"demo-{products}-{seed}"
        source, name, style = folder / "products.csv", "demo", "attributes"
        if not source.exists():
            click.echo(f"drawing {products} products into {folder}", err=True)
            draw_catalogue(folder, products, seed=seed)
    else:
        source, name, style = pictures, "pictures", "photo"
    click.echo(f"indexing {source} into collection {name!r}", err=True)
    with opened_database(config) as database:
        encoder = load_encoder(config)
        collection = ensure_collection(database, name, bank=False, caption_style=style)
        report = index_sources(config, database, encoder, collection, [str(source)], prune=True)
    failed = report["failed"]
    assert isinstance(failed, list)
    click.echo(
        f"{report['added']} added, {report['updated']} updated, {report['unchanged']} unchanged, "
        f"{len(failed)} failed, in {report['seconds']} s",
        err=True,
    )
    for one in failed[:10]:
        click.echo(f"  {one['key']}: {one['reason']}", err=True)
    if index_only:
        return
    server = replace(
        config.server, host=host or config.server.host, port=config.server.port if port is None else port
    )
    run_server(replace(config, server=server))
