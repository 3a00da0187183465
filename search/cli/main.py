"""textmm: the group of commands, each imported when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

COMMANDS = {
    "demo": "search.cli.demo:demo",
    "index": "search.cli.index:index",
    "delete": "search.cli.index:delete",
    "search": "search.cli.query:search",
    "chat": "search.cli.chat:chat",
    "caption": "search.cli.pictures:caption",
    "alt": "search.cli.pictures:alt",
    "ask": "search.cli.pictures:ask",
    "classify": "search.cli.pictures:classify",
    "copy": "search.cli.pictures:copy",
    "draw": "search.cli.drawing:draw",
    "moderate": "search.cli.query:moderate",
    "serve": "search.cli.serve:serve",
    "status": "search.cli.status:status",
    "db": "search.cli.status:db",
    "generation": "search.cli.generation:generation",
    "fsck": "search.cli.durability:fsck",
    "snapshot": "search.cli.durability:snapshot",
    "restore": "search.cli.durability:restore",
    "models": "search.cli.models:models",
    "train": "search.cli.train:train",
    "evaluate": "search.cli.evaluate:evaluate",
    "calibrate": "search.cli.evaluate:calibrate",
}
"""Name -> module:object; the files that they lie in."""


class LazyGroup(click.Group):
    """Knows its commands by name and imports one when it is asked for, so that --help stays quick."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="textmm")
def cli() -> None:
    """Pictures and words in one space: index, search, caption, draw, moderate, serve.

    Exit codes: 0 done, 1 done in part or nothing found, 2 wrong usage or input.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command (that of the process by default); an error that the user can mend is one line and exit
    code 2."""
    try:
        sys.exit(cli(arguments, prog_name="textmm", standalone_mode=False) or 0)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"textmm: {error.format_message()}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
