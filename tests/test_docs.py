"""What there is to call, run or set is written down, and what is written down is there."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
import pytest
from flask import Flask

from search.cli.main import cli
from search.client import Client
from search.config import Config
from search.errors import STATUS
from search.openapi import ROUTES, Route
from tests.conftest import ROOT
from tests.drawn import draw
from tests.test_cli_main import leaves

DOCS = sorted((ROOT / "docs").glob("*.md"))
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
FLASKS = {"internal", "method_not_allowed", "unsupported_media_type"}
"""Codes of what no exception of ours stands for."""
COMMANDS = [" ".join(words) for words in leaves(cli)]


def fences(path: Path, kind: str = "") -> list[str]:
    """The code blocks of a page that are marked as this kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def shell_lines(path: Path) -> Iterator[str]:
    """The `textmm …` lines in a page's code blocks, without their comments."""
    for block in fences(path):
        for line in block.splitlines():
            if re.match("textmm [a-z]", line):
                yield line.partition(" #")[0].strip()


def test_every_route_of_the_app_is_in_openapi_and_the_other_way_round(app: Flask) -> None:
    served = {
        (method.lower(), re.sub(r"<[^>]+>", "{}", rule.rule))
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.startswith("pages.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert served == {(route.method, re.sub(r"{\w+}", "{}", route.path)) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=[f"{route.method} {route.path}" for route in ROUTES])
def test_every_route_is_in_the_http_docs_with_its_method(route: Route) -> None:
    lines = (ROOT / "docs/http-api.md").read_text().splitlines()

    assert [line for line in lines if f"{route.path}`" in line and route.method.upper() in line]


@pytest.mark.parametrize("code", sorted({code for _, code in STATUS.values()} | FLASKS))
def test_every_error_code_is_in_the_http_docs(code: str) -> None:
    assert f"`{code}`" in (ROOT / "docs/http-api.md").read_text()


@pytest.mark.parametrize("command", [words for words in COMMANDS if words not in ("db", "models")])
def test_every_command_is_in_the_command_line_docs(command: str) -> None:
    assert f"textmm {command}" in (ROOT / "docs/cli.md").read_text()


def test_config_toml_holds_every_setting_with_its_default_and_no_other() -> None:
    shipped = tomllib.loads((ROOT / "config.toml").read_text())

    defaults = json.loads(json.dumps({**asdict(Config()), "data": "data"}))  # a tuple is a list in TOML
    assert shipped == defaults
    assert Config.load(ROOT / "config.toml") == Config()


@pytest.mark.parametrize("path", WRITTEN, ids=[path.name for path in WRITTEN])
def test_every_command_line_in_the_docs_names_a_command_and_options_that_there_are(path: Path) -> None:
    for line in shell_lines(path):
        words = line.split()[1:]
        found: click.Command = cli
        while isinstance(found, click.Group) and words:
            inner = found.get_command(click.Context(found), words[0])
            assert inner is not None, line
            found, words = inner, words[1:]
        known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
        used = re.findall(r"(?<!\S)(--[a-z-]+|-[a-z])\b", " ".join(words))
        assert set(used) <= known, line


def test_the_readme_and_the_pages_show_commands_at_all() -> None:
    assert len(list(shell_lines(ROOT / "README.md"))) >= 5


@pytest.mark.parametrize("path", WRITTEN, ids=[path.name for path in WRITTEN])
def test_every_link_in_the_docs_leads_to_a_file(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())

    lost = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert lost == []


@pytest.mark.parametrize("path", WRITTEN, ids=[path.name for path in WRITTEN])
def test_every_make_target_in_the_docs_is_in_the_makefile(path: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"(?:`|^)make (\w+)", path.read_text(), re.MULTILINE)) <= targets


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "docs/http-api.md"], ids=["README", "http-api"])
def test_the_sdk_example_runs_as_it_is_written(
    path: Path,
    demo_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = [code for code in fences(path, "python") if "search.client" in code]
    draw("circle", "blue").save(tmp_path / "mug.jpg")
    monkeypatch.chdir(tmp_path)
    with Client(demo_server) as client:
        client.put_collection("demo")
        client.put_image("demo", "there", tmp_path / "mug.jpg", title="red handbag")

        exec(compile(example.replace("http://127.0.0.1:8000", demo_server), path.name, "exec"), {})

        client.delete_collection("demo")
    assert re.match(r"(there|mug-1) -?\d\.\d+", capsys.readouterr().out)


@pytest.mark.parametrize("path", WRITTEN, ids=[path.name for path in WRITTEN])
def test_every_python_example_is_python(path: Path) -> None:
    for code in fences(path, "python"):
        compile(code, path.name, "exec")
