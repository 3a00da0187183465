"""Config: config.toml to typed sections, checked once; an unknown key is an error that names it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from indexer.config import DatabaseConfig, IndexConfig, IngestConfig
from textmm.config import check_positive, from_mapping


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    name: str = "mini"
    """A bundled model, a folder that `textmm train` wrote, or one of open_clip's: ARCHITECTURE/TAG, hf-hub:ORG/NAME."""
    device: str = "cpu"
    """cpu, cuda, cuda:1 …"""
    threads: int = 2
    """Cores that encode; each works on a part of a batch."""
    trunks: str = ""
    """Folder of pretrained trunk weights; empty: DATA/trunks."""

    def __post_init__(self) -> None:
        check_positive("model", self, ("threads",))


@dataclass(frozen=True, kw_only=True)
class ServerSection:
    host: str = "127.0.0.1"
    port: int = 8000
    threads: int = 16
    """Requests handled at the same time."""
    max_body_bytes: int = 25_000_000
    """Of a whole request."""
    max_image_bytes: int = 20_000_000
    """Of one picture, decoded from base64."""
    max_image_pixels: int = 50_000_000
    """Of one picture; checked before it is decoded."""
    max_inputs: int = 256
    """Texts and pictures in one request."""
    queue: int = 256
    """Requests that may wait for the model; beyond it they get 429."""
    shutdown_s: float = 30.0
    """How long a stop waits for what is running."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"server.port must be 0..65535, got {self.port}")
        sizes = ("threads", "max_body_bytes", "max_image_bytes", "max_image_pixels", "max_inputs", "queue")
        check_positive("server", self, sizes)


@dataclass(frozen=True, kw_only=True)
class DrawSection:
    generator: str = "mini-draw"
    """A bundled generator, a folder that `textmm train` wrote, or a diffusers pipeline; empty: nothing is drawn."""
    threads: int = 2
    """Cores that draw, behind those that search."""
    queue: int = 8
    """Requests that may wait for the one that is drawn; beyond it they get 429."""
    banks: tuple[str, ...] = ()
    """Banks that a drawn picture is looked up in: what they know does not leave."""

    def __post_init__(self) -> None:
        check_positive("draw", self, ("threads", "queue"))


@dataclass(frozen=True, kw_only=True)
class Config:
    data: Path = Path("data")
    """Where database, blobs, indexes and weights live."""
    model: ModelSection = field(default_factory=ModelSection)
    server: ServerSection = field(default_factory=ServerSection)
    database: DatabaseConfig = field(default_factory=DatabaseConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    draw: DrawSection = field(default_factory=DrawSection)

    @property
    def database_url(self) -> str:
        return self.database.url or f"sqlite:///{(self.data / 'textmm.sqlite').absolute()}"

    @property
    def trunks(self) -> Path:
        return Path(self.model.trunks) if self.model.trunks else self.data / "trunks"

    @property
    def models(self) -> Path:
        """Where published models are (open_clip_models)."""
        return self.data / "models"

    @classmethod
    def load(cls, path: Path | None = None, *, data: Path | None = None) -> Config:
        """The file (none: defaults), then the environment: TEXTMM_DATABASE_URL, which may hold a password.

        `data` wins over the file. ValueError names an unknown key or a bad value.
        """
        config = cls() if path is None else cls.parse(tomllib.loads(path.read_text(encoding="utf-8")))
        if data is not None:
            config = replace(config, data=data)
        url = os.environ.get("TEXTMM_DATABASE_URL")
        return replace(config, database=replace(config.database, url=url)) if url else config

    @classmethod
    def parse(cls, tables: Mapping[str, Any]) -> Config:
        sections = {
            "model": ModelSection,
            "server": ServerSection,
            "database": DatabaseConfig,
            "index": IndexConfig,
            "ingest": IngestConfig,
            "draw": DrawSection,
        }
        out: dict[str, Any] = {}
        for name, value in tables.items():
            if name == "data" and isinstance(value, str):
                out["data"] = Path(value)
            elif name in sections and isinstance(value, dict):
                out[name] = from_mapping(sections[name], value, where=f"{name}.")
            elif name == "data" or name in sections:
                raise ValueError(f"{name} must be a {'string' if name == 'data' else 'table'}, got {value!r}")
            else:
                raise ValueError(f"unknown key {name}; known here: data, {', '.join(sections)}")
        return cls(**out)
