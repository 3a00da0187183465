"""Rows to segments, published atomically: the files first, then the rows that name them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from indexer.config import IndexConfig
from indexer.files import GRACE_S
from indexer.store.builds import TARGETS, Build, Builds, Link
from indexer.store.collections import Generation
from indexer.store.embeddings import Target
from indexer.vectors.choice import build_segment
from indexer.vectors.index import VectorIndex
from indexer.vectors.segments import Segment, delete_segment, read_segment, write_segment

if TYPE_CHECKING:
    from indexer.vectors.gpu import Devices

logger = logging.getLogger(__name__)

GROWTH = 4
"""A fold takes in the segments before it that are at most so many times its size: each then is several times smaller
than the one before, there are few, and a row is built into a new segment a few times only."""
DEAD_SHARE = 0.2
"""Of a segment's rows: when so many have died it is built anew."""


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
    def cuts(self) -> Sequence[int]: ...
    @property
    def images(self) -> HasVectors: ...
    @property
    def texts(self) -> HasVectors: ...


def worth_folding(view: Foldable, config: IndexConfig) -> int | None:
    """From which segment on a fold is worth it, with the tail; None: it is not."""
    indexes = [view.images.vectors, view.texts.vectors]
    sizes = [sum(index.parts[i].count for index in indexes) for i in range(len(view.cuts) - 1)]
    dead = [sum(len(index.parts[i].dead) for index in indexes) for i in range(len(sizes))]
    first = len(sizes)
    for i, size in enumerate(sizes):
        if dead[i] >= max(config.fold_rows, DEAD_SHARE * (size + dead[i])):
            first = i
            break
    tail = max(index.tail_rows for index in indexes)
    if first == len(sizes) and tail < config.fold_rows:
        return None
    return _taken_in(sizes, first, tail)


def _taken_in(sizes: Sequence[int], first: int, tail: int) -> int:
    """Where a fold that would begin at `first` begins once it takes in those before that are not much larger."""
    rows = tail + sum(sizes[first:])
    while first and sizes[first - 1] <= GROWTH * rows:
        first -= 1
        rows += sizes[first]
    return first


def fold(
    view: Foldable,
    folder: Path,
    config: IndexConfig,
    builds: Builds,
    *,
    first: int = 0,
    devices: Devices | None = None,
) -> dict[Target, Segment]:
    """A new segment of each target in place of a view's segments from `first` on and its tail, on disk and recorded.

    Raises OSError (a full disk), or IntegrityError when the collection is gone; then nothing is left of them.
    """
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    parts: Mapping[Target, VectorIndex] = {"images": view.images.vectors, "texts": view.texts.vectors}
    segments: dict[Target, Segment] = {}
    made: dict[Target, Build] = {}
    try:
        for target in TARGETS:
            segment = build_segment(*parts[target].rows(first), config.build_options, devices)
            which = f"{view.collection_id}-{view.generation.generation_id}-{target}"
            stem = f"{which}-{view.through_seq}-{time.time_ns()}"
            files = write_segment(segment, folder, stem)
            measured = {} if segment.tuning is None else segment.tuning.as_json()
            made[target] = Build(stem, files, segment.kind, segment.count, measured)
            segments[target] = read_segment(folder, stem, files, segment.tuning, verify=False)
        link = Link(view.cuts[first], view.through_seq, made)
        stale = builds.publish(view.collection_id, view.generation.generation_id, link)
    except BaseException:
        for build in made.values():
            delete_segment(folder, build.file)
        raise
    _retire(folder, stale)
    _sweep(folder, builds.stems())
    logger.info(
        "collection %d: %s rows of changes %d to %d published in %.1f s",
        view.collection_id,
        " + ".join(f"{build.rows} {build.kind}" for build in made.values()),
        link.from_seq,
        link.through_seq,
        time.perf_counter() - started,
    )
    return segments


def _retire(folder: Path, stems: Sequence[str]) -> None:
    """Files that no row names any more are young from now on: a process that has just read their names still finds
    them."""
    for stem in stems:
        for path in folder.glob(f"{stem}.*"):
            with suppress(FileNotFoundError):
                os.utime(path)


def _sweep(folder: Path, in_use: set[str]) -> None:
    """Delete what is retired, and what killed processes and deleted collections left; young files' rows may be on the
    way."""
    before = time.time() - GRACE_S
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process was quicker
            ours = path.suffix in (".faiss", ".npy", ".partial")
            if ours and path.name.partition(".")[0] not in in_use and path.stat().st_mtime < before:
                path.unlink()
