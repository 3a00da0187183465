"""The models that a process has loaded: its own, and those of other generations of vectors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from indexer.errors import Conflict
from indexer.store.collections import Collection, Generation
from search.batching import Batching
from textmm.encoder import Encoder

logger = logging.getLogger(__name__)


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
        self._failed: set[str] = set()

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
        if served is None:
            raise Conflict(
                f"collection {collection.name!r} holds vectors of {generation.model_id}, "
                f"this server runs {self.own.encoder.model_id}: index it again or serve its model"
            )
        return served

    def ensure(self, generation: Generation) -> bool:
        """Load the model of a generation; whether it is there. A model that cannot be loaded is logged once."""
        if generation.model_id in self._served:
            return True
        if generation.model_name is None or generation.model_id in self._failed:
            return False
        try:
            encoder = self._load(generation.model_name)
            if encoder.model_id != generation.model_id:
                raise ValueError(f"{generation.model_name} has other weights now: it is {encoder.model_id}")
        except Exception:
            logger.exception("model %s of a generation cannot be loaded", generation.model_id)
            self._failed.add(generation.model_id)
            return False
        self._served[encoder.model_id] = Served(encoder, Batching(encoder, queue=self._queue))
        logger.info("model %s is loaded beside %s", encoder.model_id, self.own.encoder.model_id)
        return True

    def close(self) -> None:
        for served in self._served.values():
            served.batching.close()
