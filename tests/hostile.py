"""One table of pictures that try a decoder: used by the files, the API and the command line."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from tests.drawn import draw

Outcome = Literal["readable", "unreadable", "too_large"]


class Hostile(NamedTuple):
    name: str
    data: bytes
    outcome: Outcome


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    out = Image.Exif()
    out[0x0112] = orientation
    return out


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def with_broken_exif(jpeg: bytes) -> bytes:
    """An APP1 segment whose directory points far outside of it."""
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 3, 0x0112, 3, 2**31, 2**31) + b"\xff" * 9
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def two_frames() -> bytes:
    """An animation that is red first and blue then."""
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "blue")]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=40, loop=0)


def palette_with_transparency() -> Image.Image:
    """Red, with one entry of the palette clear."""
    image = Image.new("P", (20, 10), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, 10, 10))
    return image


PICTURE = draw("circle", "red")
JPEG, PNG = saved(PICTURE, "JPEG", quality=95), saved(PICTURE, "PNG")
GREY_16 = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)

HOSTILE = [
    Hostile("truncated JPEG", JPEG[: len(JPEG) // 2], "unreadable"),
    Hostile("JPEG of its first bytes", JPEG[:20], "unreadable"),
    Hostile("truncated PNG", PNG[: len(PNG) // 2], "unreadable"),
    Hostile("PNG without its last bytes of pixels", PNG[:-30], "unreadable"),
    Hostile("empty file", b"", "unreadable"),
    Hostile("text", b"these are not the pixels you are looking for\n" * 40, "unreadable"),
    Hostile("zeros", bytes(5000), "unreadable"),
    Hostile("HTML", b"<!doctype html><html><body><img src=x></body></html>", "unreadable"),
    Hostile("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "unreadable"),
    Hostile("PDF", b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n", "unreadable"),
    Hostile("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n", "unreadable"),
    Hostile("decompression bomb", claiming(60_000, 60_000), "too_large"),
    Hostile("a little over the limit", claiming(9000, 8000), "too_large"),
    Hostile("a size that its pixels do not fill", claiming(300, 200), "unreadable"),
    Hostile("one pixel", saved(Image.new("RGB", (1, 1), "red"), "PNG"), "readable"),
    Hostile("one pixel high", saved(Image.new("RGB", (900, 1), "red"), "PNG"), "readable"),
    Hostile("CMYK JPEG", saved(PICTURE.convert("CMYK"), "JPEG", quality=95), "readable"),
    Hostile("16-bit PNG", saved(Image.fromarray(GREY_16), "PNG"), "readable"),
    Hostile(
        "palette with transparency", saved(palette_with_transparency(), "PNG", transparency=1), "readable"
    ),
    Hostile("grey with alpha", saved(PICTURE.convert("LA"), "PNG"), "readable"),
    Hostile("RGB with alpha", saved(PICTURE.convert("RGBA"), "PNG"), "readable"),
    Hostile("one bit", saved(PICTURE.convert("1"), "PNG"), "readable"),
    Hostile("turned by EXIF", saved(PICTURE, "JPEG", exif=exif(6)), "readable"),
    Hostile("JPEG with broken EXIF", with_broken_exif(JPEG), "readable"),
    Hostile("JPEG with text after its end", JPEG + b"trailing words", "readable"),
    Hostile("animated GIF", two_frames(), "readable"),
    Hostile("WebP", saved(PICTURE, "WEBP", quality=95), "readable"),
    Hostile("BMP", saved(PICTURE, "BMP"), "readable"),
    Hostile("TIFF", saved(PICTURE, "TIFF"), "readable"),
    Hostile("progressive JPEG", saved(PICTURE, "JPEG", progressive=True), "readable"),
    Hostile(
        "MPO, two pictures of a phone",
        saved(PICTURE, "MPO", save_all=True, append_images=[PICTURE]),
        "readable",
    ),
]
NAMES = [one.name for one in HOSTILE]
