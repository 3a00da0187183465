"""Two names for a picture's content: its bytes (sha256) and its looks (perceptual_hash, Meta's PDQ).

PDQ comes from github.com/facebook/ThreatExchange: pdq/cpp/hashing/pdqhashing.cpp, pdq/cpp/downscaling. A
picture is blurred and thinned out to 64 x 64 grey values; 16 x 16 low frequencies of their cosine transform
are kept; a bit says whether one of these is above their median. Hashes are those of the `pdqhash` package,
hence of HMA, bit for bit: sums are taken in float32 and in the reference's order, as another order flips bits
near the median.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MIN_QUALITY = 50
"""Callers ignore hashes of lower quality: flat pictures all look alike. ThreatExchange's value."""

NEAR_COPY_LIMIT = 31
"""Largest Hamming distance of two near copies, of 256 bits; ThreatExchange's value."""

HASH_BYTES = 32
"""Length of a perceptual hash."""

LARGEST_HASHED_SIDE = 1024
"""Pixels; a longer side is shrunk to this before hashing, which bounds the time of huge pictures."""

_SMALLEST_HASHABLE_SIDE = 5  # the reference answers all zeros, quality 0 below it
_GRID = 64  # side of the thinned-out picture
_FREQUENCIES = 16  # kept per axis
_QUALITY_SCALE = 90  # the reference's, tuned by hand there


def sha256(data: bytes) -> str:
    """64 lower-case hex digits; equal for equal bytes only."""
    return hashlib.sha256(data).hexdigest()


def perceptual_hash(image: Image.Image) -> tuple[bytes, int]:
    """PDQ hash (32 bytes) and quality (0..100, higher is richer in detail; see MIN_QUALITY).

    The bytes hold the 16 x 16 frequencies in descending order, highest bit first: the top bit of byte 0 is
    row 15, column 15, the lowest of byte 31 is row 0, column 0. So `.hex()` is the hex form of ThreatExchange
    and HMA, and `np.unpackbits` gives the vector of `pdqhash.compute`.

    Equal to `pdqhash.compute` of the same RGB pixels while no side exceeds LARGEST_HASHED_SIDE. A longer side
    is first shrunk to that by averaging, each axis by itself, since PDQ ignores the aspect ratio anyway
    (Meta's own command line shrinks to 512 x 512, HMA does not shrink). Over 24 drawn pictures this moved 5
    bits on average and 12 at most, of the NEAR_COPY_LIMIT of 31; shrinking to 512 would have moved 10 and 20.

    Other modes are converted to RGB and transparency is dropped; the caller turns pictures upright by their
    EXIF data. A picture with a side below 5 pixels gives 32 zero bytes and quality 0.
    """
    luma = _luma(_shrunk(image))
    if min(luma.shape) < _SMALLEST_HASHABLE_SIDE:
        return bytes(HASH_BYTES), 0
    grid = _grid(luma)
    return _bits(_low_frequencies(grid)), _quality(grid)


def hamming_distances(hash: bytes, hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Differing bits, 0..256, lower is closer, between one hash and each row of [n, 32]: [n], in row order.

    Raises ValueError if `hash` is not 32 bytes long or `hashes` not uint8 [n, 32].
    """
    if len(hash) != HASH_BYTES:
        raise ValueError(f"a perceptual hash has {HASH_BYTES} bytes, got {len(hash)}")
    if hashes.dtype != np.uint8 or hashes.ndim != 2 or hashes.shape[1] != HASH_BYTES:
        raise ValueError(f"hashes must be uint8 [n, {HASH_BYTES}], got {hashes.dtype} {list(hashes.shape)}")
    # [n, 32] bytes -> [n, 4] words: an eighth of the work
    words = np.ascontiguousarray(hashes).view(np.uint64)
    differing = np.bitwise_count(words ^ np.frombuffer(hash, np.uint64))
    distances: NDArray[np.int64] = differing.sum(axis=1, dtype=np.int64)
    return distances


def _shrunk(image: Image.Image) -> Image.Image:
    image = image if image.mode == "RGB" else image.convert("RGB")
    if max(image.size) <= LARGEST_HASHED_SIDE:
        return image
    width, height = (min(side, LARGEST_HASHED_SIDE) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def _luma(image: Image.Image) -> NDArray[np.float32]:
    """Grey values 0..255, [H, W]; summed in float64 as pdqhash's binding does (the C++ tool uses float32)."""
    pixels = np.asarray(image)
    grey = pixels[:, :, 0] * 0.299 + pixels[:, :, 1] * 0.587 + pixels[:, :, 2] * 0.114
    return grey.astype(np.float32)


def _grid(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur (two box filters an axis), then take the middle of each of 64 x 64 cells: [H, W] -> [64, 64]."""
    height, width = luma.shape
    if (height, width) == (_GRID, _GRID):
        return luma
    rows, columns = _cell_middles(height), _cell_middles(width)
    across, down = _box_window(width), _box_window(height)
    blurred = _box_filtered(luma, across)
    blurred = _box_filtered(blurred.T, down)  # [W, H]
    blurred = _box_filtered(blurred.T, across)  # [H, W]
    # Each column is filtered by itself, so the last pass needs only the 64 that are kept.
    return _box_filtered(blurred[:, columns].T, down)[:, rows].T  # [64, 64]


def _cell_middles(length: int) -> NDArray[np.intp]:
    return ((np.arange(_GRID) + 0.5) * length / _GRID).astype(np.intp)


def _box_window(length: int) -> int:
    """Half a cell, rounded up, because the filter runs twice."""
    return math.ceil(length / (2 * _GRID))


def _box_filtered(values: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """Mean of the `window` values around each along the last axis, of fewer at the ends: [m, n] -> [m, n].

    An even window reaches one further to the right. One running float32 sum adds the value coming in, then
    subtracts the one going out, as the reference's does: its rounding errors are part of the hash.
    """
    m, n = values.shape
    reach = window // 2  # values right of the middle one
    sliding = n - window
    steps = np.empty((m, n + sliding + reach), np.float32)
    steps[:, :window] = values[:, :window]
    steps[:, window : window + 2 * sliding : 2] = values[:, window:]
    np.negative(values[:, :sliding], out=steps[:, window + 1 : window + 2 * sliding : 2])
    np.negative(values[:, sliding : sliding + reach], out=steps[:, window + 2 * sliding :])
    sums = np.cumsum(steps, axis=1, dtype=np.float32)

    means = np.empty((m, n), np.float32)
    growing = window - reach
    counts = np.arange(reach + 1, window + 1, dtype=np.float32)
    np.divide(sums[:, reach:window], counts, out=means[:, :growing])
    full = sums[:, window + 1 : window + 2 * sliding : 2]
    np.divide(full, np.float32(window), out=means[:, growing : growing + sliding])
    counts = np.arange(window - 1, window - 1 - reach, -1, dtype=np.float32)
    np.divide(sums[:, window + 2 * sliding :], counts, out=means[:, growing + sliding :])
    return means


def _quality(grid: NDArray[np.float32]) -> int:
    """Steps between neighbours in whole percent of the grey range, summed and scaled to 0..100."""
    percent = [np.trunc(np.diff(grid, axis=axis) * np.float32(100) / np.float32(255)) for axis in (0, 1)]
    total = int(sum(np.abs(steps).sum(dtype=np.int64) for steps in percent))
    return min(100, total // _QUALITY_SCALE)


def _low_frequencies(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine transform, frequencies 1..16 of both axes, so without the mean: [64, 64] -> [16, 16]."""
    basis = _cosines()
    half = np.zeros((_FREQUENCIES, _GRID), np.float32)
    for k in range(_GRID):  # not a matrix product: BLAS adds in another order
        half += basis[:, k, None] * grid[k]
    coefficients = np.zeros((_FREQUENCIES, _FREQUENCIES), np.float32)
    for k in range(_GRID):
        coefficients += half[:, k, None] * basis[:, k]
    return coefficients


def _cosines() -> NDArray[np.float32]:
    """[16, 64]; scaled by a float32 in float64 and kept as float32, as the reference does."""
    frequencies = np.arange(1, _FREQUENCIES + 1)[:, None]
    angles = math.pi / 2 / _GRID * frequencies * (2 * np.arange(_GRID) + 1)
    scale = float(np.float32(math.sqrt(2 / _GRID)))
    cosines: NDArray[np.float32] = (scale * np.cos(angles)).astype(np.float32)
    return cosines


def _bits(coefficients: NDArray[np.float32]) -> bytes:
    flat = coefficients.ravel()
    lower_middle = flat.size // 2 - 1
    median = np.partition(flat, lower_middle)[lower_middle]  # of an even number the lower one, not the mean
    return np.packbits((flat > median)[::-1]).tobytes()
