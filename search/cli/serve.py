"""textmm serve: the application under a production WSGI server."""

from __future__ import annotations

import math
import signal
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from search.cli.context import command_options, load_encoder, log_to_stderr

if TYPE_CHECKING:
    from search.config import Config


@click.command()
@click.option("--host", default=None, help="Address to listen on.  [default: server.host]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=None,
    help="Port; 0 takes a free one.  [default: server.port]",
)
@command_options
def serve(host: str | None, port: int | None, config: Config) -> None:
    """Serve the page and the API until SIGTERM or Ctrl-C, which let running requests finish."""
    log_to_stderr()
    server = replace(
        config.server, host=host or config.server.host, port=config.server.port if port is None else port
    )
    run_server(replace(config, server=server))


def run_server(config: Config) -> None:
    """Blocks until a signal; then no new connection is taken and what runs is finished."""
    from cheroot.wsgi import Server

    from search.app import close, create_app
    from search.memory import limit_arenas

    limit_arenas()
    app = create_app(config, encoder=load_encoder(config))
    server = Server(
        (config.server.host, config.server.port),
        app,
        numthreads=config.server.threads,
        request_queue_size=128,
        shutdown_timeout=math.ceil(config.server.shutdown_s),
        server_name="textmm",
    )
    server.max_request_header_size = 64 * 1024
    try:
        server.prepare()
    except OSError as error:
        close(app)
        raise click.ClickException(
            f"cannot listen on {config.server.host}:{config.server.port}: {error}"
        ) from error
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    thread = threading.Thread(target=server.serve, name="http")
    thread.start()
    at_host, at_port = server.bind_addr[:2]
    click.echo(f"serving on http://{at_host}:{at_port} (Ctrl-C stops)", err=True)
    prepare = app.extensions["dialogue"].prepare
    preparing = threading.Thread(target=prepare, args=(stop.is_set,), name="phrasings")
    preparing.start()
    stop.wait()
    click.echo("stopping: running requests are finished", err=True)
    server.stop()
    thread.join()
    preparing.join()
    close(app)
