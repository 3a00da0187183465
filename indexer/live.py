"""LiveIndex: one immutable view of every collection in this process, kept true to the rows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from indexer.attributes import AttributeIndex, Type
from indexer.build import fold, worth_folding
from indexer.config import IndexConfig
from indexer.database import Database
from indexer.store.builds import Builds
from indexer.store.collections import Collection, Collections, Generation
from indexer.store.embeddings import Embeddings, Target
from indexer.vectors.index import IndexFileBroken, Segment, VectorIndex, read_segment

logger = logging.getLogger(__name__)
TARGETS: tuple[Target, ...] = ("images", "texts")


@dataclass(frozen=True)
class TargetView:
    vectors: VectorIndex
    attributes: AttributeIndex


@dataclass(frozen=True)
class View:
    """What one request is answered from: the vectors of a collection as of one committed state."""

    collection_id: int
    generation: Generation
    through_seq: int
    folded_seq: int
    """Through which the segments go."""
    images: TargetView
    texts: TargetView

    def target(self, target: Target) -> TargetView:
        return self.images if target == "images" else self.texts


class LiveIndex:
    """Readers take a view and never wait; changes make a new one beside it."""

    def __init__(self, database: Database, folder: Path, config: IndexConfig) -> None:
        self._collections = Collections(database)
        self._embeddings = Embeddings(database)
        self._builds = Builds(database)
        self._folder = folder
        self._config = config
        self._views: dict[int, View] = {}
        self._lock = threading.Lock()
        """Held while a view is made; never by a search that finds one."""
        self._folding = threading.Lock()

    def view(self, collection: Collection) -> View | None:
        """The view of a collection, loaded at its first use; None while it has no vectors."""
        if collection.generation is None:
            return None
        view = self._views.get(collection.collection_id)
        if view is None or view.generation != collection.generation:
            view = self.take_up(collection)
        return view

    def take_up(self, collection: Collection) -> View | None:
        """Bring a view up to what is committed now."""
        generation = collection.generation
        if generation is None:
            return None
        with self._lock:
            view = self._views.get(collection.collection_id)
            if view is None or view.generation != generation:
                view = self._load(collection.collection_id, generation)
            view = self._with_changes(view)
            self._views[collection.collection_id] = view
        return view

    def poll(self) -> None:
        """Take up what other processes wrote, forget what is gone, fold what is worth it."""
        seqs = self._embeddings.seqs()
        with self._lock:
            for gone in set(self._views) - set(seqs):
                del self._views[gone]
        for collection in self._collections.all():
            view = self._views.get(collection.collection_id)
            if view is not None and (view.through_seq, view.generation) != (
                collection.change_seq,
                collection.generation,
            ):
                self.take_up(collection)
        for view in list(self._views.values()):
            if worth_folding(view, self._config):
                self.fold(view.collection_id)

    def fold(self, collection_id: int) -> None:
        """Make new segments of a view, publish them, and put them under what came meanwhile."""
        with self._folding:
            view = self._views.get(collection_id)
            if view is None:
                return
            segments = fold(view, self._folder, self._config, self._builds)
            with self._lock:
                if self._views.get(collection_id) is None:
                    return
                self._views[collection_id] = self._with_changes(_on(view, segments))

    def _load(self, collection_id: int, generation: Generation) -> View:
        """The published segments with the attributes of their rows; without good files, an empty view at 0."""
        empty = TargetView(VectorIndex(generation.embed_dim), AttributeIndex({}))
        fresh = View(collection_id, generation, 0, 0, empty, empty)
        builds = {t: self._builds.latest(collection_id, generation.generation_id, t) for t in TARGETS}
        seqs = {build.through_seq for build in builds.values() if build is not None}
        if None in builds.values() or len(seqs) != 1:
            return fresh
        segments: dict[Target, Segment] = {}
        try:
            for target, build in builds.items():
                assert build is not None
                segments[target] = read_segment(self._folder / build.file, build.sha256)
        except IndexFileBroken as error:
            logger.warning("index file put aside, its rows are searched from SQL: %s", error)
            self._put_aside([b.file for b in builds.values() if b is not None])
            return fresh
        (seq,) = seqs
        types, known = self._embeddings.attributes(collection_id, generation.generation_id, through_seq=seq)
        views = {}
        for target in TARGETS:
            ids, attributes = known[target]
            index = VectorIndex(generation.embed_dim, segments[target]).only(ids)
            views[target] = TargetView(index, AttributeIndex(types).with_rows(ids, attributes))
        return View(collection_id, generation, seq, seq, views["images"], views["texts"])

    def _with_changes(self, view: View) -> View:
        changes = self._embeddings.changes(
            view.collection_id,
            view.generation.generation_id,
            since_seq=view.through_seq,
            embed_dim=view.generation.embed_dim,
        )
        if changes.through_seq == view.through_seq:
            return view
        view = self._with_types(view, changes.types)
        targets = {}
        for target, born in (("images", changes.images), ("texts", changes.texts)):
            old = view.images if target == "images" else view.texts
            vectors = old.vectors.with_changes(born.embedding_ids, born.vectors, changes.dead)
            targets[target] = TargetView(
                vectors, old.attributes.with_rows(born.embedding_ids, born.attributes)
            )
        return replace(
            view, through_seq=changes.through_seq, images=targets["images"], texts=targets["texts"]
        )

    def _with_types(self, view: View, types: Mapping[str, Type]) -> View:
        """The view with attributes of these types; where one has changed, its columns are made anew."""
        old = view.images.attributes.types
        if types == old:
            return view
        targets = {t: view.target(t).attributes.with_types(types) for t in TARGETS}
        if any(types.get(name) != kind for name, kind in old.items()):
            ids = (view.collection_id, view.generation.generation_id)
            _, rows = self._embeddings.attributes(*ids, through_seq=view.through_seq)
            targets = {t: AttributeIndex(types).with_rows(*rows[t]) for t in TARGETS}
        images, texts = (replace(view.target(t), attributes=targets[t]) for t in TARGETS)
        return replace(view, images=images, texts=texts)

    def _put_aside(self, files: list[str]) -> None:
        for name in files:
            path = self._folder / name
            if path.exists():
                path.replace(path.with_suffix(".broken"))


def _on(view: View, segments: dict[Target, Segment]) -> View:
    """The view with its rows in new segments and nothing in the tail; its attributes are those of the same rows."""
    dim = view.generation.embed_dim
    targets = {
        t: TargetView(VectorIndex(dim, segments[t]), view.target(t).attributes.only(segments[t].ids))
        for t in TARGETS
    }
    return replace(view, folded_seq=view.through_seq, images=targets["images"], texts=targets["texts"])
