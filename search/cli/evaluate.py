"""textmm evaluate, textmm calibrate."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search.cli.context import command_options, load_encoder

if TYPE_CHECKING:
    from search.config import Config
    from textmm.encoder import Encoder
    from textmm.evaluate import DataSet
    from textmm.figures import Evaluation

TO_STDOUT = "-"


def _checked(context: click.Context, option: click.Parameter, templates: tuple[str, ...]) -> tuple[str, ...]:
    from textmm.classify import check_template

    for template in templates:
        try:
            check_template(template)
        except ValueError as error:
            raise click.BadParameter(str(error), context, option) from error
    return templates


@click.command()
@click.argument("model")
@click.argument("data_sources", metavar="DATA...", nargs=-1, required=True)
@click.option("--task", type=click.Choice(["retrieval", "classify", "caption", "ask"]), required=True)
@click.option("--label", default=None, help="classify: the attribute whose values are ranked.")
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="TEXT",
    callback=_checked,
    help='classify: a prompt, "a photo of a {}"; given again, they are averaged.  [default: {}, the bare label]',
)
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
@click.option(
    "--text-column",
    default="",
    metavar="NAME",
    help="retrieval: a column whose words are texts too: `query` in a table of clicks.",
)
@click.option(
    "--style",
    default=None,
    help="caption: photo, title or attributes.  [default: photo; attributes in zh]",
)
@click.option(
    "--beams",
    type=click.IntRange(1, 64),
    default=None,
    metavar="N",
    help="caption: captions looked at side by side.  [default: the model's]",
)
@click.option(
    "--dimensions",
    type=int,
    default=None,
    metavar="N",
    help="retrieval, classify: with vectors of their first N numbers.  [default: all]",
)
@click.option(
    "--questions",
    default=None,
    metavar="FILE",
    help="ask: a TOML file like textmm/recipes/questions.toml.  [default: that one]",
)
@click.option("--language", default="en", show_default=True, help="ask, caption: en or zh.")
@click.option(
    "--translate",
    default=None,
    metavar="FILE",
    help="Ask in another language: a CSV of value, translation; zh.csv is there.",
)
@click.option(
    "--json",
    "json_file",
    is_flag=False,
    flag_value=TO_STDOUT,
    default=None,
    metavar="[FILE]",
    help="Write one JSON object to FILE beside the table; without FILE, print it in place of the table.",
)
@click.option(
    "--pictures",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    metavar="DIR",
    help="Draw recall curve, confusion matrix, reliability and the worst misses into DIR.",
)
@command_options
def evaluate(
    model: str,
    data_sources: tuple[str, ...],
    task: str,
    label: str | None,
    templates: tuple[str, ...],
    template: str | None,
    match: tuple[str, ...],
    text_column: str,
    style: str | None,
    beams: int | None,
    dimensions: int | None,
    questions: str | None,
    language: str,
    translate: str | None,
    json_file: str | None,
    pictures: Path | None,
    config: Config,
) -> None:
    """Measure MODEL on DATA (what `textmm index` takes): retrieval, classification, captions or answers.

    In brackets: 95 % bootstrap intervals over the queries, pictures or captions. Questions are made of the
    attributes or sentences of DATA, one for each picture; half of those for yes or no are true.
    """
    from textmm import calibration
    from textmm import evaluate as ev
    from textmm.sources import read_source
    from textmm.wording import style_in

    if (task == "classify") != (label is not None):
        raise click.UsageError("--label goes with --task classify, which needs it")
    _check_options(
        task,
        {
            "template": (bool(templates), ("classify",)),
            "questions": (questions is not None, ("ask",)),
            "beams": (beams is not None, ("caption",)),
            "language": (language != "en", ("ask", "caption")),
            "text-column": (bool(text_column), ("retrieval",)),
            "dimensions": (dimensions is not None, ("retrieval", "classify")),
        },
    )
    _check_places(json_file, pictures)
    encoder = load_encoder(replace(config, model=replace(config.model, name=model)))
    encoder = encoder.shortened(encoder.embed_dim if dimensions is None else dimensions)
    items = (item for source in data_sources for item in read_source(source))
    data = ev.read_data(encoder, items, text_column=text_column)
    translations = ev.load_translations(translate)
    if task == "classify":
        said = templates or calibration.TEMPLATES
        result = ev.classify(encoder, data, label or "", translations, templates=said)
    elif task == "caption":
        result = ev.captions(encoder, data, style_in(style, language), beams=beams)
    elif task == "ask":
        result = _asked(encoder, data, questions, language)
    elif template is not None:
        result = ev.attribute_retrieval(encoder, data, template, translations, match=match)
    else:
        result = ev.retrieval(encoder, data)
    _show(result, encoder, {"pretrained": model, "language": language}, " ".join(data_sources), json_file)
    if pictures is not None:
        from textmm.charts import draw

        for path in draw(result.pictures, data.items, pictures):
            click.echo(f"drew {path}", err=True)


def _check_options(task: str, options: Mapping[str, tuple[bool, tuple[str, ...]]]) -> None:
    """Whether each that is given goes with the task."""
    for name, (given, tasks) in options.items():
        if given and task not in tasks:
            raise click.UsageError(f"--{name} goes with --task {' or '.join(tasks)}")


def _show(
    result: Evaluation, encoder: Encoder, said: Mapping[str, str], dataset: str, json_file: str | None
) -> None:
    row = json.dumps(
        {"dataset": dataset, "model": encoder.model_id, **said, **_row(result)},
        ensure_ascii=False,
    )
    if json_file == TO_STDOUT:
        click.echo(row)
    else:
        click.echo("\n".join(_table(f"{encoder.model_id} on {dataset}", result)))
        if json_file is not None:
            Path(json_file).write_text(row + "\n", encoding="utf-8")


def _asked(encoder: Encoder, data: DataSet, file: str | None, language: str) -> Evaluation:
    from textmm.answers import ask, questions_about
    from textmm.questions import USUAL

    try:
        asked = questions_about(data, file or USUAL, language=language)
        return ask(encoder.answer, data, asked, at_least=encoder.calibration.answer_at_least)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from error


def _check_places(json_file: str | None, pictures: Path | None) -> None:
    """Before minutes of work: can the results be written where they shall go?"""
    if json_file not in (None, TO_STDOUT) and not Path(json_file).parent.is_dir():
        raise click.UsageError(f"--json {json_file}: there is no folder {Path(json_file).parent}")
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)


def _row(result: Evaluation) -> dict[str, Any]:
    """The result under CLIP_benchmark's field names; its own come after them."""
    row: dict[str, Any] = {
        "task": result.task,
        "metrics": _rounded(result.metrics),
        **result.counts,
        "intervals": {name: [_number(end) for end in ends] for name, ends in result.intervals.items()},
    }
    if result.per_class:
        row["per_class"] = {
            label: {
                **_rounded({"precision": of.precision, "recall": of.recall, "f1": of.f1}),
                "support": of.support,
                "intervals": {name: [_number(end) for end in ends] for name, ends in of.intervals.items()},
            }
            for label, of in result.per_class.items()
        }
    return row


def _rounded(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in figures.items()}


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else round(value, 4)


def _table(title: str, result: Evaluation) -> Iterator[str]:
    yield f"{title}: {', '.join(f'{n} {name}' for name, n in result.counts.items())}"
    for name, value in result.metrics.items():
        yield f"  {name:<28} {value:.4f}  {_brackets(result.intervals[name])}"
    if result.per_class:
        longest = max(len(label) for label in ("label", *result.per_class))
        yield ""
        columns = "  ".join(f"{name:<23}" for name in ("precision", "recall", "f1"))
        yield f"  {'label':<{longest}}  {columns}  pictures"
        for label, of in sorted(result.per_class.items(), key=lambda pair: pair[1].f1):
            values = zip(("precision", "recall", "f1"), (of.precision, of.recall, of.f1), strict=True)
            cells = "  ".join(f"{value:.4f} {_brackets(of.intervals[name])}" for name, value in values)
            yield f"  {label:<{longest}}  {cells}  {of.support:>8}"


def _brackets(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.4f}, {ends[1]:.4f}]"


@click.command()
@click.argument("model")
@click.argument("data_sources", metavar="DATA...", nargs=-1, required=True)
@click.option(
    "--label", "labels", multiple=True, required=True, help="An attribute to fit on; may be given again."
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="TEXT",
    callback=_checked,
    help="A prompt, as in `textmm evaluate`.",
)
@click.option(
    "--precision",
    default=0.8,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="How often a value that is told must be right.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write.  [default: calibration.json beside the weights of MODEL]",
)
@command_options
def calibrate(
    model: str,
    data_sources: tuple[str, ...],
    labels: tuple[str, ...],
    templates: tuple[str, ...],
    precision: float,
    out: Path | None,
    config: Config,
) -> None:
    """Fit the temperatures of MODEL's probabilities on labelled pictures, which must be new to it.

    DATA is what `textmm index` takes, with attributes. The model's vectors and its id stay as they are.
    """
    from textmm import calibration, checkpoint, open_clip_models
    from textmm import evaluate as ev
    from textmm.answers import least_of_choices, least_told, questions_about
    from textmm.sources import read_source

    published = open_clip_models.find(model, config.models)
    folder = checkpoint.find(model) if published is None else published.folder
    path = out or folder / calibration.FILE
    if not path.parent.is_dir():
        raise click.UsageError(f"--out {path}: there is no folder {path.parent}")
    encoder = load_encoder(replace(config, model=replace(config.model, name=model)))
    data = ev.read_data(encoder, (item for source in data_sources for item in read_source(source)))
    names = list(dict.fromkeys(labels))
    fitted = ev.calibrate(
        encoder,
        data,
        names,
        templates=templates or calibration.TEMPLATES,
        precision=precision,
        fitted_on=f"{len(data.items)} pictures, by {', '.join(names)}",
    )
    if encoder.asks:
        asked = questions_about(data)
        before = encoder.calibration
        told, chosen = before.answer_at_least, before.choices_at_least
        if asked:
            told = least_told(encoder, data, asked, precision)
            chosen = least_of_choices(encoder, data, asked, told, precision)
        fitted = replace(fitted, answer_at_least=told, choices_at_least=chosen)
    checkpoint.write_atomically(path, lambda file: file.write_text(calibration.to_json(fitted), "utf-8"))
    click.echo(f"temperature {fitted.temperature:.4f}, {fitted.fitted_on}: {path}")
    for name in names:
        one = fitted.attributes[name]
        how = f"told from probability {one.at_least} on"
        if one.at_least is None:
            how = "told only where captions say the same"
        click.echo(f"  {name}: {len(one.values)} values, temperature {one.temperature:.4f}, {how}")
    if encoder.asks:
        click.echo(
            f"  answers to questions: told from probability {fitted.answer_at_least} on, given choices where all of "
            f"them have {fitted.choices_at_least}"
        )
