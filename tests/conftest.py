"""Real things made small: a tiny model trained once, a migrated database, an indexed collection, the real app."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np
import pytest
import torch
from cheroot.wsgi import Server
from flask import Flask
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

from indexer.config import IngestConfig
from indexer.database import Database
from indexer.files import Blobs
from indexer.ingest import Ingest
from indexer.store.collections import Collections
from indexer.vectors.devices import cuda_devices
from search.app import close, create_app
from search.cli.main import main
from search.client import Client
from search.config import Config, DrawSection
from search.engine import SearchEngine
from tests.drawn import write_pictures
from tests.postgres import any_database, bare_url, postgres  # noqa: F401 (fixtures)
from textmm import checkpoint
from textmm.config import named_model
from textmm.encoder import Encoder
from textmm.pairs import PairSource
from textmm.pretrained import TRUNKS, fetch
from textmm.recipe import Stage, TrainConfig
from textmm.sources import read_source
from textmm.text_to_image.config import AutoencoderConfig
from textmm.text_to_image.recipe import GeneratorRecipe, GeneratorStage, PictureSource
from textmm.text_to_image.training import train as train_generator
from textmm.tokenizers import BytePair
from textmm.train import train

ROOT = Path(__file__).parent.parent
NO_TRUNKS = Path("no-trunks")
LIMITS = {"near_copy": 31.0, "similar": 0.9}

TINY = TrainConfig(
    model="tiny",
    sources=(PairSource(source="captions.csv", share=1.0, caption_share=1.0),),
    stages=(
        Stage(
            name="joint",
            steps=400,
            batch_size=16,
            learning_rate=3e-3,
            contrastive_loss_weight=1.0,
            caption_loss_weight=1.0,
            scale_start=10.0,
        ),
    ),
    save_every=1000,
    threads=1,
)


def small_generator(words: Path, **changes: Any) -> GeneratorRecipe:
    """Of 32 x 32 pixels; a quarter of a minute on one core."""
    recipe = GeneratorRecipe(
        generator="drawer",
        words=str(words),
        sources=(PictureSource(source="captions.csv"),),
        autoencoder=AutoencoderConfig(
            height=32, width=32, channels=8, widths=(24, 24, 24, 24), decoder_blocks=(1, 1, 1, 1), noise=0.05
        ),
        flow={"width": 64, "layers": 3, "heads": 2, "hidden": 64},
        stages=(
            GeneratorStage(
                name="autoencoder",
                trains="autoencoder",
                steps=500,
                batch_size=8,
                learning_rate=4e-3,
            ),
            GeneratorStage(name="sharpen", trains="decoder", steps=20, batch_size=16, learning_rate=1e-3),
            GeneratorStage(
                name="flow",
                trains="flow",
                steps=400,
                batch_size=32,
                learning_rate=3e-3,
                matrix_learning_rate=6e-3,
            ),
        ),
        threads=1,
        save_every=1000,
        log_every=10,
    )
    return replace(recipe, **changes)


for name in [name for name in os.environ if name.startswith("TEXTMM_")]:
    del os.environ[name]  # whoever runs the tests may have a service of their own


def pytest_report_header() -> str:
    import faiss

    return f"torch {torch.__version__}, faiss {faiss.__version__}, numpy {np.__version__}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not cuda_devices():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the 16 drawn PNGs and captions.csv."""
    return write_pictures(tmp_path_factory.mktemp("pictures")).parent


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A checkpoint folder: the tiny model, trained on the drawn pictures until it knows them."""
    out = tmp_path_factory.mktemp("tiny")
    for _ in train(TINY, data=pictures, trunks=NO_TRUNKS, out=out):
        pass
    return out


@pytest.fixture(scope="session")
def encoder(tiny: Path) -> Encoder:
    """Read-only"""
    return Encoder.load(str(tiny), NO_TRUNKS)


@pytest.fixture(scope="session")
def drawer(tmp_path_factory: pytest.TempPathFactory, tiny: Path, pictures: Path) -> Path:
    """A folder: a small generator, trained on the drawn pictures until it draws their colours."""
    out = tmp_path_factory.mktemp("drawer")
    for _ in train_generator(small_generator(tiny), data=pictures, trunks=NO_TRUNKS, out=out):
        pass
    return out


@pytest.fixture(scope="session")
def asker(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A checkpoint folder: the tiny model as it answers questions; it knows pictures, and not yet words."""
    config = named_model("tiny")
    assert config.multimodal_cfg is not None
    decoder = replace(config.multimodal_cfg, questions=True)
    said = ["what is it?", "what colour is it, would you say?", "它是什么颜色?"]
    words = BytePair.train(
        said, decoder.vocab_size, context_length=decoder.context_length, styles=decoder.start_tokens
    )
    out = tmp_path_factory.mktemp("asker")
    model = checkpoint.build(replace(config, multimodal_cfg=decoder), NO_TRUNKS)
    towers = {k: v for k, v in load_torch(tiny / "model.safetensors").items() if k.startswith("image.")}
    model.load_state_dict(towers, strict=False)
    checkpoint.save(out, model, words, name="asker")
    return out


@pytest.fixture(scope="session")
def other_folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same shape with other weights."""
    folder = tmp_path_factory.mktemp("other") / "other"
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    rng = np.random.default_rng(0)
    changed = {}
    for name, values in weights.items():
        noise = 0.05 * rng.normal(size=values.shape) if values.dtype.kind == "f" else np.zeros(values.shape)
        changed[name] = np.asarray((values + noise).astype(values.dtype))
    save_file(changed, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def other(other_folder: Path) -> Encoder:
    return Encoder.load(str(other_folder), NO_TRUNKS)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "textmm.sqlite"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.close()
    return path


@pytest.fixture
def config(tmp_path: Path, migrated: Path) -> Config:
    """A data folder of its own, with a migrated database in it."""
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(migrated, data / "textmm.sqlite")
    return Config(data=data)


@pytest.fixture
def database(config: Config) -> Iterator[Database]:
    database = Database(config.database_url)
    yield database
    database.close()


@pytest.fixture
def indexed(config: Config, database: Database, encoder: Encoder, pictures: Path) -> Database:
    """The database with the drawn pictures in collection `shop`, straight from ingest."""
    collection = Collections(database).create("shop", is_bank=False, limits=LIMITS)
    ingest = Ingest(database, encoder, Blobs(config.data / "blobs"), IngestConfig())
    for _ in ingest.run(read_source(str(pictures / "captions.csv")), collection, source="drawn"):
        pass
    return database


@pytest.fixture
def app(config: Config, indexed: Database, encoder: Encoder) -> Iterator[Flask]:
    app = create_app(config, encoder=encoder)
    yield app
    close(app)


@pytest.fixture
def engine(app: Flask) -> SearchEngine:
    engine: SearchEngine = app.extensions["engine"]
    return engine


@pytest.fixture
def client(app: Flask) -> Iterator[Client]:
    """Our own SDK over the real app, in this process."""
    with Client("http://test", transport=httpx.WSGITransport(app=app)) as client:
        yield client


@pytest.fixture
def http(app: Flask) -> Iterator[httpx.Client]:
    """The bare wire, for what the SDK would not send."""
    with httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://test") as http:
        yield http


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


class Run(Protocol):
    def __call__(self, *arguments: str | Path) -> Ran: ...


@pytest.fixture
def run(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """The command line in this process, with a config.toml of its own: run("search", "a mug", …)."""
    settings = tmp_path / "config.toml"
    settings.write_text(f'data = "{tmp_path / "data"}"\n[model]\nname = "{tiny}"\nthreads = 1\n')
    monkeypatch.setenv("TEXTMM_CONFIG", str(settings))

    def run(*arguments: str | Path) -> Ran:
        with pytest.raises(SystemExit) as done:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ran(int(done.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def demo_server(
    tmp_path_factory: pytest.TempPathFactory, encoder: Encoder, drawer: Path, pictures: Path, migrated: Path
) -> Iterator[str]:
    """The URL of a real server on a free port with collection `shop`, and a generator."""
    data = tmp_path_factory.mktemp("served")
    shutil.copy(migrated, data / "textmm.sqlite")
    app = create_app(Config(data=data, draw=DrawSection(generator=str(drawer), queue=3)), encoder=encoder)
    engine: SearchEngine = app.extensions["engine"]
    collection = engine.collections.create("shop", is_bank=False, limits=LIMITS)
    database: Database = app.extensions["database"]
    ingest = Ingest(database, encoder, Blobs(data / "blobs"), IngestConfig())
    for _ in ingest.run(read_source(str(pictures / "captions.csv")), collection, source="drawn"):
        pass
    engine.live.poll()
    engine.live.fold_due()
    server = Server(("127.0.0.1", 0), app, numthreads=8)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    host, port = server.bind_addr[:2]
    yield f"http://{host}:{port}"
    server.stop()
    thread.join()
    close(app)


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    """2,000 x 64 seeded vectors of low intrinsic dimension, L2-normalised (after FAISS's SyntheticDataset)."""
    rng = np.random.default_rng(1338)
    rows = rng.normal(size=(2000, 10)) @ rng.normal(size=(10, 64))
    rows = np.sin(rows * rng.uniform(0.5, 2.0, size=64))
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture(scope="session")
def trunks() -> Path:
    """The pretrained weights, fetched when `make setup` has not."""
    folder = ROOT / "data" / "trunks"
    for name in TRUNKS:
        fetch(name, folder)
    return folder
