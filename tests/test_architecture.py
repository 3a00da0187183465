"""The house rules that a machine can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("textmm", "indexer", "search")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

MAY_IMPORT = {
    "torch": ("textmm/", "indexer/vectors/gpu.py"),
    "faiss": ("indexer/vectors/",),
    "sqlalchemy": ("indexer/store/", "indexer/database.py", "indexer/tables.py", "search/cli/context.py"),
    "flask": ("search/http/", "search/web/", "search/app.py"),
    "click": ("search/cli/",),
    "httpx": ("search/client.py",),
    "open_clip": ("textmm/open_clip_module.py",),
}
"""Package -> where it may be imported; context.py only names errors."""


def imports(path: Path) -> set[str]:
    """Full names of what a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def fresh(script: str) -> str:
    """What a script prints in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_keep_the_contracts_in_pyproject() -> None:
    linter = Path(sys.executable).parent / "lint-imports"

    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


def test_no_file_imports_a_package_to_its_right() -> None:
    right = {"textmm": {"indexer", "search"}, "indexer": {"search"}, "search": set[str]()}

    wrong = [
        (str(path.relative_to(ROOT)), name)
        for path in SOURCES
        for name in imports(path)
        if name.partition(".")[0] in right[path.relative_to(ROOT).parts[0]] | {"tests"}
    ]

    assert wrong == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_is_imported_only_behind_its_seam(package: str) -> None:
    importers = [
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if any(name.partition(".")[0] == package for name in imports(path))
    ]

    assert importers
    assert [path for path in importers if not path.startswith(MAY_IMPORT[package])] == []


def test_the_sdk_loads_nothing_heavier_than_httpx_and_msgspec() -> None:
    printed = fresh(
        "import sys, search.client\n"
        "heavy = {'torch', 'flask', 'faiss', 'sqlalchemy', 'numpy', 'PIL', 'textmm', 'indexer'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    assert printed == "[]\n"


@pytest.mark.slow
def test_importing_the_whole_service_touches_no_file_and_starts_no_thread(tmp_path: Path) -> None:
    printed = fresh(
        f"import os, sys, threading\nsys.path.insert(0, os.getcwd())\nos.chdir({str(tmp_path)!r})\n"
        "import search.app, search.cli.main, search.cli.serve, search.cli.index, search.cli.query\n"
        "print(threading.active_count())"
    )

    assert printed == "1\n"
    assert list(tmp_path.iterdir()) == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"}

    assert [str(path) for path in SOURCES if path.stem in empty] == []


def test_only_the_command_line_prints() -> None:
    prints = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]

    assert prints == []
