"""kill -9 at random moments of puts, deletes, batches, folds, snapshots and moves to another model; after each, fsck
and a look at every row.

What it means: a writing process tells what it is about to do and what was acknowledged, and is killed within half a
second. Then `fsck --contents` must be clean, every acknowledged row there as it was last put, nothing of what was
deleted, a batch whole or not at all, every acknowledged snapshot readable, and of the generation that serves one vector
for each image and text, by its own model. Good: `wrong` is 0.

    python -m tests.benchmarks.bench_kills [--kills 200] [--seed 1] [--url postgresql+psycopg://…]
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from indexer.config import IndexConfig, IngestConfig
from indexer.database import Database
from indexer.files import Blobs
from indexer.fsck import Fsck
from indexer.ingest import Ingest
from indexer.live import LiveIndex
from indexer.snapshot import read_snapshot, write_snapshot
from indexer.store.collections import Collection, Collections
from indexer.store.generations import Generations
from indexer.store.images import Images
from search.contents import Contents
from search.generations import Moves
from tests.benchmarks.measure import print_json
from textmm.checkpoint import LoadedModel, build
from textmm.config import named_model
from textmm.encoder import Encoder
from textmm.sources import Item
from textmm.tokenizers import BytePair

INDEX = IndexConfig(fold_rows=40)
KEYS = 120
BATCH = 8
State = dict[str, str]
"""Key -> title of what was put last."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", default="", help="a fresh database; SQLite in a temporary folder by default")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    during: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary)
        url = arguments.url or f"sqlite:///{data / 'kills.sqlite'}"
        state: State = {}
        for number in range(arguments.kills):
            lines = kill_once(lambda tell, n=number: write(url, data, n, tell), rng)  # type: ignore[misc]
            begun, acknowledged = replay(lines, state)
            during[begun["do"] if begun else "between"] += 1
            (found,) = [json.loads(line) for line in told_by(lambda tell: look(url, data, tell))]
            said = [*found["problems"], *differences(found["rows"], state, begun)]
            wrong += [f"kill {number} (during {begun}): {one}" for one in said]
            state = found["rows"]
            if said or (number + 1) % 20 == 0:
                print(
                    f"{number + 1} kills, {len(state)} rows, {acknowledged} acknowledged lately, {len(wrong)} wrong"
                )
    print("killed during", dict(during.most_common()))
    for one in wrong[:20]:
        print(one)
    print_json("kills", vars(arguments), {"during": dict(during), "wrong": len(wrong)})
    sys.exit(1 if wrong else 0)


# -- the process that is killed --------------------------------------------------------------------------


def write(url: str, data: Path, number: int, tell: Callable[[str], None]) -> None:
    """Write for ever, telling each act before and after it."""
    rng = random.Random(number * 7919)
    database = Database(url)
    database.upgrade()
    collections, images = Collections(database), Images(database)
    if collections.find("shop") is None:
        collections.create("shop", is_bank=True, limits={"near_copy": 31, "similar": 0.9})
    live = LiveIndex(database, data / "indexes", INDEX)
    encoders = {encoder.model_id: encoder for encoder in (untrained(1), untrained(2))}
    blobs = Blobs(data / "blobs")
    ingest = Ingest(database, untrained(1), blobs, IngestConfig(batch_size=BATCH), encoders=encoders.get)
    moves = Moves(database, Contents(blobs), live, lambda one: encoders[one.model_id])
    for act in range(10**9):
        shop = collections.get("shop")
        do = rng.choices(["put", "delete", "batch", "fold", "snapshot", "move"], [10, 3, 4, 3, 1, 4])[0]
        keys = [f"k{rng.randrange(KEYS):03}" for _ in range(BATCH if do == "batch" else 1)]
        keys, title = sorted(set(keys)), f"{number}.{act}"
        told = {"do": do, "keys": keys, "title": title}
        tell(json.dumps(told))
        match do:
            case "put":
                ingest.put(Item(keys[0], "", title), drawn(rng), shop)
            case "delete":
                images.delete(shop.collection_id, keys)
            case "batch":
                paths = [data / "pictures" / f"{key}.{title}.png" for key in keys]
                paths[0].parent.mkdir(exist_ok=True)
                for path in paths:
                    path.write_bytes(drawn(rng))
                items = [Item(key, str(path), title) for key, path in zip(keys, paths, strict=True)]
                list(ingest.run(items, shop, source="batch"))
            case "fold":
                live.take_up(shop)
                live.fold(shop.collection_id)
            case "move":
                move(database, moves, shop, rng)
            case "snapshot":
                write_snapshot(database, data, data / "snapshots" / f"{title}.tar")
        tell(json.dumps({"done": title}))


def move(database: Database, moves: Moves, shop: Collection, rng: random.Random) -> None:
    """One step of a change of model: begin it, fill some, switch, go back, or drop what does not serve."""
    generations = Generations(database)
    if shop.generation is None:
        return
    others = [one for one in generations.kept(shop.collection_id) if one.state != "active"]
    if not others:
        other = untrained(2 if shop.generation.model_id == untrained(1).model_id else 1)
        generations.start(
            shop.collection_id,
            model_id=other.model_id,
            model_name="untrained",
            embed_dim=other.embed_dim,
            preprocessing=other.preprocessing,
        )
        return
    match rng.choice(["fill", "switch", "switch", "rollback", "drop"]):
        case "fill":
            next(moves.fill(shop, others[0].generation), None)
        case "switch":
            moves.switch(shop, others[0].generation)
        case "rollback" if others[0].state == "retired":
            moves.rollback(shop)
        case "drop":
            generations.drop(shop.collection_id)


@functools.cache
def untrained(seed: int) -> Encoder:
    torch.manual_seed(seed)
    model = build(named_model("tiny"), Path("no-trunks"))
    words = BytePair.train(["a red shoe"], 300, context_length=16, styles=("photo",))
    return Encoder(LoadedModel(model, words, None, f"tiny-untrained{seed}"), threads=1)


def drawn(rng: random.Random) -> bytes:
    pixels = np.frombuffer(rng.randbytes(48 * 48 * 3), dtype=np.uint8).reshape(48, 48, 3)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


# -- the process that looks ------------------------------------------------------------------------------


def look(url: str, data: Path, tell: Callable[[str], None]) -> None:
    """Tell all rows, and everything that is wrong with them."""
    database = Database(url)
    database.upgrade()
    problems = [f"{one.where}: {one.what}" for one in Fsck(database, data, INDEX).check(contents=True)]
    problems += mixed(database, data)
    for archive in (data / "snapshots").glob("*.tar"):
        try:
            read_snapshot(archive)
        except Exception as error:
            problems.append(str(error))
        archive.unlink()
    shop = Collections(database).find("shop")
    rows = [] if shop is None else Images(database).page(shop.collection_id, limit=10 * KEYS)
    tell(json.dumps({"problems": problems, "rows": {row.key: row.title for row in rows}}))
    database.close()


def mixed(database: Database, data: Path) -> Iterator[str]:
    """Vectors that the model of the serving generation did not make."""
    shop = Collections(database).find("shop")
    view = None if shop is None else LiveIndex(database, data / "indexes", INDEX).view(shop)
    if shop is None or view is None or not view.texts.vectors.count:
        return
    encoder = next(e for e in (untrained(1), untrained(2)) if e.model_id == view.generation.model_id)
    ids, rows = view.texts.vectors.rows()
    texts = Images(database).text_records(ids.tolist())
    said = encoder.encode_texts([texts[i].text for i in ids.tolist()])
    far = np.flatnonzero(np.abs(said - rows.astype(np.float32)).max(axis=1) > 0.01)
    if len(far):
        yield f"{len(far)} of {len(ids)} text vectors are not by {encoder.model_id}, which serves"


# -- killing, and what must be true then -----------------------------------------------------------------


def kill_once(work: Callable[[Callable[[str], None]], None], rng: random.Random) -> list[str]:
    """Fork a process that works, kill it a little after its first act; the whole lines that it told."""
    child, told = forked(work)
    first: bytes = told.readline()
    if first:
        time.sleep(rng.random() * 0.5)
    os.kill(child, signal.SIGKILL)
    rest: bytes = told.read()
    told.close()
    os.waitpid(child, 0)
    return [line for line in (first + rest).decode().split("\n")[:-1] if line]


def told_by(work: Callable[[Callable[[str], None]], None]) -> list[str]:
    child, told = forked(work)
    said: bytes = told.read()
    told.close()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"the process that looks failed with {status}")
    return said.decode().splitlines()


def forked(work: Callable[[Callable[[str], None]], None]) -> tuple[int, Any]:
    """This process has no threads (FAISS and torch have not run in it), so that a fork of it is whole."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            work(lambda line: (os.write(theirs, f"{line}\n".encode()), None)[1])
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    os.close(theirs)
    return child, os.fdopen(ours, "rb")


def replay(lines: list[str], state: State) -> tuple[dict[str, Any] | None, int]:
    """Take what was acknowledged into `state`; (what had begun and was not, how many were)."""
    begun: dict[str, Any] | None = None
    count = 0
    for line in lines:
        told = json.loads(line)
        if "done" not in told:
            begun = told
            continue
        assert begun is not None and begun["title"] == told["done"]
        apply(begun, state)
        begun = None
        count += 1
    return begun, count


def apply(act: dict[str, Any], state: State) -> None:
    for key in act["keys"]:
        if act["do"] in ("put", "batch"):
            state[key] = act["title"]
        elif act["do"] == "delete":
            state.pop(key, None)


def differences(rows: State, state: State, begun: dict[str, Any] | None) -> Iterator[str]:
    """Rows must be those of `state`, or of it with the act that had begun: all of it or none."""
    if rows == state:
        return
    after = dict(state)
    if begun is not None:
        apply(begun, after)
        if rows == after:
            return
    for key in sorted(rows.keys() | state.keys() | after.keys()):
        if rows.get(key) not in (state.get(key), after.get(key)):
            yield f"{key} is {rows.get(key)}, acknowledged was {state.get(key)}"
    yield "the act that had begun is there in part"


if __name__ == "__main__":
    main()
