import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from search.cli.main import COMMANDS, cli
from tests.conftest import ROOT, Run


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every command, those of the groups too."""
    context = click.Context(group)
    out = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        out.append((*path, name))
        if isinstance(command, click.Group):
            out += leaves(command, (*path, name))
    return out


@pytest.mark.parametrize("words", [(), *leaves(cli)])
def test_every_command_explains_itself(run: Run, words: tuple[str, ...]) -> None:
    done = run(*words, "--help")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: {' '.join(['textmm', *words])} ")
    assert run(*words, "-h").out == done.out


def test_help_lists_every_command(run: Run) -> None:
    listed = run("--help").out

    assert [name for name in COMMANDS if f"\n  {name} " not in listed] == []


def test_an_unknown_command_is_wrong_usage(run: Run) -> None:
    done = run("serach", "a mug")

    assert (done.code, done.out) == (2, "")
    assert "No such command 'serach'" in done.err


def test_the_version_is_told(run: Run) -> None:
    assert "0.1.0" in run("--version").out


def test_data_named_on_the_command_line_wins_over_the_environment_and_that_over_the_file(
    run: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = ("index", pictures / "red-circle.png", "--collection", "one")

    run(*index)
    monkeypatch.setenv("TEXTMM_DATA", str(tmp_path / "from-environment"))
    run(*index)
    run(*index, "--data", tmp_path / "from-option")

    made = [
        (tmp_path / name / "textmm.sqlite").is_file() for name in ("data", "from-environment", "from-option")
    ]
    assert made == [True, True, True]


def test_a_config_named_on_the_command_line_wins_over_the_environment(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(f'data = "{tmp_path / "elsewhere"}"\n')

    run("status", "--config", other)

    assert (tmp_path / "elsewhere" / "textmm.sqlite").is_file()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = 3\n", "textmm: unknown key colour; known here: data, model, "),
        ("[server]\nprot = 3\n", "textmm: unknown key server.prot; known here: "),
        ("[server]\nport = 'high'\n", "textmm: server.port must be of type int, got 'high'"),
        ("[server\n", "textmm: Expected ']'"),
    ],
)
def test_a_config_that_is_wrong_is_one_line_that_names_the_key(
    run: Run, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "config.toml").write_text(text)

    done = run("status")

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(said)


def test_a_config_that_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    done = run("status", "--config", tmp_path / "no.toml")

    assert (done.code, done.err) == (2, f"textmm: {tmp_path / 'no.toml'}: No such file or directory\n")


def test_a_model_that_is_not_there_is_one_line(run: Run, tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "config.toml").write_text(f'data = "{tmp_path / "data"}"\n[model]\nname = "huge"\n')

    done = run("caption", pictures / "red-circle.png")

    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("textmm: there is no model 'huge': give a folder with config.json or one of ")


@pytest.mark.parametrize("url", ["sqlite:////proc/no/textmm.sqlite", "nonsense", "sqlite:////dev/null/x"])
def test_a_database_that_cannot_be_opened_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("TEXTMM_DATABASE_URL", url)

    done = run("status")

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("textmm: ")


def test_a_data_folder_that_is_a_file_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")

    done = run("status")

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


def test_help_loads_neither_torch_nor_any_other_heavy_package() -> None:
    script = (
        "import sys\n"
        "from search.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as done:\n    assert not done.code\n"
        "heavy = {'torch', 'faiss', 'numpy', 'flask', 'sqlalchemy', 'PIL'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )

    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "heavy: []", done.stderr


@pytest.mark.slow
def test_the_entry_point_runs_without_a_terminal_and_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "textmm"), "status", "--data", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TEXTMM_")}

    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    piped = subprocess.run(
        f"{command[0]} --help | head -n 1", shell=True, capture_output=True, text=True, env=environment
    )

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "no collections: make one with `textmm index SOURCE --collection NAME`\n"
    assert (piped.stdout, piped.stderr) == ("Usage: textmm [OPTIONS] COMMAND [ARGS]...\n", "")
