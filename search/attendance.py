"""A server's part in a change of models: it loads what generations need, and tells the others what it can serve."""

from __future__ import annotations

import os
import secrets
import socket
import time

from indexer.database import Database
from indexer.live import LiveIndex
from indexer.store.collections import Collections
from indexer.store.generations import Generations
from indexer.store.processes import STALE_S, Processes
from search.models import Models

AGAIN_S = STALE_S / 3


class Attendance:
    def __init__(self, database: Database, models: Models, live: LiveIndex) -> None:
        self._collections, self._generations = Collections(database), Generations(database)
        self._processes = Processes(database)
        self._models, self._live = models, live
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._told: list[str] = []
        self._told_at: float | None = None

    def attend(self) -> None:
        """Load the models of all generations with their views; say what there is when that is new, and now and then."""
        beside = self._generations.beside()
        for collection in self._collections.all():
            if collection.generation is not None and not collection.is_external:
                self._models.ensure(collection.generation)
            for generation in beside.get(collection.collection_id, []):
                if self._models.ensure(generation):
                    self._live.view(collection, generation)
        due = self._told_at is None or time.monotonic() - self._told_at > AGAIN_S
        if due or self._told != self._models.ids:
            self._told = self._models.ids
            self._processes.seen(self._name, self._told)
            self._told_at = time.monotonic()

    def close(self) -> None:
        if self._told_at is not None:
            self._processes.gone(self._name)
