"""textmm index, textmm delete."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options, load_encoder, on_terminal, opened_database

if TYPE_CHECKING:
    from indexer.database import Database
    from indexer.report import IngestReport
    from indexer.seen import SeenKeys
    from indexer.store.collections import Collection
    from search.config import Config
    from textmm.encoder import Encoder
    from textmm.sources import Item


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
    """Put the pictures, or the vectors, of SOURCES into a collection.

    A source is a folder, a manifest (.csv, .tsv, .parquet, .jsonl with a column of paths), a picture, or WebDataset
    shards (.tar, patterns in quotes); or vectors that you made: Parquet with a column `vector`, or NAME.npy with
    NAME.parquet beside it. Run again, it takes up what is new or changed. Exit code 1: some failed.
    """
    from indexer.database import IMPORT_CACHE_KIB
    from textmm.vector_sources import holds_vectors

    of_vectors = {holds_vectors(source) for source in sources}
    if len(of_vectors) > 1:
        raise click.UsageError(
            "pictures and vectors together: index them apart, each into its own collection"
        )
    with opened_database(config, page_cache_kib=IMPORT_CACHE_KIB) as database:
        if of_vectors == {True}:
            if bank or caption_style is not None:
                raise click.UsageError(
                    "--bank and --caption-style are for pictures, these sources hold vectors"
                )
            report = _index_vectors(config, database, collection, sources, prune=prune)
        else:
            encoder = load_encoder(config)
            if caption_style is not None and caption_style not in encoder.styles:
                there = ", ".join(encoder.styles) or "none"
                raise click.UsageError(
                    f"--caption-style {caption_style}: styles of {encoder.model_id} are {there}"
                )
            target = ensure_collection(database, collection, bank=bank, caption_style=caption_style)
            report = index_sources(config, database, encoder, target, sources, prune=prune)
    click.echo(json.dumps(report, ensure_ascii=False) if as_json else _in_words(report, collection))
    if report["failed"]:
        raise click.exceptions.Exit(1)


def ensure_collection(database: Database, name: str, *, bank: bool, caption_style: str | None) -> Collection:
    """The collection, made when it is not there. Raises Conflict when bank was asked of a plain one."""
    from indexer.errors import Conflict
    from indexer.store.collections import Collections
    from search.limits import changed_limits

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
) -> dict[str, object]:
    """Ingest pictures, prune, publish; the report as `--json` prints it."""
    from indexer.files import Blobs
    from indexer.ingest import Ingest
    from textmm.sources import read_source

    blobs, others = Blobs(config.data / "blobs"), _of_moved(config, collection, encoder)
    ingest = Ingest(database, encoder, blobs, config.ingest, encoders=others.get)

    def feed(source: str, seen: SeenKeys) -> Iterator[IngestReport]:
        items = _remembering(read_source(source), seen)
        return ingest.run(items, collection, source=canonical(source))

    return _index(config, database, collection, sources, feed, prune=prune)


def _index_vectors(
    config: Config, database: Database, name: str, sources: Sequence[str], *, prune: bool
) -> dict[str, object]:
    """The same for vectors, without a model. The collection is made with the dimension found when there is none.

    Raises Conflict when the collection holds other vectors.
    """
    from indexer.store.collections import Collections
    from indexer.vector_ingest import VectorIngest
    from search.messages import MAX_DIM
    from textmm.vector_sources import dimension, read_vectors

    dim = dimension(sources[0])
    if dim > MAX_DIM:
        raise click.UsageError(f"{sources[0]}: vectors have {dim} numbers, the limit is {MAX_DIM}")
    collections = Collections(database)
    collections.make_external(
        ensure_collection(database, name, bank=False, caption_style=None).collection_id, dim
    )
    collection = collections.get(name)
    ingest = VectorIngest(database)

    def feed(source: str, seen: SeenKeys) -> Iterator[IngestReport]:
        return ingest.run(read_vectors(source), collection, source=canonical(source), seen=seen)

    return _index(config, database, collection, sources, feed, prune=prune)


def _index(
    config: Config,
    database: Database,
    collection: Collection,
    sources: Iterable[str],
    feed: Callable[[str, SeenKeys], Iterator[IngestReport]],
    *,
    prune: bool,
) -> dict[str, object]:
    from indexer.report import IngestReport
    from indexer.seen import SeenKeys
    from indexer.store.images import Images

    images = Images(database)
    total, removed = IngestReport(), 0
    started = time.perf_counter()
    for source in sources:
        seen = SeenKeys()
        for report in _with_bar(feed(source, seen), source):
            total.add(report)
        if prune:
            there = images.keys_of_source(collection.collection_id, canonical(source))
            gone = [key for part in there for key in seen.missing(part)]
            removed += len(images.delete(collection.collection_id, gone))
    if total.added or total.updated or removed:
        _publish(config, database, collection.name)
    seconds = time.perf_counter() - started
    done = total.added + total.updated
    return {
        "added": total.added,
        "updated": total.updated,
        "unchanged": total.unchanged,
        **({"removed": removed} if prune else {}),
        "failed": [{"key": f.key, "reason": f.reason} for f in total.failed],
        "seconds": round(seconds, 3),
        "images_per_s": round(done / seconds, 1) if done else 0.0,
        "stages": {k: round(v, 3) for k, v in total.stages_s.items()},
    }


def _publish(config: Config, database: Database, name: str) -> None:
    from indexer.live import LiveIndex
    from indexer.store.collections import Collections

    live = LiveIndex(database, config.data / "indexes", config.index)
    if live.view(Collections(database).get(name)) is not None:
        live.poll()
        live.fold_due()


def _of_moved(config: Config, collection: Collection, own: Encoder) -> dict[str, Encoder]:
    """The model of a collection that was switched to another one than that of the settings."""
    serves = collection.generation
    if serves is None or serves.model_name is None or serves.model_id == own.model_id:
        return {}
    other = load_encoder(config, serves.model_name)
    return {other.model_id: other}


def canonical(source: str) -> str:
    """The name under which a source is remembered: its absolute path or pattern."""
    return str(Path(source).absolute())


def _remembering(items: Iterable[Item], seen: SeenKeys) -> Iterator[Item]:
    for item in items:
        seen.add([item.key])
        yield item


def _with_bar(reports: Iterator[IngestReport], what: str) -> Iterator[IngestReport]:
    from tqdm import tqdm

    with tqdm(unit=" rows", desc=what, disable=not on_terminal(), smoothing=0.1) as bar:
        for report in reports:
            bar.update(report.added + report.updated + report.unchanged + len(report.failed))
            yield report


def _in_words(report: dict[str, object], collection: str) -> str:
    failed = report["failed"]
    assert isinstance(failed, list)
    counts = [f"{report[k]} {k}" for k in ("added", "updated", "unchanged", "removed") if k in report]
    lines = [f"{collection}: {', '.join(counts)}, {len(failed)} failed"]
    lines[0] += f" in {report['seconds']} s ({report['images_per_s']} rows/s)"
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
