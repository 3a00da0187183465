"""A private PostgreSQL on a free port, started for the session and gone with it."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from indexer.database import Database
from tests.deadline import wait_for

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a migrated database that serves as a template: `copy_of` makes others."""
    programs = _programs()
    if programs is None:
        reason = (
            "PostgreSQL is not installed (no initdb in PATH, `pg_config --bindir` or /usr/lib/postgresql)"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with _server(programs) as url:
        database = Database(f"{url}/migrated")
        database.upgrade()
        database.close()
        yield f"{url}/migrated"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def any_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Migrated and empty, once on each kind of database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/textmm.sqlite"
        shutil.copy(request.getfixturevalue("migrated"), tmp_path / "textmm.sqlite")
    else:
        url = copy_of(request.getfixturevalue("postgres"))
    database = Database(url)
    yield database
    database.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without any table, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/bare.sqlite"
    server, _, _ = request.getfixturevalue("postgres").rpartition("/")
    return copy_of(f"{server}/template0")


def copy_of(template: str) -> str:
    """URL of a new database like the template; a template named `template0` gives an empty one."""
    server, _, name = template.rpartition("/")
    copy = f"copy{next(_numbers)}"
    with psycopg.connect(_plain(f"{server}/postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {copy} TEMPLATE {name}".encode())
    return f"{server}/{copy}"


def _programs() -> Path | None:
    """The folder of initdb and postgres."""
    config = shutil.which("pg_config")
    found = (
        [subprocess.run([config, "--bindir"], capture_output=True, text=True).stdout.strip()]
        if config
        else []
    )
    found += sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    return next((Path(f) for f in found if Path(f, "initdb").exists() and Path(f, "postgres").exists()), None)


@contextmanager
def _server(programs: Path) -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="textmm-postgres-"))
    account = _account()
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    # --pdeathsig: a test run that is killed takes its server along
    run = ["setpriv", "--pdeathsig", "QUIT"]
    if account is not None:
        run += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    data = folder / "data"
    made = subprocess.run(
        [*run, programs / "initdb", "-D", data, "-U", "textmm", "-A", "trust", "-E", "UTF8", "--no-sync"],
        capture_output=True,
        text=True,
        cwd="/",
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
    )
    assert made.returncode == 0, made.stderr
    port = _free_port()
    settings = ["-c", "fsync=off", "-c", "max_connections=60", "-c", "listen_addresses=127.0.0.1"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*run, programs / "postgres", "-D", data, "-p", str(port), "-k", folder, *settings],
            stdout=log,
            stderr=log,
            cwd="/",
        )
    try:
        url = f"postgresql+psycopg://textmm@127.0.0.1:{port}"
        wait_for(lambda: _answers(url, server, folder / "log"))
        with psycopg.connect(_plain(f"{url}/postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE migrated")
        yield url
    finally:
        server.send_signal(signal.SIGINT)  # a fast stop: connections that a test left open are cut
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _account() -> pwd.struct_passwd | None:
    """Whom to run as; PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _answers(url: str, server: subprocess.Popen[bytes], log: Path) -> bool:
    assert server.poll() is None, log.read_text(errors="replace")
    try:
        psycopg.connect(_plain(f"{url}/postgres")).close()
    except psycopg.OperationalError:
        return False
    return True


def _plain(url: str) -> str:
    """As libpq reads it"""
    return url.replace("+psycopg", "")
