"""textmm index, textmm delete."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from search.cli.context import command_options, load_encoder, on_terminal, opened_database

if TYPE_CHECKING:
    from indexer.database import Database
    from indexer.ingest import IngestReport
    from indexer.store.collections import Collection
    from search.config import Config
    from textmm.encoder import Encoder

T = TypeVar("T")


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--collection", required=True, help="Name of the collection; made when it is not there.")
@click.option("--bank", is_flag=True, help="Make it a bank for moderation: near copies are hashed.")
@click.option("--prune", is_flag=True, help="Delete what these sources no longer hold.")
@click.option("--caption-style", default=None, help="Style of its captions: photo, title, attributes.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@command_options
def index(
    sources: tuple[str, ...],
    collection: str,
    bank: bool,
    prune: bool,
    caption_style: str | None,
    as_json: bool,
    config: Config,
) -> None:
    """Put the pictures of SOURCES into a collection.

    A source is a folder, a manifest (.csv, .tsv, .parquet, .jsonl with a column of paths), a picture, or WebDataset
    shards (.tar, patterns in quotes). Run again, it takes up what is new or changed. Exit code 1: some failed.
    """
    with opened_database(config) as database:
        encoder = load_encoder(config)
        if caption_style is not None and caption_style not in encoder.styles:
            there = ", ".join(encoder.styles) or "none"
            raise click.UsageError(
                f"--caption-style {caption_style}: styles of {encoder.model_id} are {there}"
            )
        target = ensure_collection(database, collection, bank=bank, caption_style=caption_style)
        report, _ = index_sources(config, database, encoder, target, sources, prune=prune)
    click.echo(json.dumps(report, ensure_ascii=False) if as_json else _in_words(report, collection))
    if report["failed"]:
        raise click.exceptions.Exit(1)


def ensure_collection(database: Database, name: str, *, bank: bool, caption_style: str | None) -> Collection:
    """The collection, made when it is not there. Raises Conflict when bank was asked of a plain one."""
    from indexer.errors import Conflict
    from indexer.store.collections import Collections
    from search.catalogue import changed_limits

    collections = Collections(database)
    there = collections.find(name)
    if there is None:
        limits = changed_limits({})
        try:
            return collections.create(name, is_bank=bank, limits=limits, caption_style=caption_style)
        except Conflict:  # another process was quicker
            there = collections.get(name)
    if bank and not there.is_bank:
        raise Conflict(f"collection {name!r} exists and is no bank: choose another name")
    if caption_style is not None:
        collections.set(there.collection_id, limits=there.limits, caption_style=caption_style)
    return collections.get(name)


def index_sources(
    config: Config,
    database: Database,
    encoder: Encoder,
    collection: Collection,
    sources: Iterable[str],
    *,
    prune: bool,
) -> tuple[dict[str, object], list[str]]:
    """Ingest, prune, publish; (the report as `--json` prints it, keys removed)."""
    from indexer.files import Blobs
    from indexer.ingest import Ingest, IngestReport
    from indexer.live import LiveIndex
    from indexer.store.collections import Collections
    from indexer.store.images import Images
    from textmm.sources import read_source

    ingest = Ingest(database, encoder, Blobs(config.data / "blobs"), config.ingest)
    images = Images(database)
    total, removed = IngestReport(), []
    started = time.perf_counter()
    for source in sources:
        name = canonical(source)
        seen: set[str] = set()
        items = _remembering(read_source(source), seen)
        for report in _with_bar(ingest.run(items, collection, source=name), source):
            total.add(report)
        if prune:
            gone = images.keys_of_source(collection.collection_id, name) - seen
            removed += images.delete(collection.collection_id, sorted(gone))
    live = LiveIndex(database, config.data / "indexes", config.index)
    if live.view(Collections(database).get(collection.name)) is not None and (
        total.added or total.updated or removed
    ):
        live.poll()
        live.fold_due()
    seconds = time.perf_counter() - started
    done = total.added + total.updated
    return {
        "added": total.added,
        "updated": total.updated,
        "unchanged": total.unchanged,
        **({"removed": len(removed)} if prune else {}),
        "failed": [{"key": f.key, "reason": f.reason} for f in total.failed],
        "seconds": round(seconds, 3),
        "images_per_s": round(done / seconds, 1) if done else 0.0,
        "stages": {k: round(v, 3) for k, v in total.stages_s.items()},
    }, removed


def canonical(source: str) -> str:
    """The name under which a source is remembered: its absolute path or pattern."""
    return str(Path(source).absolute())


def _remembering(items: Iterable[T], seen: set[str]) -> Iterator[T]:
    for item in items:
        seen.add(item.key)  # type: ignore[attr-defined]
        yield item


def _with_bar(reports: Iterator[IngestReport], what: str) -> Iterator[IngestReport]:
    from tqdm import tqdm

    with tqdm(unit="picture", desc=what, disable=not on_terminal(), smoothing=0.1) as bar:
        for report in reports:
            bar.update(report.added + report.updated + report.unchanged + len(report.failed))
            yield report


def _in_words(report: dict[str, object], collection: str) -> str:
    failed = report["failed"]
    assert isinstance(failed, list)
    counts = [f"{report[k]} {k}" for k in ("added", "updated", "unchanged", "removed") if k in report]
    lines = [f"{collection}: {', '.join(counts)}, {len(failed)} failed"]
    lines[0] += f" in {report['seconds']} s ({report['images_per_s']} pictures/s)"
    lines += [f"  {f['key']}: {f['reason']}" for f in failed[:20]]
    if len(failed) > 20:
        lines.append(f"  … and {len(failed) - 20} more; --json lists all")
    return "\n".join(lines)


@click.command()
@click.argument("collection")
@click.argument("keys", nargs=-1)
@click.option("--yes", is_flag=True, help="Do not ask before a whole collection goes.")
@command_options
def delete(collection: str, keys: tuple[str, ...], yes: bool, config: Config) -> None:
    """Delete KEYS of a COLLECTION, or the whole collection when no key is given. Exit code 1: a key was not
    there.
    """
    from indexer.store.collections import Collections
    from indexer.store.images import Images

    with opened_database(config) as database:
        collections = Collections(database)
        found = collections.get(collection)
        if not keys:
            images, _ = collections.counts(found.collection_id)
            if not yes and not click.confirm(f"delete collection {collection} with its {images} images?"):
                click.echo("nothing deleted", err=True)
                raise click.exceptions.Exit(1)
            collections.delete(collection)
            click.echo(f"{collection}: deleted with {images} images")
            return
        gone = Images(database).delete(found.collection_id, keys)
        click.echo(f"{collection}: {len(gone)} deleted")
    missing = [key for key in keys if key not in gone]
    if missing:
        click.echo(f"not there: {', '.join(missing)}", err=True)
        raise click.exceptions.Exit(1)
