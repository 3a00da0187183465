"""Arrays on disk that appear under their name when they are whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


@contextmanager
def new_array(path: Path, shape: Sequence[int], dtype: DTypeLike) -> Iterator[NDArray[Any]]:
    """An NPY file to be filled, mapped. Where filling ends early there is none of that name."""
    partial = path.with_suffix(".partial")
    array = np.lib.format.open_memmap(partial, "w+", dtype=np.dtype(dtype), shape=tuple(shape))
    yield array
    array.flush()
    partial.replace(path)
