"""Is this picture known? Same bytes, near copy, similar: it reports what it finds and judges nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.hashing import MIN_QUALITY, hamming_distances, perceptual_hash, sha256
from indexer.store.collections import Collection
from search import messages as m
from search.engine import SearchEngine, cosine
from search.messages import BadRequest

Rows = NDArray[np.float32]


class Moderation:
    def __init__(self, engine: SearchEngine) -> None:
        self._engine = engine
        self._hashes: dict[int, tuple[int, list[str], NDArray[np.uint8]]] = {}
        """collection_id -> (change_seq, keys, hashes)"""
        self._lock = threading.Lock()

    def look_up(self, request: m.LookupRequest, *, image: bytes | None = None) -> m.LookupResponse:
        """Every bank item that the picture matches, by bank, kind and closeness. Answers from all that is
        committed now, other processes' writes included.

        Raises BadRequest, NotFound (a bank), Conflict, ImageUnreadable, ImageTooLarge, Overloaded.
        """
        engine = self._engine
        if (image is None) == (request.image is None):
            raise BadRequest("give the picture once: image as base64 or data URI, or as a file", "image")
        data = engine.uploads.bytes_of(image if image is not None else request.image or "")
        picture = engine.uploads.decode(data)
        banks = self._banks(request.banks)
        matches: list[m.Match] = []
        if "exact" in request.kinds:
            matches += [match for bank in banks for match in self._exact(bank, sha256(data))]
        if "near_copy" in request.kinds:
            matches += self._near_copies(banks, picture)
        if "similar" in request.kinds and banks:
            served = {bank.name: engine.models.of(bank) for bank in banks}
            vectors = {
                one.encoder.model_id: one.batching.encode_images([one.encoder.fit(picture)])
                for one in {id(one): one for one in served.values()}.values()
            }
            for bank in banks:
                matches += self._similar(bank, vectors[served[bank.name].encoder.model_id])
        order = {bank.name: i for i, bank in enumerate(banks)}
        matches.sort(key=lambda match: order[match.bank])
        return m.LookupResponse(matches, engine.encoder.model_id)

    def _banks(self, names: Sequence[str] | None) -> list[Collection]:
        collections = self._engine.collections
        if names is None:
            return [c for c in collections.all() if c.is_bank]
        banks = [collections.get(name) for name in dict.fromkeys(names)]
        plain = next((c for c in banks if not c.is_bank), None)
        if plain is not None:
            raise BadRequest(f'collection {plain.name!r} is no bank: make it with "bank": true', "banks")
        return banks

    def _exact(self, bank: Collection, digest: str) -> list[m.Match]:
        keys = self._engine.images.with_sha256(bank.collection_id, digest)
        return [m.Match(bank=bank.name, key=key, kind="exact", distance=0, signal="sha256") for key in keys]

    def _near_copies(self, banks: Sequence[Collection], picture: Image.Image) -> list[m.Match]:
        pdq, quality = perceptual_hash(picture)
        if quality < MIN_QUALITY:  # too plain a picture: its hash would match anything
            return []
        matches = []
        for bank in banks:
            limit = int(bank.limits["near_copy"])
            keys, hashes = self._bank_hashes(bank)
            distances = hamming_distances(pdq, hashes)
            near = sorted((int(distances[i]), keys[i]) for i in np.flatnonzero(distances <= limit))
            matches += [
                m.Match(
                    bank=bank.name, key=key, kind="near_copy", distance=distance, limit=limit, signal="pdq"
                )
                for distance, key in near
            ]
        return matches

    def _similar(self, bank: Collection, vector: Rows) -> list[m.Match]:
        view = self._engine.live.take_up(bank)
        if view is None:
            return []
        limit = float(bank.limits["similar"])
        every = view.images.vectors.exactly()  # an approximate index may miss a copy
        fetch = 64
        while True:
            scores, ids = every.search(vector, fetch)
            if ids.shape[1] < fetch or scores[0, -1] < limit:
                break
            fetch *= 4
        close = {int(i): float(s) for i, s in zip(ids[0], scores[0], strict=True) if s >= limit}
        records = self._engine.images.records(list(close))
        return [
            m.Match(bank=bank.name, key=records[i].key, kind="similar", score=cosine(score), limit=limit)
            for i, score in close.items()
            if i in records
        ]

    def _bank_hashes(self, bank: Collection) -> tuple[list[str], NDArray[np.uint8]]:
        """The bank's hashes, read again when its change_seq has moved."""
        with self._lock:
            known = self._hashes.get(bank.collection_id)
            if known is None or known[0] != bank.change_seq:
                known = (bank.change_seq, *self._engine.images.perceptual_hashes(bank.collection_id))
                self._hashes[bank.collection_id] = known
            return known[1], known[2]
