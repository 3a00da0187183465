"""Recall of what is served: approximate answers to real queries against exact ones, measured again and again."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.vectors.choice import recall
from indexer.vectors.index import Allowed, VectorIndex

logger = logging.getLogger(__name__)

K = 10
KEPT, KEPT_FILTERED = 200, 40
"""Queries that are remembered, the latest: without and with a filter."""
FEWEST = 20
"""Of fewer queries nothing is said."""
WIDER = 1.5
WIDEST = 8.0
"""Times the effort of the build; if that is not enough, search is exact."""


@dataclass(frozen=True)
class _Asked:
    """Queries [n, d] and the rows that might answer, of the index they were asked of."""

    index: VectorIndex
    queries: NDArray[np.float32]
    allowed: Allowed | None

    def search(self, effort: float = 1.0, *, exactly: bool = False) -> NDArray[np.float32]:
        """Cosines of the best ten."""
        index = self.index.exactly() if exactly else self.index
        return index.search(self.queries, K, allowed=self.allowed, effort=effort)[0]


class RecallWatch:
    """Of one target of one collection; views come and go, it stays. Any thread may use it."""

    def __init__(self) -> None:
        self._queries: deque[NDArray[np.float32]] = deque(maxlen=KEPT)
        self._filtered: deque[_Asked] = deque(maxlen=KEPT_FILTERED)
        self._lock = threading.Lock()
        self.effort = 1.0
        """Times what was measured at the build; 0: search exactly."""
        self.recall: float | None = None
        """Recall@10 of the last queries, the lower one of those without and with a filter; None: not measured yet."""

    def search(
        self, index: VectorIndex, vectors: NDArray[np.float32], k: int, allowed: Allowed | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """`VectorIndex.search` with the effort that has proved to be needed."""
        if not index.is_approximate:
            return index.search(vectors, k, allowed=allowed)
        with self._lock:
            if allowed is None:
                self._queries.extend(vectors)
            elif allowed.count:
                self._filtered.extend(_Asked(index, vector[None], allowed) for vector in vectors)
        if not self.effort:
            return index.exactly().search(vectors, k, allowed=allowed)
        return index.search(vectors, k, allowed=allowed, effort=self.effort)

    def begin_anew(self) -> None:
        """Other segments answer now: what was needed before says nothing of them."""
        self.effort, self.recall = 1.0, None
        with self._lock:
            self._filtered.clear()

    def check(self, index: VectorIndex, target: float, where: str) -> None:
        """Measure recall on the queries remembered; where it is under the target, search wider from now on."""
        with self._lock:
            plain, filtered = list(self._queries), list(self._filtered)
        kinds = []
        if len(plain) >= FEWEST:
            kinds.append([_Asked(index, np.stack(plain), None)])
        if len(filtered) >= FEWEST:
            kinds.append(filtered)
        if not index.is_approximate or not kinds or not self.effort:
            return
        known = [[(one, one.search(exactly=True)) for one in kind] for kind in kinds]
        while True:
            self.recall = min(
                float(np.mean([recall(one.search(self.effort), truth) for one, truth in kind]))
                for kind in known
            )
            if self.recall >= target:
                return
            self.effort = self.effort * WIDER if self.effort < WIDEST else 0.0
            wider = f"{self.effort:.2f} times the effort" if self.effort else "exact search"
            logger.warning(
                "%s: recall of real queries is %.3f, below %.3f: %s", where, self.recall, target, wider
            )
            if not self.effort:
                self.recall = 1.0
                return
