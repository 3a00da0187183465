"""A real server process under a load of searches by texts it never saw.

What it means: `total_p50_ms` is what a client waits for one search, one client at a time; `rest_p50_ms` is that minus
the server's text encoding. Good at 4,000 images: rest <= 5 ms, total <= 20 ms. `memory_over_imports_mb` is the
server's VmRSS, some seconds after the load, over that of a process that only imports torch and faiss; good: <= 350.
`while_drawing` (with --drawing) is the p95 of one client while pictures are drawn without a pause, and without, in
turn; good: at most 1.5 times. `ready_s` is the time from the start of the process to the first 200 of /readyz; good:
<= 8 on a warm disk.

    python -m tests.benchmarks.bench_http [--data '../shared/data/fashion/*.tar'] [--count 4000] [--seconds 8]
        [--drawing]
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from indexer.files import Blobs
from indexer.ingest import Ingest
from indexer.live import LiveIndex
from indexer.store.collections import Collections
from search.cli.context import load_encoder, opened_database
from search.config import Config, ModelSection
from tests.benchmarks.measure import median, percentile, print_json
from textmm.drawings import draw_catalogue
from textmm.sources import read_source

SETTLE_S = 8.0
"""The server gives freed memory back every few seconds."""
COLOURS = (
    "black",
    "blue",
    "red",
    "green",
    "white",
    "navy",
    "grey",
    "brown",
    "pink",
    "purple",
    "yellow",
    "beige",
)
STYLES = (
    "striped",
    "plain",
    "casual",
    "formal",
    "sports",
    "ethnic",
    "leather",
    "cotton",
    "printed",
    "checked",
)
KINDS = (
    "shirt",
    "shoes",
    "watch",
    "bag",
    "dress",
    "jeans",
    "jacket",
    "belt",
    "cap",
    "socks",
    "sandals",
    "wallet",
)
FOR = (
    "for men",
    "for women",
    "for boys",
    "for girls",
    "with pockets",
    "with buttons",
    "with heels",
    "with a logo",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="", help="a source; without it drawn products")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=4.0, help="per number of clients")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--drawing", action="store_true", help="searches while pictures are drawn, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary)
        trunks = str(Config().trunks.absolute())
        config = Config(data=data, model=ModelSection(trunks=trunks))
        fill(
            config,
            arguments.data or str(draw_catalogue(data / "drawn", arguments.count, seed=5)),
            arguments.count,
        )
        (data / "config.toml").write_text(f'[model]\ntrunks = "{trunks}"\n')
        server, url, ready_s = start(data)
        try:
            numbers = itertools.count()
            rows = [load(url, clients, arguments.seconds, numbers) for clients in arguments.clients]
            drawing = beside_drawing(url, arguments.seconds, numbers) if arguments.drawing else {}
            alone = imports_only_mb()
            peak = rss_mb(server.pid) - alone
            time.sleep(SETTLE_S)
            over = rss_mb(server.pid) - alone
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    print(
        f"ready after {ready_s:.1f} s; {over:.0f} MB above a process that imports torch and faiss ({peak:.0f} at the"
    )
    print("end of the load, before freed memory was given back)")
    for row in rows:
        print(
            f"{row['clients']:3d} clients: {row['requests_per_s']:6.1f} requests/s,"
            f" total p50 {row['total_p50_ms']:6.2f} p95 {row['total_p95_ms']:6.2f} p99 {row['total_p99_ms']:6.2f} ms;"
            f" text encoding p50 {row['encode_p50_ms']:5.2f}, the rest p50 {row['rest_p50_ms']:5.2f} ms"
        )
    if drawing:
        print(
            f"one client: p95 {drawing['alone_p95_ms']:.2f} ms, while drawing {drawing['while_drawing_p95_ms']:.2f} ms"
            f" ({drawing['ratio']:.2f} times); {drawing['drawn_per_s']:.2f} pictures/s drawn meanwhile"
        )
    figures = {
        "while_drawing": drawing,
        "ready_s": ready_s,
        "memory_over_imports_mb": over,
        "memory_after_load_mb": peak,
        "results": rows,
    }
    print_json("http", vars(arguments), figures)


def fill(config: Config, source: str, count: int) -> None:
    with opened_database(config) as database:
        encoder = load_encoder(config)
        collection = Collections(database).create("shop", is_bank=False, limits={})
        ingest = Ingest(database, encoder, Blobs(config.data / "blobs"), config.ingest)
        for _ in ingest.run(itertools.islice(read_source(source), count), collection, source=source):
            pass
        live = LiveIndex(database, config.data / "indexes", config.index)
        live.view(Collections(database).get("shop"))
        live.poll()
        live.fold_due()


def start(data: Path) -> tuple[subprocess.Popen[str], str, float]:
    started = time.perf_counter()
    command = [sys.executable, "-m", "search.cli.main", "serve", "--port", "0"]
    command += ["--data", str(data), "--config", str(data / "config.toml")]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    url = ""
    for line in server.stderr:
        if match := re.search(r"serving on (http://\S+)", line):
            url = match[1]
            break
    threading.Thread(target=server.stderr.read, daemon=True).start()
    while httpx.get(f"{url}/readyz").status_code != 200:
        time.sleep(0.05)
    return server, url, time.perf_counter() - started


def unseen_text(number: int) -> str:
    """No two numbers give the same words."""
    rng = random.Random(number)
    words = [rng.choice(part) for part in (STYLES, COLOURS, KINDS, FOR)]
    return f"{' '.join(words)} {number}"


def load(url: str, clients: int, seconds: float, numbers: itertools.count[int]) -> dict[str, float]:
    totals: list[float] = []
    rests: list[float] = []
    encodes: list[float] = []
    until = time.perf_counter() + seconds

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while time.perf_counter() < until:
                body = {"collection": "shop", "text": unseen_text(next(numbers))}
                started = time.perf_counter()
                answer = client.post("/v1/search", json=body).json()
                total = (time.perf_counter() - started) * 1e3
                encode = answer["took_ms"]["encode"]
                totals.append(total)
                encodes.append(encode)
                rests.append(total - encode)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "clients": clients,
        "requests_per_s": round(len(totals) / (time.perf_counter() - started), 1),
        "total_p50_ms": round(median(totals), 3),
        "total_p95_ms": round(percentile(totals, 0.95), 3),
        "total_p99_ms": round(percentile(totals, 0.99), 3),
        "encode_p50_ms": round(median(encodes), 3),
        "rest_p50_ms": round(median(rests), 3),
    }


def beside_drawing(url: str, seconds: float, numbers: itertools.count[int]) -> dict[str, float]:
    """p95 of one client while pictures are drawn and while none is, five times each in turn; medians."""
    alone, beside, drawn, spent = [], [], 0, 0.0
    over = threading.Event()

    def draw() -> int:
        count = 0
        with httpx.Client(base_url=url, timeout=60) as client:
            while not over.is_set():
                answer = client.post("/v1/images/generations", json={"prompt": "red handbag", "n": 4})
                count += len(answer.raise_for_status().json()["data"])
        return count

    httpx.post(f"{url}/v1/images/generations", json={"prompt": "red handbag"}, timeout=60).raise_for_status()
    with ThreadPoolExecutor(1) as pool:
        for _ in range(5):
            alone.append(load(url, 1, seconds, numbers)["total_p95_ms"])
            over.clear()
            started, drawing = time.perf_counter(), pool.submit(draw)
            beside.append(load(url, 1, seconds, numbers)["total_p95_ms"])
            over.set()
            drawn += drawing.result()
            spent += time.perf_counter() - started
    return {
        "alone_p95_ms": round(median(alone), 3),
        "while_drawing_p95_ms": round(median(beside), 3),
        "ratio": round(median(beside) / median(alone), 3),
        "drawn_per_s": round(drawn / spent, 3),
    }


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no VmRSS for {pid}")


def imports_only_mb() -> float:
    code = "import torch, faiss, os; print('ready', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    mb = rss_mb(child.pid)
    child.communicate(os.linesep)
    return mb


if __name__ == "__main__":
    main()
