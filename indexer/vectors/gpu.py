"""Segments on CUDA devices: exact search over rows that are held there, and inverted lists that are built there.

A device is used by one thread, which a queue feeds: FAISS's GPU code is not safe in two. Rows are half floats, as in
their files, and spread over all devices. Which of the ways of searching is the quickest the planner decides, by what
was measured here. FAISS's kernel (Johnson, Douze & Jégou 2017, "Billion-scale similarity search with GPUs") finds the
hits where it passes a probe; torch finds them on any device, and among the rows that pass a filter.
"""

# n queries, m rows, d embed_dim

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import faiss
import numpy as np
import torch
from torch import Tensor

from indexer.columns import Mask
from indexer.vectors.segments import (
    DeviceFailed,
    Halves,
    Positions,
    Segment,
    Vectors,
    add_rows,
    compared_again,
    untrained_lists,
)

logger = logging.getLogger(__name__)

Finder = Literal["faiss", "torch"]
QUERIES_AT_A_TIME, ROWS_AT_A_TIME = 256, 262_144
"""Of torch's search, which makes a matrix of that size of cosines."""
MOST_HITS = 2048
"""That FAISS's kernel selects."""
FREE_SHARE = 0.8
"""Of a device's free memory that rows may take; searching needs some too."""
AGAIN_S = 60.0
"""After so many seconds a device that failed is asked again."""


PROBE_S = 120
"""torch and CUDA take some seconds to start."""


class Device:
    """One device and the one thread that uses it."""

    def __init__(self, name: str, finder: Finder = "torch") -> None:
        """`name`: torch's (cuda:0). `finder`: what selects hits among all rows."""
        self.name = name
        self.finder = finder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        return self._thread.submit(work, *arguments)

    def close(self) -> None:
        self._thread.shutdown()

    @cached_property
    def resources(self) -> Any:
        """FAISS's, for use in the thread: its kernels run in torch's order of things (the default stream)."""
        resources = faiss.StandardGpuResources()
        resources.setDefaultNullStreamAllDevices()
        return resources

    @property
    def number(self) -> int:
        return torch.device(self.name).index or 0

    def has_room_for(self, count: int) -> bool:
        """Whether so many bytes of rows may be held."""
        if not self.name.startswith("cuda"):
            return True
        free, _ = torch.cuda.mem_get_info(self.name)
        return count <= FREE_SHARE * free


class _Shard:
    """Consecutive rows of a segment on one device. Its methods run in the device's thread."""

    def __init__(self, device: Device, halves: Halves, first: int) -> None:
        self._device = device
        self._rows = torch.from_numpy(halves).to(device.name, copy=True)  # [m, d] half
        self.first, self.count = first, len(halves)

    def search(self, vectors: Vectors, k: int, mask: Mask | None) -> tuple[Vectors, Positions]:
        """(cosines [n, k'], positions in the segment [n, k']), best first; -inf for what does not pass."""
        queries = torch.from_numpy(vectors).to(self._device.name)
        passes = None if mask is None else torch.from_numpy(mask).to(self._device.name)
        k = min(k, self.count)
        by_faiss = self._device.finder == "faiss" and passes is None and compared_again(k) <= MOST_HITS
        found = []
        for some in torch.split(queries, QUERIES_AT_A_TIME):
            found.append(self._by_faiss(some, k) if by_faiss else self._by_torch(some, k, passes))
        scores = torch.cat([scores for scores, _ in found]).cpu().numpy()
        return scores, torch.cat([at for _, at in found]).cpu().numpy() + self.first

    def _by_torch(self, queries: Tensor, k: int, passes: Tensor | None) -> tuple[Tensor, Tensor]:
        """float32 throughout, a part of the rows after the other."""
        scores = torch.empty(len(queries), 0, device=queries.device)
        at = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        for start in range(0, self.count, ROWS_AT_A_TIME):
            rows = self._rows[start : start + ROWS_AT_A_TIME]
            cosines = queries @ rows.float().T  # [n, m']
            if passes is not None:
                cosines.masked_fill_(~passes[start : start + ROWS_AT_A_TIME], -torch.inf)
            best, where = cosines.topk(min(k, len(rows)), dim=1)
            scores, at = torch.cat([scores, best], 1), torch.cat([at, where + start], 1)
            scores, order = scores.topk(min(k, scores.shape[1]), dim=1)
            at = at.gather(1, order)
        return scores, at

    def _by_faiss(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Hits by half-precision queries, some more than k, compared again in float32."""
        fetch = min(compared_again(k), self.count)
        halves = queries.half().contiguous()
        scores = torch.empty(len(queries), fetch, device=self._rows.device)
        at = torch.empty(len(queries), fetch, dtype=torch.int64, device=self._rows.device)
        faiss.bfKnn(self._device.resources, _parameters(halves, self._rows, scores, at, self._device.number))
        cosines = torch.einsum("nd,nfd->nf", queries, self._rows[at].float())
        best, order = cosines.topk(k, dim=1)
        return best, at.gather(1, order)


def _parameters(queries: Tensor, rows: Tensor, scores: Tensor, at: Tensor, device: int) -> Any:
    """Of FAISS's exact search of half floats in tensors on a device."""
    parameters: Any = faiss.GpuDistanceParams()
    parameters.metric = faiss.METRIC_INNER_PRODUCT
    parameters.k, parameters.dims, parameters.device = at.shape[1], rows.shape[1], device
    parameters.numVectors, parameters.numQueries = len(rows), len(queries)
    parameters.vectorType = parameters.queryType = faiss.DistanceDataType_F16
    parameters.outIndicesType = faiss.IndicesDataType_I64
    pointer: Any = faiss.cast_integer_to_void_ptr
    parameters.vectors, parameters.queries = pointer(rows.data_ptr()), pointer(queries.data_ptr())
    parameters.outIndices = pointer(at.data_ptr())
    parameters.outDistances = faiss.cast_integer_to_float_ptr(scores.data_ptr())
    return parameters


@dataclass
class DeviceRows:
    """`segments.Held`: rows spread over devices."""

    shards: Sequence[tuple[Device, _Shard]]
    ms: float = 0.0
    filtered_ms: float = 0.0
    _failed_at: float | None = field(default=None, repr=False)

    @property
    def works(self) -> bool:
        return self._failed_at is None or time.monotonic() - self._failed_at > AGAIN_S

    def search(self, vectors: Vectors, k: int, mask: Mask | None = None) -> tuple[Vectors, Positions]:
        waiting = []
        for device, shard in self.shards:
            some = None if mask is None else mask[shard.first : shard.first + shard.count]
            waiting.append(device.submit(shard.search, vectors, k, some))
        try:
            found = [one.result() for one in waiting]
        except RuntimeError as error:  # CUDA's and FAISS's errors, memory that ran out among them
            self._failed_at = time.monotonic()
            raise DeviceFailed(str(error).partition("\n")[0]) from error
        self._failed_at = None
        scores = np.concatenate([scores for scores, _ in found], axis=1)
        at = np.concatenate([at for _, at in found], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(at, order, 1)

    def measure(self, count: int, vectors: Vectors) -> None:
        """How long one query takes, with and without a filter: the quicker of some."""
        mask = np.arange(count) % 2 == 0
        self.ms = min(_ms(self.search, query[None], 10) for query in vectors)
        self.filtered_ms = min(_ms(self.search, query[None], 10, mask) for query in vectors)


def _ms(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return (time.perf_counter() - started) * 1e3


class Devices:
    """Those of this machine that can search."""

    def __init__(self, devices: Sequence[Device], *, least_rows: int = 0) -> None:
        """`least_rows`: smaller segments are not worth the way to a device."""
        self.devices = tuple(devices)
        self._least_rows = least_rows

    def hold(self, segment: Segment) -> Segment:
        """With its rows on the devices too, where they are worth it and fit."""
        count = segment.count
        if count <= max(self._least_rows, len(self.devices)) or segment.held is not None:
            return segment
        parts = [
            (one, part) for one, *part in zip(self.devices, *_cuts(count, len(self.devices)), strict=True)
        ]
        if not all(one.has_room_for((end - first) * segment.dim * 2) for one, (first, end) in parts):
            logger.warning("%d rows do not fit on %s and are searched in main memory", count, self)
            return segment
        try:
            shards = [
                (one, one.submit(_Shard, one, segment.halves[first:end], first).result())
                for one, (first, end) in parts
            ]
            held = DeviceRows(shards)
            held.measure(count, segment.halves[:: max(1, count // 5)][:5].astype(np.float32))
        except RuntimeError as error:
            logger.warning("%d rows are not held on %s: %s", count, self, error)
            return segment
        return replace(segment, held=held)

    def lists_over(self, segment: Segment) -> Any:
        """Inverted lists trained and filled on the first device, for main memory; None: that one does not.

        FAISS builds no graph on a device.
        """
        device = self.devices[0]
        if device.finder != "faiss":
            return None
        try:
            return device.submit(_lists_on, device, segment).result()
        except RuntimeError as error:
            logger.warning("lists are not built on %s: %s", device.name, error)
            return None

    def close(self) -> None:
        for device in self.devices:
            device.close()

    def __str__(self) -> str:
        return ", ".join(device.name for device in self.devices)


def _cuts(count: int, parts: int) -> tuple[list[int], list[int]]:
    """Where each of so many like parts begins and ends."""
    at = [i * count // parts for i in range(parts + 1)]
    return at[:-1], at[1:]


def _lists_on(device: Device, segment: Segment) -> Any:
    index, sample = untrained_lists(segment)
    flat = faiss.IndexFlatIP(segment.dim)
    index.clustering_index = faiss.index_cpu_to_gpu(device.resources, device.number, flat)
    index.train(sample)
    index.clustering_index = None
    if not isinstance(
        index, faiss.IndexIVFScalarQuantizer
    ):  # codes of four bits are scanned on processors only
        add_rows(index, segment.halves)
        return index
    there = faiss.index_cpu_to_gpu(device.resources, device.number, index)
    add_rows(there, segment.halves)
    return faiss.index_gpu_to_cpu(there)


def probed(name: str) -> Device | None:
    """The device with the finder that finds some rows there, FAISS's if it does; None: neither does."""
    if name.startswith("cuda") and _faiss_finds_in_a_child(name):
        return Device(name, "faiss")
    device = Device(name)
    try:
        if _finds(device):
            return device
        logger.warning("torch finds other rows on %s than there are", name)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        logger.warning("torch does not search on %s: %s", name, str(error).partition("\n")[0])
    device.close()
    return None


def _finds(device: Device) -> bool:
    """Whether the nearest of some rows are found there."""
    rows = np.random.default_rng(0).normal(size=(1000, 64)).astype(np.float16)
    queries = np.ascontiguousarray(rows[:20].astype(np.float32))
    truth = np.argsort(-(queries @ rows.astype(np.float32).T), axis=1)[:, :5]
    shard = device.submit(_Shard, device, rows, 0).result()
    return np.array_equal(device.submit(shard.search, queries, 5, None).result()[1], truth)


def _faiss_finds_in_a_child(name: str) -> bool:
    """Tried in a process of its own: where a device does not suit FAISS (an old driver), it ends the process."""
    command = [sys.executable, "-m", "indexer.vectors.gpu", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=False)
    except subprocess.TimeoutExpired:
        logger.warning("FAISS did not answer on %s within %d s", name, PROBE_S)
        return False
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it finds other rows than there are"]
        logger.warning("FAISS does not search on %s: %s", name, said[-1])
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(0 if _finds(Device(sys.argv[1], "faiss")) else 1)
