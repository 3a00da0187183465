"""The models that a process has loaded: its own, and those of other generations of vectors."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from indexer.errors import Conflict
from indexer.store.collections import Collection, Generation
from search.batching import Batching
from textmm.encoder import Encoder

logger = logging.getLogger(__name__)

AGAIN_S = 60.0
"""After so long a model that could not be loaded is tried again."""


@dataclass(frozen=True)
class Served:
    encoder: Encoder
    batching: Batching


class Models:
    def __init__(self, encoder: Encoder, *, load: Callable[[str], Encoder], queue: int) -> None:
        """`load`: an encoder by the name of its model; `queue`: of each model's inputs."""
        self._load, self._queue = load, queue
        self.own = Served(encoder, Batching(encoder, queue=queue))
        self._served = {encoder.model_id: self.own}
        self._failed: dict[str, float] = {}
        """When it was tried last."""
        self._loading = threading.Lock()

    @property
    def ids(self) -> list[str]:
        return list(self._served)

    def encoder(self, model_id: str) -> Encoder | None:
        """None: it is not loaded."""
        served = self._served.get(model_id)
        return None if served is None else served.encoder

    def of(self, collection: Collection) -> Served:
        """What compares with the vectors of a collection (for vectors of the owner's: nothing does, and it is our own).

        Raises Conflict when they come from a model that is not loaded: vectors of two models are never compared.
        """
        generation = collection.generation
        if generation is None or collection.is_external:
            return self.own
        served = self._served.get(generation.model_id)
        if served is None and self.ensure(generation):
            served = self._served[generation.model_id]
        if served is None:
            raise Conflict(
                f"collection {collection.name!r} holds vectors of {generation.model_id}, "
                f"this server runs {self.own.encoder.model_id}: index it again or serve its model"
            )
        return served

    def ensure(self, generation: Generation) -> bool:
        """Load the model of a generation; whether it is there. One that cannot be loaded is tried again in a while."""
        if generation.model_id in self._served:
            return True
        with self._loading:
            tried = self._failed.get(generation.model_id)
            early = tried is not None and time.monotonic() - tried < AGAIN_S
            if generation.model_id not in self._served and generation.model_name and not early:
                self._try(generation.model_id, generation.model_name)
            return generation.model_id in self._served

    def _try(self, model_id: str, name: str) -> None:
        try:
            encoder = self._load(name)
            if encoder.model_id != model_id:
                raise ValueError(f"{name} has other weights now: it is {encoder.model_id}")
        except Exception:
            logger.exception("model %s of a generation cannot be loaded", model_id)
            self._failed[model_id] = time.monotonic()
            return
        self._served[model_id] = Served(encoder, Batching(encoder, queue=self._queue))
        logger.info("model %s is loaded beside %s", model_id, self.own.encoder.model_id)

    def close(self) -> None:
        for served in self._served.values():
            served.batching.close()
