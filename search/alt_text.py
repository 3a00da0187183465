"""Alt text for the pictures of a source: what a reader hears who does not see them, as CSV or as <img> lines."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from urllib.parse import quote

from textmm.encoder import Encoder
from textmm.sources import Item, read_bytes
from textmm.transforms import ImageTooLarge, ImageUnreadable, decode_image

BATCH = 32
COLUMNS = ("key", "alt", "confidence")


@dataclass(frozen=True)
class AltText:
    key: str
    alt: str
    confidence: float
    """Cosine of the text with its picture."""


@dataclass(frozen=True)
class Unreadable:
    key: str
    reason: str


def alt_texts(
    items: Iterable[Item], encoder: Encoder, *, style: str, max_pixels: int
) -> Iterator[AltText | Unreadable]:
    """One of the two for each item, in order within a batch: first what cannot be read, then the texts. Raises
    ValueError when the model has no such style."""
    waiting = iter(items)
    while batch := list(islice(waiting, BATCH)):
        keys, pictures = [], []
        for item in batch:
            try:
                if item.problem is not None:
                    raise OSError(item.problem)
                picture = decode_image(read_bytes(item.locator), max_pixels=max_pixels)
            except (ImageUnreadable, ImageTooLarge, OSError) as error:
                yield Unreadable(item.key, str(error))
                continue
            keys.append(item.key)
            pictures.append(encoder.fit(picture))
        for key, caption in zip(keys, encoder.caption_images(pictures, style=style), strict=True):
            yield AltText(key, caption.text, caption.score)


def csv_header() -> str:
    return ",".join(COLUMNS) + "\n"


def csv_line(text: AltText) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([text.key, text.alt, f"{text.confidence:.4f}"])
    return out.getvalue()


def img_line(text: AltText, *, address: bool = False) -> str:
    """The key is a relative path, which becomes an address, unless it is one."""
    src = text.key if address else quote(text.key)
    return f'<img src="{html.escape(src)}" alt="{html.escape(text.alt)}">\n'
