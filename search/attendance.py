"""A server's part in a change of models: it loads what generations need, and tells the others what it can serve."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time

from indexer.database import Database
from indexer.live import LiveIndex
from indexer.store.collections import Collection, Collections, Generation
from indexer.store.generations import Generations
from indexer.store.processes import STALE_S, Processes
from search.models import Models

logger = logging.getLogger(__name__)

AGAIN_S = STALE_S / 3


class Attendance:
    def __init__(self, database: Database, models: Models, live: LiveIndex) -> None:
        self._collections, self._generations = Collections(database), Generations(database)
        self._processes = Processes(database)
        self._models, self._live = models, live
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._ready = list(models.ids)
        self._told: list[str] = []
        self._told_at: float | None = None

    def attend(self) -> None:
        """Load the models of all generations with their views, which may take long."""
        beside = self._generations.beside()
        lacking: set[str] = set()
        for collection in self._collections.all():
            active = [collection.generation] if collection.generation and not collection.is_external else []
            for generation in [*active, *beside.get(collection.collection_id, [])]:
                if not self._prepared(collection, generation):
                    lacking.add(generation.model_id)
        self._ready = [model_id for model_id in self._models.ids if model_id not in lacking]

    def _prepared(self, collection: Collection, generation: Generation) -> bool:
        if not self._models.ensure(generation):
            return False
        try:
            self._live.view(collection, generation)
        except Exception:
            logger.exception("%s of collection %s cannot be loaded", generation.model_id, collection.name)
            return False
        return True

    def tell(self) -> None:
        """Say that this process runs and what it can serve: when that is new, and now and then."""
        ready = self._ready
        due = self._told_at is None or time.monotonic() - self._told_at > AGAIN_S
        if due or self._told != ready:
            self._processes.seen(self._name, ready)
            self._told, self._told_at = ready, time.monotonic()

    def close(self) -> None:
        if self._told_at is not None:
            self._processes.gone(self._name)
