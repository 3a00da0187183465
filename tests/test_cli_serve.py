"""A real server process: its start, its stop, its death, and two of them over one database."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from search.client import Client, ConnectionFailed
from tests.conftest import ROOT
from tests.deadline import wait_for
from tests.drawn import COLOURS, SHAPES, draw, encoded

pytestmark = pytest.mark.slow

RED = encoded(draw("circle", "red"))


@dataclass
class Served:
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """Waits until the server says where it listens."""
        found = wait_for(lambda: re.search(r"serving on (http://\S+)", self._said()), timeout_s=120)
        return found[1] if found else ""

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def _said(self) -> str:
        said = self.log.read_text()
        assert self.process.poll() is None, said
        return said


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path, tiny: Path) -> Iterator[Serve]:
    """Starts `textmm serve` on a free port over one data folder; what still runs at the end is killed."""
    settings = tmp_path / "config.toml"
    settings.write_text(
        f'data = "{tmp_path / "data"}"\n'
        f'[model]\nname = "{tiny}"\nthreads = 1\n'
        "[server]\nqueue = 8\nmax_inputs = 100_000\n"
    )
    started: list[Served] = []

    def serve(*options: str) -> Served:
        log = tmp_path / f"log-{len(started)}"
        command = [sys.executable, "-m", "search.cli.main", "serve", "--port", "0", *options]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, stderr=file, env={**os.environ, "TEXTMM_CONFIG": str(settings)}
            )
        started.append(Served(process, log))
        return started[-1]

    yield serve
    for one in started:
        one.process.kill()
        one.process.wait()


def test_a_server_says_where_it_listens_is_ready_and_stops_with_0(serve: Serve) -> None:
    served = serve()

    with Client(served.url) as client:
        ready = client.is_ready()
        code = served.stop()
        with pytest.raises(ConnectionFailed):
            client.collections()

    assert (ready, code) == (True, 0)
    assert "stopping: running requests are finished" in served.log.read_text()
    assert "Traceback" not in served.log.read_text()


def post_until_taken(url: str, body: Mapping[str, object]) -> httpx.Response:
    """A question that another one waits before is refused when it is larger than the queue: ask again."""
    while (answer := httpx.post(url, json=body, timeout=120)).status_code == 429:
        pass
    return answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_that_runs_when_the_signal_comes_is_answered(serve: Serve, number: signal.Signals) -> None:
    served = serve()
    url = f"{served.url}/v1/embeddings"
    many = {"model": "tiny", "input": [f"number {i}" for i in range(20_000)], "encoding_format": "base64"}

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(post_until_taken, url, many)
        wait_for(lambda: httpx.post(url, json={"model": "tiny", "input": "busy?"}).status_code == 429)
        served.process.send_signal(number)
        answer = running.result()

    assert (answer.status_code, len(answer.json()["data"])) == (200, 20_000)
    assert served.process.wait(60) == 0


def test_a_queue_that_is_full_answers_429_with_retry_after(serve: Serve) -> None:
    url = f"{serve().url}/v1/embeddings"
    many = {"model": "tiny", "input": [f"number {i}" for i in range(20_000)], "encoding_format": "base64"}

    def refused() -> httpx.Response | None:
        answer = httpx.post(url, json={"model": "tiny", "input": "busy?"})
        return answer if answer.status_code != 200 else None

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(post_until_taken, url, many)
        answer = wait_for(refused)
        long = running.result()

    assert answer is not None
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert answer.json()["error"]["code"] == "overloaded"
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert long.status_code == 200


def test_everything_acknowledged_survives_kill_9_and_a_restart(serve: Serve) -> None:
    first = serve()
    acknowledged: list[str] = []

    def put_until_it_dies(url: str) -> None:
        with Client(url) as client:
            client.put_collection("shop")
            for i in range(10_000):
                shape, colour = SHAPES[i % 4], list(COLOURS)[i // 4 % 4]
                try:
                    client.put_image("shop", f"{i:05}", encoded(draw(shape, colour)), title=f"number {i}")
                except ConnectionFailed:
                    return
                acknowledged.append(f"{i:05}")

    writer = threading.Thread(target=put_until_it_dies, args=(first.url,))
    writer.start()
    wait_for(lambda: len(acknowledged) >= 20)
    first.process.kill()
    writer.join()
    first.process.wait()

    with Client(serve().url) as client:
        there = [image.key for image in client.images("shop")]
        hits = client.search("a red circle", collection="shop", k=1000).hits or []
        contents = [client.content("shop", key) for key in acknowledged[:16]]

    assert there[: len(acknowledged)] == acknowledged
    assert len(there) - len(acknowledged) in (0, 1)  # one may have been written and not acknowledged
    assert sorted(hit.key for hit in hits) == there
    assert contents == [encoded(draw(SHAPES[i % 4], list(COLOURS)[i // 4 % 4])) for i in range(16)]


def test_two_servers_over_one_database_see_each_others_writes(serve: Serve) -> None:
    one, two = serve(), serve()

    with Client(one.url) as here, Client(two.url) as there:
        here.put_collection("shop")
        here.put_image("shop", "a", RED, title="first")
        wait_for(lambda: _found(there) == ["a"])
        there.put_image("shop", "b", RED, title="second")
        wait_for(lambda: _found(here) == ["a", "b"])
        here.delete_image("shop", "a")
        gone_at_once = _found(there)
        there.delete_collection("shop")
        collections = here.collections()

    assert gone_at_once == ["b"]  # deleted rows are dropped at the row join everywhere
    assert collections == []


def _found(client: Client) -> list[str]:
    return sorted(hit.key for hit in client.search("x", collection="shop").hits or [])


def test_a_port_that_is_taken_is_one_line(serve: Serve, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        served = serve("--port", str(taken.getsockname()[1]))
        code = served.process.wait(120)

    last = served.log.read_text().splitlines()[-1]
    assert code == 2
    assert last.startswith("textmm: cannot listen on 127.0.0.1:")
    assert "Traceback" not in served.log.read_text()
