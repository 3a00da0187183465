"""Recall of what is served: approximate answers to real queries against exact ones, measured again and again."""

from __future__ import annotations

import logging
import threading
from collections import deque

import numpy as np
from numpy.typing import NDArray

from indexer.vectors.choice import recall
from indexer.vectors.index import Allowed, VectorIndex

logger = logging.getLogger(__name__)

K = 10
KEPT = 200
"""Queries that are remembered, the latest."""
FEWEST = 20
"""Of fewer queries nothing is said."""
WIDER = 1.5
WIDEST = 8.0
"""Times the effort of the build; if that is not enough, search is exact."""


class RecallWatch:
    """Of one target of one collection; views come and go, it stays. Any thread may use it."""

    def __init__(self) -> None:
        self._queries: deque[NDArray[np.float32]] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self.effort = 1.0
        """Times what was measured at the build; 0: search exactly."""
        self.recall: float | None = None
        """Recall@10 of the last queries; None: not measured yet."""

    def search(
        self, index: VectorIndex, vectors: NDArray[np.float32], k: int, allowed: Allowed | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """`VectorIndex.search` with the effort that has proved to be needed."""
        if not index.is_approximate:
            return index.search(vectors, k, allowed=allowed)
        if allowed is None:
            with self._lock:
                self._queries.extend(vectors)
        if not self.effort:
            return index.exactly().search(vectors, k, allowed=allowed)
        return index.search(vectors, k, allowed=allowed, effort=self.effort)

    def begin_anew(self) -> None:
        """Other segments answer now: what was needed before says nothing of them."""
        self.effort, self.recall = 1.0, None

    def check(self, index: VectorIndex, target: float, where: str) -> None:
        """Measure recall on the queries remembered; where it is under the target, search wider from now on."""
        with self._lock:
            asked = list(self._queries)
        if not index.is_approximate or len(asked) < FEWEST or not self.effort:
            return
        queries = np.stack(asked)
        truth, _ = index.exactly().search(queries, K)
        while True:
            found, _ = index.search(queries, K, effort=self.effort)
            self.recall = recall(found, truth)
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
