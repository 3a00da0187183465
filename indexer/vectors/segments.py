"""Segments: rows that no longer change, exact as half floats, with an approximate index over them where it pays.

Their files are memory-mapped: processes share one copy, and what is not asked for is not in memory.
"""

# n queries, m rows, d embed_dim; a position is a row's place in its segment, 0..m-1

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.columns import Mask
from indexer.ids import Ids, places
from indexer.vectors.codes import BITS, NUMBERS, packed
from indexer.vectors.codes import Positions as Positions
from indexer.vectors.codes import Vectors as Vectors
from indexer.vectors.tuning import Tuning

Halves = NDArray[np.float16]
Kind = Literal["exact", "codes", "graph", "lists"]
IDS, ROWS, CODES, APPROXIMATE = "ids.npy", "rows.faiss", "codes.faiss", "approximate.faiss"
"""Endings of a segment's files."""
NEIGHBOURS, CONSTRUCTION = 20, 60
"""Of a row in a graph on the upper levels, twice as many on the lowest; and hits kept while its place is sought. Of
100,000 overlapping rows of 256 at recall .98, 32 neighbours were a tenth faster and made the index a seventh larger."""
CODES_IN_LISTS = 1.25
"""Hits in lists of codes that are compared again, times those that all codes need: both together must reach the recall.
"""
LOOKED_AT, NEIGHBOURHOOD = 64, 99
CHUNK = 65_536
"""Rows handed to FAISS at a time, as float32."""


class IndexFileBroken(ValueError):
    """An index file that is not the one that was published; the rows in SQL are all there still."""

    def __init__(self, said: str, wrong: Path | None = None) -> None:
        """`wrong`: the file, when it is there and holds something else; None: it could not be read now."""
        super().__init__(said)
        self.wrong = wrong


class DeviceFailed(RuntimeError):
    """A device did not answer; the rows are in main memory all the same."""


class Held(Protocol):
    """Rows of a segment on devices (`gpu.py`), for exact search there."""

    @property
    def works(self) -> bool:
        """Whether it answered when it was last asked."""

    @property
    def ms(self) -> float:
        """Of one query"""

    @property
    def filtered_ms(self) -> float: ...

    def search(self, vectors: Vectors, k: int, mask: Mask | None = None) -> tuple[Vectors, Positions]:
        """As `Segment.search_exact`, of the rows of the mask [m]. Raises DeviceFailed."""


@dataclass(frozen=True)
class Segment:
    ids: Ids
    """[m] ascending, but for the last rows of an approximate segment: they were held out to measure it, and ascend
    among themselves."""
    exact: faiss.IndexScalarQuantizer
    """All rows as half floats, which is how they are stored in SQL: searching them is exact search."""
    approximate: Any = None
    """A graph (HNSW) over the exact rows, or inverted lists: of codes where the segment has them, else of 8 bits a
    number; None where rows or codes are scanned."""
    codes: faiss.IndexPQ | None = None
    """Of all rows (`codes.py`), in the order of the ids; None where they are few, or codes miss too many."""
    tuning: Tuning | None = None
    """What was measured when the approximate index was built."""
    held: Held | None = None
    """The same rows on devices."""

    @property
    def count(self) -> int:
        return len(self.ids)

    @property
    def dim(self) -> int:
        return int(self.exact.d)

    @property
    def kind(self) -> Kind:
        if self.approximate is None:
            return "exact" if self.codes is None else "codes"
        return "lists" if isinstance(self.approximate, faiss.IndexIVF) else "graph"

    def exactly(self) -> Segment:
        """The same rows without the approximate index."""
        return self if self.kind == "exact" else Segment(self.ids, self.exact, held=self.held)

    @cached_property
    def _runs(self) -> list[tuple[int, Ids]]:
        """(first position, ascending ids) of each run."""
        starts = [0, *(np.flatnonzero(np.diff(self.ids) < 0) + 1).tolist()]
        return [(start, run) for start, run in zip(starts, np.split(self.ids, starts[1:]), strict=True)]

    def positions(self, ids: Ids) -> Positions:
        """Where those of `ids` lie that are here; one place each."""
        return np.concatenate([start + places(run, ids) for start, run in self._runs])

    @cached_property
    def halves(self) -> Halves:
        """[m, d] float16 in the order of the ids; FAISS's own memory, not to be written to."""
        if not self.count:
            return np.empty((0, self.dim), np.float16)
        codes: Any = self.exact.codes
        flat = faiss.rev_swig_ptr(codes.data(), self.count * 2 * self.dim)
        return flat.view(np.float16).reshape(-1, self.dim)

    @cached_property
    def _refined(self) -> tuple[faiss.IndexRefine, Any]:
        """Lists or codes, whose hits are compared again with the exact rows; and they themselves: FAISS keeps no
        hold on them."""
        base = self.approximate
        if base is None:
            assert self.codes is not None
            base = packed(self.codes)
        return faiss.IndexRefine(base, self.exact), base

    def prepare(self) -> None:
        """Make `neighbours` now: of a million rows 20 to 45 ms, which no query should wait for."""
        if self.tuning is not None:
            with faiss_threads(1):
                self.neighbours  # noqa: B018

    @cached_property
    def neighbours(self) -> Positions:
        """[LOOKED_AT, NEIGHBOURHOOD] of some rows, spread over all, those that lie nearest, as the approximate index
        finds them: whether a filter lets through rows here and there or by where they lie."""
        assert self.tuning is not None
        rows = np.linspace(0, self.count - 1, LOOKED_AT).astype(np.int64)
        count = NEIGHBOURHOOD + 1  # the first is the row itself
        near = self.search_approximate(self.halves[rows].astype(np.float32), count, self.tuning.effort(count))
        return near[1][:, 1:]

    def search_exact(
        self, vectors: Vectors, k: int, selector: faiss.IDSelector | None = None
    ) -> tuple[Vectors, Positions]:
        """(cosines [n, k], positions [n, k]), best first; position -1 where there are fewer rows."""
        # One parameters object a call: a shared selector or setting changes under other threads' searches.
        parameters = faiss.SearchParameters(sel=selector) if selector is not None else None  # type: ignore[call-arg]
        found: tuple[Vectors, Positions] = self.exact.search(vectors, k, params=parameters)
        return found

    def search_approximate(
        self,
        vectors: Vectors,
        k: int,
        effort: int,
        selector: faiss.IDSelector | None = None,
        *,
        wider: float = 1.0,
    ) -> tuple[Vectors, Positions]:
        """The same, of the rows that the approximate index finds: cosines are exact, rows may be missed.

        `effort`: hits that a graph keeps on its way (efSearch), lists that are looked through (nprobe), hits by codes
        that are compared again. `selector`: of lists only; a graph would end among rows that do not pass. `wider`:
        times the usual hits in lists of codes that are compared again.
        """
        parameters: Any
        if self.kind == "codes":
            factor = min(max(effort, k), self.count) / k
            parameters = faiss.IndexRefineSearchParameters(k_factor=factor)  # type: ignore[call-arg]
            scanned: tuple[Vectors, Positions] = self._refined[0].search(vectors, k, params=parameters)
            return scanned
        if self.kind == "graph":
            parameters = faiss.SearchParametersHNSW(efSearch=max(effort, k))  # type: ignore[attr-defined]
            found: tuple[Vectors, Positions] = self.approximate.search(vectors, k, params=parameters)
            return found
        base: Any = faiss.SearchParametersIVF(nprobe=effort, sel=selector)  # type: ignore[call-arg]
        factor = min(self._candidates(k, wider), self.count) / k
        parameters = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=base)  # type: ignore[call-arg]
        found = self._refined[0].search(vectors, k, params=parameters)
        return found

    def _candidates(self, k: int, wider: float) -> int:
        """Hits in lists that are compared again exactly, for the best k."""
        if self.codes is None or self.tuning is None:
            return compared_again(k)
        return max(k, round(CODES_IN_LISTS * wider * self.tuning.coded_effort(k)))


def compared_again(k: int) -> int:
    """Of hits by 8 bits or a half float a number, for the best k."""
    return k + max(10, k // 2)


def exact_segment(ids: Ids, rows: Halves | Vectors) -> Segment:
    """A segment of rows [m, d] under their ids (ascending), without an approximate index."""
    halves = np.ascontiguousarray(rows, dtype="<f2")
    index = faiss.IndexScalarQuantizer(
        halves.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.is_trained = True
    if len(halves):
        index.add_sa_codes(halves.view(np.uint8))
    return Segment(ids, index)


def graph_over(segment: Segment) -> Any:
    """A navigable small-world graph (Malkov & Yashunin 2018, FAISS's HNSW), empty. In its file it has no rows of its
    own: read again, it compares with the exact ones."""
    kind = f"HNSW{NEIGHBOURS},SQfp16"
    index: Any = faiss.index_factory(segment.dim, kind, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = CONSTRUCTION
    index.is_trained = True
    return index


def lists_over(segment: Segment) -> Any:
    """Inverted lists (FAISS's IVF), trained and empty."""
    index, sample = untrained_lists(segment)
    index.train(sample)
    return index


def untrained_lists(segment: Segment) -> tuple[Any, Vectors]:
    """As many as the square root of the rows where codes are scanned, which is quick; else four times as many. And the
    rows [n, d] to train them by."""
    coded = segment.codes is not None
    lists = 1 << max(4, round(np.log2((1 if coded else 4) * np.sqrt(segment.count))))
    kind = f"PQ{segment.dim // NUMBERS}x{BITS}fs" if coded else "SQ8"
    index: Any = faiss.index_factory(segment.dim, f"IVF{lists},{kind}", faiss.METRIC_INNER_PRODUCT)
    if coded:
        index.by_residual = False  # one table of distances a query, not one a list
    halves, most = segment.halves, 64 * lists
    if segment.count > most:
        halves = halves[np.sort(np.random.default_rng(0).choice(segment.count, most, replace=False))]
    return index, halves.astype(np.float32)


def add_rows(index: Any, halves: Halves) -> None:
    for start in range(0, len(halves), CHUNK):
        index.add(halves[start : start + CHUNK].astype(np.float32))


# -- files -----------------------------------------------------------------------------------------------


def write_segment(segment: Segment, folder: Path, stem: str) -> dict[str, str]:
    """Write its files, each whole or not at all; ending -> sha256. Raises OSError (a full disk), nothing is left."""
    written: dict[str, str] = {}
    parts = {
        IDS: segment.ids,
        ROWS: segment.exact,
        CODES: segment.codes,
        APPROXIMATE: segment.approximate,
    }
    try:
        for ending, part in parts.items():
            if part is not None:
                written[ending] = _write(part, folder / f"{stem}.{ending}")
    except BaseException:
        for ending in written:
            (folder / f"{stem}.{ending}").unlink(missing_ok=True)
        raise
    return written


def _write(part: Any, path: Path) -> str:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        if isinstance(part, np.ndarray):
            buffer = io.BytesIO()
            np.save(buffer, part)  # to a file it says how many items it wrote, but not why no more
            partial.write_bytes(buffer.getbuffer())
        else:
            try:
                write: Any = faiss.write_index
                write(part, str(partial), faiss.IO_FLAG_SKIP_STORAGE)  # a graph's rows are in their own file
            except RuntimeError as error:  # FAISS's own word for a disk that is full
                raise OSError(errno.ENOSPC, f"No space left on device for {path.name}") from error
        with partial.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def read_segment(
    folder: Path, stem: str, files: Mapping[str, str], tuning: Tuning | None = None, *, verify: bool = True
) -> Segment:
    """Map the files that `write_segment` wrote into memory.

    Raises IndexFileBroken when their bytes are not those (or not there). `verify`: False for files this process has
    just written.
    """
    parts: dict[str, Any] = {}
    for ending, digest in files.items():
        path = folder / f"{stem}.{ending}"
        if verify:
            _check(path, digest)  # before FAISS sees it: a stranger's file is never parsed
        try:
            if ending == IDS:
                parts[ending] = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                parts[ending] = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except OSError as error:
            raise IndexFileBroken(f"{path.name} cannot be read: {error}") from error
        except (RuntimeError, ValueError) as error:
            raise IndexFileBroken(f"{path.name} cannot be read: {error}", path) from error
    approximate = parts.get(APPROXIMATE)
    if isinstance(approximate, faiss.IndexHNSW):
        approximate.own_fields, approximate.storage = False, parts[ROWS]
        parts[ROWS].thisown = True  # SWIG gave it to the graph, which does not free it
    return Segment(np.asarray(parts[IDS]), parts[ROWS], approximate, parts.get(CODES), tuning)


def _check(path: Path, digest: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise IndexFileBroken(f"{path.name} cannot be read: {error.strerror}") from error
    if found != digest:
        raise IndexFileBroken(f"{path.name} has sha256 {found[:12]}…, published was {digest[:12]}…", path)


def delete_segment(folder: Path, stem: str) -> None:
    for ending in (IDS, ROWS, CODES, APPROXIMATE):
        with suppress(FileNotFoundError):
            (folder / f"{stem}.{ending}").unlink()


# -- threads ---------------------------------------------------------------------------------------------

_mine = threading.local()


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """So many threads for FAISS calls of this thread: OpenMP keeps that number a thread, not a process."""
    before = getattr(_mine, "count", None)
    if before != count:
        faiss.omp_set_num_threads(count)
        _mine.count = count
    try:
        yield
    finally:
        if before is not None and before != count:
            faiss.omp_set_num_threads(before)
            _mine.count = before
