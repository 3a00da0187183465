"""textmm caption, classify, ask, alt, copy: tasks over pictures that are in no collection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search.cli.context import command_options, load_encoder

if TYPE_CHECKING:
    from PIL import Image

    from search.config import Config
    from textmm.encoder import Encoder

BATCH = 32
IMAGES = click.argument(
    "images", nargs=-1, required=True, metavar="PICTURE...", type=click.Path(dir_okay=False, path_type=Path)
)
STYLE = click.option(
    "--style",
    default=None,
    help="photo, for everyday photos; title or attributes, for products.  [default: photo; attributes in zh]",
)
MODEL = click.option(
    "--model",
    default="",
    metavar="NAME",
    help="As `textmm evaluate` takes it.  [default: that of the settings]",
)
LANGUAGE = click.option(
    "--language", type=click.Choice(["en", "zh"]), default="en", show_default=True, help="zh: attributes."
)


@click.command()
@IMAGES
@STYLE
@LANGUAGE
@click.option(
    "--beams",
    type=click.IntRange(1, 64),
    default=None,
    metavar="N",
    help="Captions looked at side by side: more are better and slower.  [default: the model's]",
)
@click.option(
    "--temperature",
    type=float,
    default=0.0,
    show_default=True,
    help="Above 0, words are drawn: with one beam.",
)
@click.option(
    "--top-p", type=float, default=1.0, show_default=True, help="Drawn are the likeliest words only."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of what is drawn."
)
@click.option(
    "--repetition-penalty", type=float, default=1.0, show_default=True, help="Above 1, words come again less."
)
@click.option("--min-length", type=int, default=0, show_default=True, metavar="N", help="Tokens at least.")
@click.option("--max-length", type=int, default=None, metavar="N", help="Tokens at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a picture.")
@MODEL
@command_options
def caption(
    images: tuple[Path, ...],
    style: str | None,
    language: str,
    as_json: bool,
    model: str,
    config: Config,
    **decoding: Any,
) -> None:
    """Put pictures into words: a line each. Exit code 1: some could not be read."""
    import json

    from textmm.encoder import CaptionDecoding
    from textmm.wording import style_in

    encoder = load_encoder(config, model)
    style, how = style_in(style, language), CaptionDecoding(**decoding)
    reading = _Reading(encoder, config)
    for paths, pictures in reading.batches(images):
        for path, made in zip(paths, encoder.caption_images(pictures, style=style, how=how), strict=True):
            row = {"image": str(path), "caption": made.text, "score": round(made.score, 6), "generated": True}
            line = f"{path}\t{made.text}\t{made.score:.3f}"
            click.echo(json.dumps(row, ensure_ascii=False) if as_json else line)
    reading.finish()


@click.command()
@IMAGES
@click.option("--labels", default=None, metavar="A,B,C", help="Any labels, with commas between them.")
@click.option(
    "--labels-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of labels, one a line.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="TEXT",
    help='A prompt, "a photo of a {}"; given again, they are averaged.  [default: the model\'s own]',
)
@click.option("-k", default=5, show_default=True, help="How many labels of each picture.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a picture.")
@MODEL
@command_options
def classify(
    images: tuple[Path, ...],
    labels: str | None,
    labels_file: Path | None,
    templates: tuple[str, ...],
    k: int,
    as_json: bool,
    model: str,
    config: Config,
) -> None:
    """How likely each of the labels is for each picture. Exit code 1: some could not be read."""
    from search import messages as m
    from search.classify import Classifier, check_labels

    if (labels is None) == (labels_file is None):
        raise click.UsageError("give either --labels or --labels-file")
    lines = (
        (labels or "").split(",") if labels_file is None else labels_file.read_text("utf-8-sig").splitlines()
    )
    names = [line.strip() for line in lines if line.strip()]
    request = m.convert(m.ClassifyRequest, {"labels": names, "templates": list(templates), "k": k})
    encoder = load_encoder(config, model)
    check_labels(names, request.templates or encoder.calibration.templates)
    classifier = Classifier(encoder, encoder)
    reading = _Reading(encoder, config)
    for paths, pictures in reading.batches(images):
        for path, found in zip(paths, classifier.classify(pictures, request).results, strict=True):
            if as_json:
                click.echo(
                    m.to_json({"image": str(path), "labels": found.labels, "model_id": encoder.model_id})
                )
            else:
                said = ", ".join(f"{one.label} {one.probability:.3f}" for one in found.labels)
                click.echo(f"{path}\t{said}")
    reading.finish()


@click.command()
@click.argument("image", metavar="PICTURE", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("question")
@click.option("--choices", default="", metavar="A,B,C", help="Answers to rank, with commas between them.")
@click.option(
    "--language", type=click.Choice(["en", "zh"]), help="Of the answer.  [default: that of the question]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@MODEL
@command_options
def ask(
    image: Path,
    question: str,
    choices: str,
    language: str | None,
    as_json: bool,
    model: str,
    config: Config,
) -> None:
    """Answer a QUESTION about a PICTURE, in English or Chinese; free, or the likeliest of given choices.

    Exit code 1: it does not know.
    """
    from search import messages as m
    from search.ask import ask as answered
    from search.ask import check_asks

    given = [choice.strip() for choice in choices.split(",") if choice.strip()]
    request = m.convert(m.AskRequest, {"question": question, "choices": given, "language": language})
    encoder = load_encoder(config, model)
    check_asks(encoder, request)
    reading = _Reading(encoder, config)
    for _, pictures in reading.batches((image,)):
        (found,) = answered(encoder, pictures, request, calibration=encoder.calibration)
        if as_json:
            click.echo(m.to_json({"image": str(image), "result": found, "model_id": encoder.model_id}))
        else:
            click.echo(f"{found.answer} ({found.confidence:.2f})")
            for one in found.choices:
                click.echo(f"  {one.answer}\t{one.confidence:.3f}")
        if not found.known:
            raise click.exceptions.Exit(1)
    reading.finish()


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="A file, written whole.  [default: print]"
)
@click.option("--html", "as_html", is_flag=True, help='<img src="KEY" alt="…"> lines instead of CSV.')
@STYLE
@LANGUAGE
@MODEL
@command_options
def alt(
    sources: tuple[str, ...],
    out: Path | None,
    as_html: bool,
    style: str | None,
    language: str,
    model: str,
    config: Config,
) -> None:
    """Alt text for all pictures of SOURCES (what `textmm index` takes): CSV of key, alt, confidence.

    Exit code 1: some could not be read; they are named, and not in the output.
    """
    from search.alt_text import AltText, alt_texts, csv_header, csv_line, img_line
    from textmm.checkpoint import write_atomically
    from textmm.sources import read_source
    from textmm.wording import style_in

    encoder = load_encoder(config, model)
    style = style_in(style, language)
    if style not in encoder.styles:
        there = ", ".join(encoder.styles) or "none: this model does not caption"
        raise click.UsageError(f"--style {style}: styles of {encoder.model_id} are {there}")
    items = (item for source in sources for item in read_source(source))
    failed = 0

    def lines() -> Iterator[str]:
        nonlocal failed
        if not as_html:
            yield csv_header()
        for one in alt_texts(items, encoder, style=style, max_pixels=config.server.max_image_pixels):
            if isinstance(one, AltText):
                yield img_line(one) if as_html else csv_line(one)
            else:
                failed += 1
                click.echo(f"{one.key}: {one.reason}", err=True)

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines())

    if out is None:
        for line in lines():
            click.echo(line, nl=False)
    else:
        write_atomically(out, write)
    if failed:
        raise click.exceptions.Exit(1)


@click.command()
@IMAGES
@click.option("--json", "as_json", is_flag=True, help="One JSON object a picture.")
@MODEL
@command_options
def copy(images: tuple[Path, ...], as_json: bool, model: str, config: Config) -> None:
    """Product copy of pictures: title, short description, attributes; all of it generated, a draft to check.

    Exit code 1: some could not be read.
    """
    from search import messages as m
    from search.classify import Classifier
    from search.copywriting import Copywriter

    encoder = load_encoder(config, model)
    writer = Copywriter(encoder, encoder, Classifier(encoder, encoder))
    reading = _Reading(encoder, config)
    for paths, pictures in reading.batches(images):
        for path, found in zip(paths, writer.write(pictures), strict=True):
            if as_json:
                row = {"image": str(path), "copy": found, "model_id": encoder.model_id}
                click.echo(m.to_json(row))
                continue
            click.echo(
                f"{path} (generated)\n  title        {found.title}\n  description  {found.description}"
            )
            for name, one in found.attributes.items():
                click.echo(f"  {name:<12} {one.value} ({one.probability:.2f})")
    reading.finish()


class _Reading:
    """Pictures from files, a batch at a time; those that cannot be read are named on the way."""

    def __init__(self, encoder: Encoder, config: Config) -> None:
        self._encoder, self._max_pixels = encoder, config.server.max_image_pixels
        self._failed = False

    def batches(self, paths: tuple[Path, ...]) -> Iterator[tuple[list[Path], list[Image.Image]]]:
        from textmm.transforms import ImageTooLarge, ImageUnreadable, decode_image

        for start in range(0, len(paths), BATCH):
            read, pictures = [], []
            for path in paths[start : start + BATCH]:
                try:
                    picture = decode_image(path.read_bytes(), max_pixels=self._max_pixels)
                except (ImageUnreadable, ImageTooLarge, OSError) as error:
                    click.echo(f"{path}: {error}", err=True)
                    self._failed = True
                    continue
                read.append(path)
                pictures.append(self._encoder.fit(picture))
            if read:
                yield read, pictures

    def finish(self) -> None:
        """Raises Exit with code 1 when some could not be read."""
        if self._failed:
            raise click.exceptions.Exit(1)
