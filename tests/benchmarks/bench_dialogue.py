"""Dialogue: the share of turns that become the right query operation, on the demo's drawn products.

    python -m tests.benchmarks.bench_dialogue            the hundred turns that nothing was tuned on
    python -m tests.benchmarks.bench_dialogue tuning     the turns that phrasings and thresholds were tuned on

A turn is right when the operation is the expected one with the expected values, exclusions, limits and hit; < and <=
count as the same limit, and the words left for the vector are not compared. The turns before it are understood by the
same code, so a mistake can cost the turns after it too. "others" leaves out turns that are word for word a phrasing
once values and numbers are masked. Good: at least .8.

Beside them, which attribute a question about a hit asks for (dialogue/attributes_*.csv; empty: none, it is about
something else). A mistaken one is answered with a wrong fact; one that is not found, with all that is known.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
from base64 import b64encode
from pathlib import Path

from indexer.config import IngestConfig
from indexer.database import Database
from indexer.files import Blobs
from indexer.ingest import Ingest
from indexer.store.collections import Collections
from search.config import Config
from search.dialogue import Dialogue, Turn
from search.engine import SearchEngine
from search.intents import phrasings, plain
from search.lexicon import is_chinese
from search.operations import NAMES, Operation
from search.understanding import slots_of
from tests.benchmarks.measure import print_json
from textmm.drawings import draw_catalogue, drawn_products
from textmm.encoder import Encoder
from textmm.pretrained import TRUNKS, fetch
from textmm.sources import read_source

HERE = Path(__file__).parent
PRODUCTS, SEED = 600, 2026
ATTRIBUTES = (
    *("colour", "pattern", "price", "kind", "style", "brand"),
    *("size", "material", "gender", "season", "shape"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("turns", nargs="?", choices=["unseen", "tuning"], default="unseen")
    parser.add_argument("--trunks", type=Path, default=Path("data/trunks"))
    parser.add_argument("--demo", type=Path, help="Folder of the drawn products, kept for the next time.")
    parser.add_argument(
        "--quiet", action="store_true", help="Only the shares, not the turns that were wrong."
    )
    arguments = parser.parse_args()
    for name in TRUNKS:
        fetch(name, arguments.trunks)
    encoder = Encoder.load("mini", arguments.trunks)
    rows = read_turns(HERE / "dialogue" / f"{arguments.turns}.csv")
    with tempfile.TemporaryDirectory() as folder:
        config = Config(data=Path(folder))
        database = Database(config.database_url)
        database.upgrade()
        engine = SearchEngine(config, database, encoder)
        index_demo(engine, database, arguments.demo or Path(folder) / "demo")
        dialogue = Dialogue(engine)
        results = asked(dialogue, rows)
        known = phrased(dialogue, rows)
        questions = attributes_asked(dialogue, arguments.turns)
        engine.close()
        database.close()
    report(rows, results, quiet=arguments.quiet)
    others = [(row, got) for row, got, same in zip(rows, results, known, strict=True) if not same]
    figures = {**shares(rows, results), "others": len(others)}
    figures["others_right"] = round(sum(right(row, got) for row, got in others) / len(others), 3)
    print(f"{'others':>16}  {figures['others_right']:g} of {len(others)}")
    print(f"attributes asked for: {questions}")
    print_json("dialogue", {"turns": arguments.turns}, figures | {"attributes": questions})


def read_turns(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def index_demo(engine: SearchEngine, database: Database, folder: Path) -> None:
    """What `textmm demo` has in its collection."""
    table = folder / "products.csv"
    if not table.exists():
        draw_catalogue(folder, PRODUCTS, seed=SEED)
    collection = Collections(database).create(
        "demo", is_bank=False, limits={"near_copy": 31.0, "similar": 0.9}
    )
    ingest = Ingest(database, engine.encoder, Blobs(engine.config.data / "blobs"), IngestConfig())
    for _ in ingest.run(read_source(str(table)), collection, source="drawn"):
        pass
    engine.live.poll()


def asked(dialogue: Dialogue, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The operation of each turn in the words of the file; conversations apart."""
    out = []
    for name in dict.fromkeys(row["conversation"] for row in rows):
        turns = [Turn(r["user"], pictures(r["picture"])) for r in rows if r["conversation"] == name]
        out += [in_words(operation) for operation in dialogue.operations(turns, collection="demo")]
    return out


def phrased(dialogue: Dialogue, rows: list[dict[str, str]]) -> list[bool]:
    """Whether a turn is a phrasing word for word, once its slots are masked."""
    filled = {phrasing.filled for phrasing in phrasings()}
    lexicon = dialogue.lexicon("demo")
    return [plain(slots_of(row["user"], lexicon).masked) in filled for row in rows]


def attributes_asked(dialogue: Dialogue, turns: str) -> dict[str, int]:
    """How many questions about a hit are understood, by eleven attributes of a shop."""
    out = dict.fromkeys(("found", "not_found", "mistaken", "foreign", "foreign_mistaken"), 0)
    for row in read_turns(HERE / "dialogue" / f"attributes_{turns}.csv"):
        got = dialogue.attribute_asked(row["question"], ATTRIBUTES)
        if not row["attribute"]:
            out["foreign"] += 1
            out["foreign_mistaken"] += got is not None
        else:
            out["found" if got == row["attribute"] else "not_found" if got is None else "mistaken"] += 1
    return out


def pictures(wanted: str) -> tuple[str, ...]:
    """'dress/red' -> the first drawn product of that kind and colour that is not in the collection."""
    if not wanted:
        return ()
    kind, colour = wanted.split("/")
    for product in drawn_products(400, seed=SEED + 1):
        if (product.attributes["kind"], product.attributes["colour"]) == (kind, colour):
            out = io.BytesIO()
            product.image.save(out, "JPEG")
            return (f"data:image/jpeg;base64,{b64encode(out.getvalue()).decode()}",)
    raise ValueError(f"no {wanted} is drawn")


def in_words(operation: Operation) -> dict[str, str]:
    name = NAMES[type(operation)]
    if name == "cheaper" and operation.dearer:  # type: ignore[union-attr]
        name = "dearer"
    hit = getattr(operation, "hit", None)
    bounds = getattr(operation, "bounds", ())
    return {
        "operation": name,
        "where": _choices(getattr(operation, "where", {})),
        "without": _choices(getattr(operation, "without", {})),
        "bounds": ";".join(sorted(f"{b.attribute}{b.sign}{b.number:g}" for b in bounds)),
        "hit": "" if hit is None else str(hit),
    }


def _choices(chosen: dict[str, tuple[str, ...]]) -> str:
    return ";".join(sorted(f"{name}={'|'.join(sorted(values))}" for name, values in chosen.items()))


def right(row: dict[str, str], got: dict[str, str]) -> bool:
    return all(_same(row[name], got[name]) for name in got)


def _same(expected: str, got: str) -> bool:
    return sorted(expected.replace("=", "").split(";")) == sorted(got.replace("=", "").split(";"))


def shares(rows: list[dict[str, str]], results: list[dict[str, str]]) -> dict[str, float]:
    pairs = list(zip(rows, results, strict=True))

    def share(kept: list[bool]) -> float:
        return round(sum(kept) / len(kept), 3) if kept else float("nan")

    return {
        "n": len(pairs),
        "right": share([right(row, got) for row, got in pairs]),
        "right_operation": share([row["operation"] == got["operation"] for row, got in pairs]),
        "english": share([right(row, got) for row, got in pairs if not is_chinese(row["user"])]),
        "chinese": share([right(row, got) for row, got in pairs if is_chinese(row["user"])]),
    }


def report(rows: list[dict[str, str]], results: list[dict[str, str]], *, quiet: bool) -> None:
    for row, got in zip(rows, results, strict=True):
        if not quiet and not right(row, got):
            want = " ".join(row[name] for name in got if row[name])
            had = " ".join(value for value in got.values() if value)
            print(f"{row['conversation']:>3} {row['user']}\n      wanted {want}\n      got    {had}")
    for name, share in shares(rows, results).items():
        print(f"{name:>16}  {share:g}")


if __name__ == "__main__":
    main()
