"""Rows to segments, published atomically: the file first, then the row that names it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from indexer.config import IndexConfig
from indexer.files import GRACE_S
from indexer.store.builds import Build, Builds
from indexer.store.collections import Generation
from indexer.store.embeddings import Target
from indexer.vectors.index import Segment, VectorIndex, build_segment, write_segment

logger = logging.getLogger(__name__)


class HasVectors(Protocol):
    @property
    def vectors(self) -> VectorIndex: ...


class Foldable(Protocol):
    """A view: what a fold reads."""

    @property
    def collection_id(self) -> int: ...
    @property
    def generation(self) -> Generation: ...
    @property
    def through_seq(self) -> int: ...
    @property
    def images(self) -> HasVectors: ...
    @property
    def texts(self) -> HasVectors: ...


def worth_folding(view: Foldable, config: IndexConfig) -> bool:
    """Whether tail and dead rows have grown past fold_rows and a fifth of the segment: rebuilding stays
    linear.
    """
    for target in (view.images, view.texts):
        index = target.vectors
        segment = 0 if index.segment is None else index.segment.count
        if index.tail_rows + len(index.dead) >= max(config.fold_rows, segment // 5):
            return True
    return False


def fold(view: Foldable, folder: Path, config: IndexConfig, builds: Builds) -> dict[Target, Segment]:
    """New segments of a view's living rows, on disk and recorded.

    Raises OSError (a full disk), or IntegrityError when the collection is gone; then nothing is left of them.
    """
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    parts: Mapping[Target, VectorIndex] = {"images": view.images.vectors, "texts": view.texts.vectors}
    segments: dict[Target, Segment] = {}
    made: dict[Target, Build] = {}
    try:
        for target, index in parts.items():
            ids, vectors = index.rows()
            segment = build_segment(ids, vectors, config.factory)
            which = f"{view.collection_id}-{view.generation.generation_id}-{target}"
            name = f"{which}-{view.through_seq}-{time.time_ns()}.faiss"
            digest = write_segment(segment, folder / name)
            segments[target] = segment
            made[target] = Build(name, digest, view.through_seq, segment.count, {"factory": config.factory})
        stale = builds.publish(
            view.collection_id, view.generation.generation_id, made, build_s=time.perf_counter() - started
        )
    except BaseException:
        for build in made.values():
            (folder / build.file).unlink(missing_ok=True)
        raise
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    _sweep(folder, builds.files())
    logger.info("collection %d: segments through change %d published", view.collection_id, view.through_seq)
    return segments


def _sweep(folder: Path, in_use: set[str]) -> None:
    """Delete what killed processes and deleted collections left; young files' rows may be on the way."""
    before = time.time() - GRACE_S
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process was quicker
            if (
                path.suffix in (".faiss", ".partial")
                and path.name not in in_use
                and path.stat().st_mtime < before
            ):
                path.unlink()
