"""Bytes to pictures, safely, and pictures to what a tower sees."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from textmm.config import ImageConfig

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What we decode; an animation counts as its first frame, an MPO (of phones) is a JPEG."""
MAX_PIXELS = 64_000_000
LONGEST_SHAPE = 20
"""Of a picture's sides, up to which it is resized whole before its centre is cropped."""
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    EOFError,
    struct.error,
)
"""What Pillow raises over a broken file: found by changing bytes of good ones (test_transforms.py)."""

# Pillow's remarks on odd metadata and on sizes, for which callers have a limit of their own. Once and for all, as
# warnings.catch_warnings may leave another thread's filters behind.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageUnreadable(ValueError):
    """Bytes that are no picture we can read; the message says why."""


class ImageTooLarge(ValueError):
    """More pixels than allowed; the message names limit and value."""


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright RGB picture from the bytes of a file.

    The size is checked before any pixel is decoded. EXIF orientation is applied; CMYK, 16 bit and palettes
    become RGB; transparency is laid on white. Raises ImageUnreadable (not a picture, truncated, no pixels) or
    ImageTooLarge.
    """
    image = open_image(data)
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"a picture of {width} x {height} pixels is over the limit of {max_pixels} pixels"
        )
    try:
        image.load()
        return _to_rgb(_upright(image))
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"a picture over every limit: {error}") from error
    except BROKEN as error:
        raise ImageUnreadable(f"not a picture we can read: {_reason(error, image.format)}") from error


def open_image(data: bytes) -> Image.Image:
    """What the header says, no pixel decoded yet. Raises as decode_image does."""
    if not data:
        raise ImageUnreadable("not a picture we can read: it is empty")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"a picture over every limit: {error}") from error
    except BROKEN as error:
        raise ImageUnreadable(f"not a picture we can read: none of {', '.join(FORMATS)}") from error


def media_type(data: bytes) -> str:
    """`image/jpeg` … of the bytes of a picture; application/octet-stream when they are none."""
    try:
        return Image.MIME.get(open_image(data).format or "", "application/octet-stream")
    except (ImageUnreadable, ImageTooLarge):
        return "application/octet-stream"


def fit(image: Image.Image, config: ImageConfig) -> Image.Image:
    """The RGB square of side image_size that a tower sees; the picture itself when it has that size."""
    side = config.image_size
    if image.size == (side, side):
        return image
    if config.exact_resize:
        return _fit_exactly(image, config)
    if config.resize_mode == "squash":
        # reducing_gap lets Pillow shrink by a whole factor first: several times faster on large photos
        return image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)


def _fit_exactly(image: Image.Image, config: ImageConfig) -> Image.Image:
    """As torchvision's Resize and CenterCrop round, from which open_clip makes its transforms."""
    side, (width, height) = config.image_size, image.size
    how = Image.Resampling.BILINEAR if config.interpolation == "bilinear" else Image.Resampling.BICUBIC
    if config.resize_mode == "squash":
        return image.resize((side, side), how)
    short = min(width, height)
    if (
        max(width, height) > LONGEST_SHAPE * short
    ):  # whole, a strip of few pixels would become one of billions
        return ImageOps.fit(image, (side, side), how)
    width, height = side * width // short, side * height // short
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.resize((width, height), how).crop((left, top, left + side, top + side))


def to_tensor(images: Sequence[Image.Image], config: ImageConfig) -> Tensor:
    """Fitted pictures -> normalised float32 [n, 3, image_size, image_size], channels last in memory."""
    pixels: NDArray[np.uint8] = np.stack([np.asarray(fit(image, config)) for image in images])
    x = torch.from_numpy(pixels).float()
    mean, std = (torch.tensor(of).repeat(x.shape[2]) for of in (config.mean, config.std))
    x.flatten(2).mul_(1 / (255 * std)).sub_(mean / std)  # by rows: pixel by pixel takes three times as long
    return x.permute(0, 3, 1, 2)


def augment(image: Image.Image, config: ImageConfig, rng: np.random.Generator) -> Image.Image:
    """A random crop (60-100 % of the area, sides within 3:4), mirrored half the time. Colours stay what they
    are.
    """
    width, height = image.size
    area, ratio = rng.uniform(0.6, 1.0), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    w = min(round(width * np.sqrt(area * ratio)), width)
    h = min(round(height * np.sqrt(area / ratio)), height)
    left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    side = config.image_size
    out = image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
    return ImageOps.mirror(out) if rng.random() < 0.5 else out


def thumbnail_jpeg(image: Image.Image, side: int) -> bytes:
    """JPEG bytes of the picture shrunk to fit a square of `side` pixels."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says; broken EXIF says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except BROKEN:
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _scaled_grey(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _scaled_grey(image: Image.Image) -> Image.Image:
    """16-bit (or wider) grey to 8 bits; Pillow's own convert would clip at 255."""
    pixels = np.asarray(image, dtype=np.float64)
    top = 65535.0 if pixels.max(initial=0) > 255 else 255.0
    return Image.fromarray((pixels.clip(0, top) * (255.0 / top)).round().astype(np.uint8))


_SAID: dict[str, Callable[[str], str]] = {
    "truncated": lambda kind: f"truncated {kind}",
    "broken data": lambda kind: f"broken {kind} data",
}


def _reason(error: BaseException, kind: str | None) -> str:
    said = str(error).lower()
    for word, phrase in _SAID.items():
        if word in said:
            return phrase(kind or "file")
    return f"broken {kind or 'file'} ({type(error).__name__})"
