"""textmm evaluate."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options, load_encoder

if TYPE_CHECKING:
    from search.config import Config


@click.command()
@click.argument("model")
@click.argument("data_sources", metavar="DATA...", nargs=-1, required=True)
@click.option("--task", type=click.Choice(["retrieval", "classify", "caption"]), required=True)
@click.option("--label", default=None, help="classify: the attribute whose values are ranked.")
@click.option(
    "--text",
    "template",
    default=None,
    help='retrieval: queries from attributes, "{base_colour} {article_type}".',
)
@click.option(
    "--match",
    multiple=True,
    help="retrieval --text: the attributes that make a picture right.  [default: all]",
)
@click.option("--style", default="photo", show_default=True, help="caption: photo, title or attributes.")
@click.option(
    "--translate",
    default=None,
    metavar="FILE",
    help="Ask in another language: a CSV of value, translation; zh.csv is there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@command_options
def evaluate(
    model: str,
    data_sources: tuple[str, ...],
    task: str,
    label: str | None,
    template: str | None,
    match: tuple[str, ...],
    style: str,
    translate: str | None,
    as_json: bool,
    config: Config,
) -> None:
    """Measure MODEL on DATA (what `textmm index` takes): retrieval, classification or captions."""
    from textmm import evaluate as ev
    from textmm.sources import read_source

    if (task == "classify") != (label is not None):
        raise click.UsageError("--label goes with --task classify, which needs it")
    encoder = load_encoder(replace(config, model=replace(config.model, name=model)))
    data = ev.read_data(encoder, (item for source in data_sources for item in read_source(source)))
    translations = ev.load_translations(translate)
    if task == "classify":
        result = ev.classify(encoder, data, label or "", translations)
    elif task == "caption":
        result = ev.captions(encoder, data, style)
    elif template is not None:
        result = ev.attribute_retrieval(encoder, data, template, translations, match=match)
    else:
        result = ev.retrieval(encoder, data)
    metrics = {k: round(v, 4) for k, v in result.metrics.items()}
    row = {
        "dataset": " ".join(data_sources),
        "model": encoder.model_id,
        "task": result.task,
        "metrics": metrics,
    }
    if as_json:
        click.echo(json.dumps({**row, **result.counts}, ensure_ascii=False))
        return
    click.echo(
        f"{row['model']} on {row['dataset']}: {', '.join(f'{n} {k}' for k, n in result.counts.items())}"
    )
    for name, value in metrics.items():
        click.echo(f"  {name:<28} {value:.4f}")
