"""textmm fsck, snapshot, restore."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options, opened_database

if TYPE_CHECKING:
    from indexer.snapshot import Snapshot
    from search.config import Config


@click.command()
@click.argument("collection", required=False)
@click.option("--contents", is_flag=True, help="Read the blobs too and compare their sha256.")
@click.option(
    "--repair", is_flag=True, help="Build anew, from the rows, each index that does not agree with them."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a problem.")
@command_options
def fsck(collection: str | None, contents: bool, repair: bool, as_json: bool, config: Config) -> None:
    """Prove that rows, index files and blobs agree. Servers and writers may go on meanwhile.

    Exit code 1: problems are left.
    """
    from indexer.fsck import Fsck
    from indexer.store.collections import Collections

    left = 0
    with opened_database(config) as database:
        check = Fsck(database, config.data, config.index)
        if collection is None:
            problems = list(check.check(contents=contents))
        else:
            problems = list(check.check_collection(Collections(database).get(collection)))
        refused: dict[str, str | None] = {}
        if repair:
            names = dict.fromkeys(one.where for one in problems if one.in_cache)
            refused = {name: check.rebuild(name) for name in names}
        for one in problems:
            done = one.in_cache and one.where in refused and refused[one.where] is None
            left += not done
            if as_json:
                row = {"where": one.where, "problem": one.what, "in_cache": one.in_cache, "mended": done}
                click.echo(json.dumps(row, ensure_ascii=False))
            else:
                click.echo(f"{one.where}: {one.what}{_remedy(one.in_cache, done, refused.get(one.where))}")
    if not problems and not as_json:
        click.echo("clean")
    if left:
        raise click.exceptions.Exit(1)


def _remedy(in_cache: bool, done: bool, refused: str | None) -> str:
    if not in_cache:
        return ""
    return (
        " (built anew)"
        if done
        else f" (not built anew: {refused})"
        if refused
        else " (mend it with --repair)"
    )


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@command_options
def snapshot(file: Path, config: Config) -> None:
    """Write all rows of this moment and their blobs to FILE, one archive. Writers may go on meanwhile.

    Pictures that were indexed from folders or shards are not in it, but where they lie is.
    """
    from indexer.snapshot import write_snapshot

    with opened_database(config) as database:
        _tell(write_snapshot(database, config.data, file), f"{file}: written")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@command_options
def restore(file: Path, config: Config) -> None:
    """Put the archive FILE into an empty database and data folder, once every part of it is proved whole."""
    from indexer.snapshot import restore_snapshot

    with opened_database(config, upgrade=False) as database:
        _tell(restore_snapshot(database, config.data, file), f"{file}: restored")


def _tell(done: Snapshot, what: str) -> None:
    click.echo(f"{what}, {len(done.files)} files, schema {done.revision}, of {done.created_at}")
    for one in done.collections:
        click.echo(f"  {one['name']}: {one['images']} images, model {one['model_id'] or 'none yet'}")
