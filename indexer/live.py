"""LiveIndex: one immutable view of every collection in this process, kept true to the rows."""

from __future__ import annotations

import fcntl
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.attributes import AttributeIndex, Type
from indexer.build import fold, worth_folding
from indexer.columns import Mask
from indexer.conditions import Condition
from indexer.config import IndexConfig
from indexer.database import Database
from indexer.filters import passing
from indexer.ids import Ids
from indexer.recall import RecallWatch
from indexer.store.builds import TARGETS, Builds, Link
from indexer.store.collections import Collection, Collections, Generation
from indexer.store.embeddings import Embeddings, Target
from indexer.store.generations import Generations
from indexer.vectors import devices
from indexer.vectors.index import Allowed, VectorIndex
from indexer.vectors.segments import IndexFileBroken, Segment, read_segment
from indexer.vectors.tuning import Tuning

logger = logging.getLogger(__name__)

FILTERS_KEPT = 8
"""Of one view: the rows that the last filters let through."""


@dataclass(frozen=True)
class Passing:
    """What a filter lets through."""

    masks: list[Mask]
    """One for each part of the attributes; dead rows may be in."""
    allowed: Allowed


@dataclass(frozen=True)
class TargetView:
    vectors: VectorIndex
    attributes: AttributeIndex
    dead: Ids
    """Ascending: rows of the attributes that have died since."""
    watch: RecallWatch
    _kept: dict[str, Passing] = field(default_factory=dict, compare=False)

    def passing(self, condition: Condition) -> Passing:
        """Worked out once for the last filters of a view. Raises FilterError."""
        name = repr(condition)  # which tells true from 1, as equality does not
        found = self._kept.get(name)
        if found is None:
            masks = passing(condition, self.attributes)
            parts = [(part.ids, mask) for part, mask in zip(self.attributes.parts, masks, strict=True)]
            found = Passing(masks, self.vectors.allow_masks(parts))
            for old in list(self._kept)[: max(0, len(self._kept) + 1 - FILTERS_KEPT)]:
                self._kept.pop(old, None)
            self._kept[name] = found
        return found

    def search(
        self, vectors: NDArray[np.float32], k: int, allowed: Allowed | None = None
    ) -> tuple[NDArray[np.float32], Ids]:
        """`VectorIndex.search` with the effort that real queries have proved to need."""
        return self.watch.search(self.vectors, vectors, k, allowed)

    def changed(self, vectors: VectorIndex, attributes: AttributeIndex, dead: Ids) -> TargetView:
        return TargetView(vectors, attributes, dead, self.watch)


@dataclass(frozen=True)
class View:
    """What one request is answered from: the vectors of a collection as of one committed state."""

    collection_id: int
    generation: Generation
    through_seq: int
    cuts: tuple[int, ...]
    """Changes at which its segments begin and end, from 0 on."""
    images: TargetView
    texts: TargetView

    def target(self, target: Target) -> TargetView:
        return self.images if target == "images" else self.texts

    @property
    def key(self) -> tuple[int, int]:
        return self.collection_id, self.generation.generation_id

    @property
    def folded_seq(self) -> int:
        """Through which the segments go."""
        return self.cuts[-1]


class LiveIndex:
    """Readers take a view and never wait; changes make a new one beside it."""

    def __init__(self, database: Database, folder: Path, config: IndexConfig) -> None:
        """Raises DeviceRefused when the config names a device that cannot search."""
        self._collections = Collections(database)
        self._embeddings = Embeddings(database)
        self._builds = Builds(database)
        self._folder = folder
        self._config = config
        self._devices = devices.find(config.device, least_rows=config.exact_rows)
        self._generations = Generations(database)
        self._views: dict[tuple[int, int], View] = {}
        """By collection and generation: while one is filled beside the one that serves, both are kept up to date."""
        self._serving: dict[int, int] = {}
        """Of each collection the generation that was last asked for."""
        self._lock = threading.Lock()
        """Held while a view is made; never by a search that finds one."""
        self._folding = threading.Lock()

    def view(self, collection: Collection, generation: Generation | None = None) -> View | None:
        """The view of a collection, loaded at its first use; None while it has no vectors. Of its active generation
        when none is named."""
        which = generation or collection.generation
        if which is None:
            return None
        key = (collection.collection_id, which.generation_id)
        serves = generation is not None or self._serving.get(key[0]) == key[1]
        view = self._views.get(key) if serves else None  # one that begins to serve has all rows first
        view = view or self.take_up(collection, which)
        if generation is None:
            self._serving[key[0]] = key[1]
        return view

    def views(self) -> list[View]:
        """Those that are loaded."""
        return list(self._views.values())

    def take_up(self, collection: Collection, generation: Generation | None = None) -> View | None:
        """Bring a view up to what is committed now."""
        which = generation or collection.generation
        if which is None:
            return None
        key = (collection.collection_id, which.generation_id)
        with self._lock:
            view = self._with_changes(self._views.get(key) or self._load(collection.collection_id, which))
            self._views[key] = view
        return view

    def poll(self) -> None:
        """Take up what other processes wrote, forget what is gone."""
        with self._lock:
            for gone in set(self._views) - self._generations.all():
                del self._views[gone]
        collections = {one.collection_id: one for one in self._collections.all()}
        with _each_in_turn() as tried:
            for view in self.views():
                collection = collections.get(view.collection_id)
                if collection is not None and view.through_seq != collection.change_seq:
                    with tried():
                        self.take_up(collection, view.generation)

    def fold_due(self) -> None:
        """Fold what is worth it, or take the segments of another process. One process over a folder folds at a time."""
        with _each_in_turn() as tried:
            for view in self.views():
                if worth_folding(view, self._config) is not None:
                    with tried(), self._only_folder(wait=False) as mine:
                        if mine:
                            self._fold_or_adopt(view)

    def _fold_or_adopt(self, view: View) -> None:
        recorded = self._adopt(view)
        now = self._views.get(view.key)
        first = None if now is None else worth_folding(now, self._config)
        if now is not None and first is not None:
            # What is recorded of our segments may have been forgotten: then all rows make a new beginning.
            self._fold(now, first if now.cuts == recorded[: len(now.cuts)] else 0)

    def fold(self, collection_id: int) -> None:
        """Make one new segment of all there is in each loaded view of a collection, and publish it."""
        for view in self.views():
            if view.collection_id == collection_id:
                with self._only_folder(wait=True):
                    self._fold(view, 0)

    def _fold(self, view: View, first: int) -> None:
        """New segments in place of those from `first` on and of the tail."""
        with self._folding:
            now = self._views.get(view.key)
            if now is None or now.cuts != view.cuts:
                return
            segments = fold(now, self._folder, self._config, self._builds, first=first, devices=self._devices)
            segments = {t: self._held(segment) for t, segment in segments.items()}
            kept = {t: [part.segment for part in now.target(t).vectors.parts[:first]] for t in TARGETS}
            cuts = (*now.cuts[: first + 1], now.through_seq)
            self._put_under(now, {t: [*kept[t], segments[t]] for t in TARGETS}, cuts)

    def check_recall(self) -> None:
        """Measure the recall of approximate segments on queries that were asked; search wider where it is too low."""
        for view in self.views():
            for target in TARGETS:
                one = view.target(target)
                one.watch.check(
                    one.vectors, self._config.recall, f"collection {view.collection_id}, {target}"
                )

    def _adopt(self, view: View) -> tuple[int, ...]:
        """Take the segments of another process that are not ours and no later than our rows; the recorded cuts."""
        with self._folding:
            chain = self._builds.chain(*view.key)
            cuts = _cuts(chain)
            if cuts == view.cuts or not 0 < cuts[-1] <= view.through_seq:
                return cuts
            try:
                segments = self._segments(chain)
            except IndexFileBroken as error:
                logger.warning("segments of another process are not taken: %s", error)
                return ()
            self._put_under(view, segments, cuts)
            return cuts

    def _put_under(
        self, view: View, segments: Mapping[Target, Sequence[Segment]], cuts: tuple[int, ...]
    ) -> None:
        """Segments of the rows of `view` in place of those of the view that there is now."""
        with self._lock:
            now = self._views.get(view.key)
            if now is None:
                return
            targets = {t: _on(now.target(t), segments[t]) for t in TARGETS}
            for target, one in targets.items():
                if one.vectors.approximate_segments() != now.target(target).vectors.approximate_segments():
                    one.watch.begin_anew()
            self._views[view.key] = replace(now, cuts=cuts, images=targets["images"], texts=targets["texts"])

    @contextmanager
    def _only_folder(self, *, wait: bool) -> Iterator[bool]:
        """Whether no other process over this folder folds now; none does until the block ends."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "folding.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    def _load(self, collection_id: int, generation: Generation) -> View:
        """The published segments with the attributes of their rows; without good files, an empty view at 0."""
        dim, threads, none = generation.embed_dim, self._config.threads, np.empty(0, np.int64)
        chain = self._builds.chain(collection_id, generation.generation_id)
        segments: dict[Target, list[Segment]] = {t: [] for t in TARGETS}
        for number, link in enumerate(chain):
            try:
                read = self._segments([link])
            except IndexFileBroken as error:
                logger.warning("index file put aside, its rows are searched from SQL: %s", error)
                _put_aside(error.wrong)
                chain = chain[:number]
                break
            for target in TARGETS:
                segments[target] += read[target]
        cuts = _cuts(chain)
        views = {}
        if chain:
            ids = (collection_id, generation.generation_id)
            types, known = self._embeddings.attributes(*ids, through_seq=cuts[-1])
        for target in TARGETS:
            index, attributes = VectorIndex.over(dim, segments[target], threads=threads), AttributeIndex({})
            if chain:
                living, rows = known[target]
                index, attributes = index.only(living), AttributeIndex(types).with_rows(living, rows)
            views[target] = TargetView(index, attributes, none, RecallWatch())
        return View(collection_id, generation, cuts[-1], cuts, views["images"], views["texts"])

    def _segments(self, chain: Sequence[Link]) -> dict[Target, list[Segment]]:
        """Raises IndexFileBroken."""
        return {
            target: [
                self._held(read_segment(self._folder, build.file, build.files, Tuning.of(build.measured)))
                for build in (link.builds[target] for link in chain)
            ]
            for target in TARGETS
        }

    def _held(self, segment: Segment) -> Segment:
        """On devices too, where there are some, and with what its first filter would wait for."""
        held = segment if self._devices is None else self._devices.hold(segment)
        held.prepare()
        return held

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
            targets[target] = old.changed(
                old.vectors.with_changes(born.embedding_ids, born.vectors, changes.dead),
                old.attributes.with_rows(born.embedding_ids, born.attributes),
                np.union1d(old.dead, changes.dead),
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
        images, texts = (replace(view.target(t), attributes=targets[t], _kept={}) for t in TARGETS)
        return replace(view, images=images, texts=texts)


def _put_aside(wrong: Path | None) -> None:
    """A file that holds something else than what was published. One that cannot be read now may be whole."""
    if wrong is not None:
        with suppress(FileNotFoundError):  # another process was quicker
            wrong.replace(wrong.with_suffix(".broken"))


@contextmanager
def _each_in_turn() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Gives blocks whose errors do not keep the others from their turn; the first one is raised in the end."""
    errors: list[Exception] = []

    @contextmanager
    def tried() -> Iterator[None]:
        try:
            yield
        except Exception as error:
            errors.append(error)

    yield tried
    if errors:
        raise errors[0]


def _cuts(chain: Sequence[Link]) -> tuple[int, ...]:
    return (0, *(link.through_seq for link in chain))


def _on(one: TargetView, segments: Sequence[Segment]) -> TargetView:
    """The same rows in these segments; where many rows of the attributes are dead, they go too."""
    vectors = one.vectors.with_segments(segments)
    attributes, dead = one.attributes, one.dead
    if attributes.count > 1.1 * vectors.count:
        attributes, dead = attributes.only(vectors.living()), dead[:0]
    return one.changed(vectors, attributes, dead)
