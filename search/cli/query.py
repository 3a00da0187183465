"""textmm search, moderate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options, opened_engine

if TYPE_CHECKING:
    from search.config import Config


@click.command()
@click.argument("words", required=False)
@click.option(
    "--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Search by this picture."
)
@click.option(
    "--vector",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Search by the vector in this .npy file, one of your own in a collection of such.",
)
@click.option("--collection", required=True)
@click.option("-k", default=10, show_default=True, help="How many hits.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="EXPRESSION",
    help="Only pictures that pass: 'colour = red and price < 50'. Given again, all must hold.",
)
@click.option("--facet", "facets", multiple=True, metavar="NAME", help="Count the values of an attribute.")
@click.option("--explain", is_flag=True, help="Say how it was searched.")
@click.option("--target", type=click.Choice(["images", "texts"]), default="images", show_default=True)
@click.option("--captions", is_flag=True, help="Caption the hits.")
@click.option("--json", "as_json", is_flag=True, help="Print the search response as JSON.")
@command_options
def search(
    words: str | None,
    image: Path | None,
    vector: Path | None,
    collection: str,
    k: int,
    filters: tuple[str, ...],
    facets: tuple[str, ...],
    explain: bool,
    target: str,
    captions: bool,
    as_json: bool,
    config: Config,
) -> None:
    """Search a collection by WORDS, by --image or by --vector. Exit code 1: nothing found."""
    from search import messages as m

    fields: dict[str, object] = {
        "collection": collection,
        "text": words,
        "vector": None if vector is None else _vector(vector),
        "k": k,
        "target": target,
        "captions": captions,
        "facets": list(facets),
        "explain": explain,
    }
    if filters:
        fields["filter"] = {"and": list(filters)} if len(filters) > 1 else filters[0]
    with opened_engine(config) as engine:
        request = m.convert(m.SearchRequest, fields)
        response = engine.search(request, image=None if image is None else image.read_bytes())
    if as_json:
        click.echo(m.to_json(response))
    else:
        for line in _lines(response):
            click.echo(line)
    if not (response.hits or response.texts):
        raise click.exceptions.Exit(1)


def _vector(path: Path) -> list[float]:
    """The numbers in a .npy file of one vector. Raises UsageError."""
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise click.UsageError(f"--vector {path}: cannot be read: {error}") from error
    if (
        not isinstance(found, np.ndarray)
        or found.dtype.kind not in "fiu"
        or found.size != max(found.shape, default=0)
    ):
        raise click.UsageError(f"--vector {path}: must be one vector of numbers")
    return [float(number) for number in found.ravel()]


def _lines(response: object) -> list[str]:
    from search.messages import SearchResponse

    assert isinstance(response, SearchResponse)
    lines = []
    if response.caption:
        lines.append(f"the picture: {response.caption.text} ({response.caption.score:.3f}, generated)")
    for text in response.texts or []:
        lines.append(f"{text.score:7.4f}  {text.text}  [{text.key}]")
    for hit in response.hits or []:
        title = f"  {hit.title}" if hit.title else ""
        caption = f"  — {hit.caption.text}" if hit.caption else ""
        lines.append(f"{hit.score:7.4f}  {hit.key}{title}{caption}")
    for name, facet in (response.facets or {}).items():
        counts = ", ".join(f"{one.value} {one.count}" for one in facet.values or [])
        lines.append(f"{name}: {counts}" + (f", none {facet.missing}" if facet.missing else ""))
    if response.explain:
        told = response.explain
        lines.append(f"{told.plan}: {told.allowed} of {told.rows} rows pass {told.filter or 'no filter'}")
    took = response.took_ms
    lines.append(
        f"{response.model_id}: {took.total:.1f} ms (encode {took.encode:.1f}, search {took.search:.1f})"
    )
    return lines


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--bank", "banks", multiple=True, required=True, help="A bank to look in; may be given again.")
@click.option("--json", "as_json", is_flag=True, help="One lookup response a picture, with its path.")
@command_options
def moderate(images: tuple[Path, ...], banks: tuple[str, ...], as_json: bool, config: Config) -> None:
    """Ask whether pictures are known to a bank: same bytes, near copy, similar. It reports, it does not
    judge.

    Exit code 1: some could not be read.
    """
    from search import messages as m
    from search.moderation import Moderation
    from textmm.transforms import ImageTooLarge, ImageUnreadable

    failed = False
    with opened_engine(config) as engine:
        moderation = Moderation(engine)
        for path in images:
            try:
                found = moderation.look_up(m.LookupRequest(banks=list(banks)), image=path.read_bytes())
            except (ImageUnreadable, ImageTooLarge, OSError) as error:
                click.echo(f"{path}: {error}", err=True)
                failed = True
                continue
            if as_json:
                row = {"image": str(path), "matches": found.matches, "model_id": found.model_id}
                click.echo(m.to_json(row))
            else:
                for line in _matches(str(path), found.matches):
                    click.echo(line)
    if failed:
        raise click.exceptions.Exit(1)


def _matches(path: str, matches: list) -> list[str]:  # type: ignore[type-arg]
    if not matches:
        return [f"{path}: no match"]
    return [
        f"{path}: {match.kind} of {match.bank}/{match.key} "
        + (f"(distance {match.distance}, limit {match.limit})" if match.kind == "near_copy" else "")
        + (f"(score {match.score:.3f}, limit {match.limit})" if match.kind == "similar" else "")
        for match in matches
    ]
