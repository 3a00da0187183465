"""textmm status, textmm db upgrade."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from search.cli.context import command_options, opened_database

if TYPE_CHECKING:
    from indexer.store.builds import Build, Link
    from indexer.store.collections import Collection
    from indexer.store.embeddings import Target
    from indexer.vectors.tuning import Tuning
    from search.config import Config


@click.command()
@click.argument("collection", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a collection.")
@command_options
def status(collection: str | None, as_json: bool, config: Config) -> None:
    """What there is: images, texts, model and index of all collections or of one.

    Of one collection also its segments and, of those with an approximate index, recall against latency as measured when
    it was built.
    """
    from indexer.store.builds import Builds
    from indexer.store.collections import Collections
    from indexer.store.embeddings import Embeddings

    with opened_database(config) as database:
        collections, builds, embeddings = Collections(database), Builds(database), Embeddings(database)
        chosen = [collections.get(collection)] if collection else collections.all()
        for one in chosen:
            images, texts = collections.counts(one.collection_id)
            row: dict[str, Any] = {
                "collection": one.name,
                "bank": one.is_bank,
                "images": images,
                "texts": texts,
                "model_id": None,
            }
            chain: list[Link] = []
            if one.generation is not None:
                ids = (one.collection_id, one.generation.generation_id)
                chain = builds.chain(*ids)
                row |= {
                    "model_id": one.generation.model_id,
                    "vectors": embeddings.alive(*ids),
                    "change_seq": one.change_seq,
                    "folded_seq": chain[-1].through_seq if chain else 0,
                    "segments": [said for link in chain for said in _segments(link)],
                }
            if as_json:
                click.echo(json.dumps(row))
            else:
                click.echo("\n".join(_in_words(one, row, chain if collection else None)))
        if not chosen:
            click.echo("no collections: make one with `textmm index SOURCE --collection NAME`", err=True)


def _segments(link: Link) -> Iterator[dict[str, Any]]:
    for target, build in link.builds.items():
        said: dict[str, Any] = {"target": target, "rows": build.rows, "kind": build.kind}
        yield {**said, "from_seq": link.from_seq, "through_seq": link.through_seq, "measured": build.measured}


def _in_words(one: Collection, row: dict[str, Any], chain: Sequence[Link] | None) -> Iterator[str]:
    kind = "bank" if one.is_bank else "collection"
    yield f"{kind} {one.name}: {row['images']} images, {row['texts']} texts, model {row['model_id'] or 'none yet'}"
    if chain is None or one.generation is None:
        return
    yield f"  vectors {row['vectors']}, index through change {row['folded_seq']} of {one.change_seq}"
    for link in chain:
        for target, build in link.builds.items():
            if build.rows:
                yield from _segment_in_words(target, build)


def _segment_in_words(target: Target, build: Build) -> Iterator[str]:
    from indexer.vectors.tuning import Tuning

    tuning = Tuning.of(build.measured)
    if tuning is None:
        yield f"  {target}: {build.rows} rows, exact"
        return
    at = tuning.at(tuning.ks[0])
    yield (
        f"  {target}: {build.rows} rows, {build.kind}: recall@{at.k} {at.recall:.3f} in {at.ms:.3f} ms a query "
        f"(exact search {tuning.exact_ms:.2f} ms), built in {tuning.build_s:.1f} s"
    )
    yield from _curve(tuning, at.effort)


def _curve(tuning: Tuning, used: int) -> Iterator[str]:
    """Recall against latency, as a table and as a picture."""
    points = [point for point in tuning.points if point.k == tuning.ks[0]]
    yield "      effort   recall       ms"
    for point in points:
        mark = "  <- used" if point.effort == used else ""
        yield f"    {point.effort:8d} {point.recall:8.4f} {point.ms:8.4f}{mark}"
    yield from (f"    {line}" for line in plot([(p.ms, p.recall) for p in points], target=tuning.target))


def plot(
    points: Sequence[tuple[float, float]], *, target: float, width: int = 56, height: int = 9
) -> list[str]:
    """Points (ms, recall) in characters, ms to the right on a logarithmic scale; a dotted line where the target is."""
    import math

    floor = min(target, *(recall for _, recall in points))
    low, high = math.log(min(ms for ms, _ in points)), math.log(max(ms for ms, _ in points))

    def row(recall: float) -> int:
        return round((1 - recall) / max(1 - floor, 1e-9) * (height - 1))

    canvas = [[" "] * width for _ in range(height)]
    canvas[row(target)] = list("·" * width)
    for ms, recall in points:
        column = round((math.log(ms) - low) / max(high - low, 1e-9) * (width - 1))
        canvas[row(recall)][column] = "●"
    edge = {0: 1.0, row(target): target, height - 1: floor}
    lines = [
        f"{edge[i]:6.3f} │" + "".join(line) if i in edge else "       │" + "".join(line)
        for i, line in enumerate(canvas)
    ]
    scale = f"{math.exp(low):.3f} ms".ljust(width - 10) + f"{math.exp(high):.3f} ms".rjust(10)
    return [*lines, "       └" + "─" * width, "        " + scale]


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
