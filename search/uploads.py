"""Pictures that requests carry: base64, data URI or bytes; bounded before they are decoded."""

from __future__ import annotations

import base64
import binascii
import re

from PIL import Image

from search.errors import TooLarge
from search.messages import BadRequest
from textmm.transforms import decode_image

DATA_URI = re.compile(r"data:[\w.+/-]*(;[\w.+=-]+)*;base64,", re.ASCII)


class Uploads:
    def __init__(self, *, max_bytes: int, max_pixels: int) -> None:
        self._max_bytes, self.max_pixels = max_bytes, max_pixels

    def bytes_of(self, image: str | bytes, param: str = "image") -> bytes:
        """Raises BadRequest (not base64, a URL), TooLarge."""
        if isinstance(image, bytes):
            self._check(len(image), param)
            return image
        if image[:8].lower().startswith(("http://", "https://")):
            raise BadRequest(f"{param}: pictures from URLs are not fetched; send base64 or a data URI", param)
        match = DATA_URI.match(image)
        body = image[match.end() :] if match else image
        if image.startswith("data:") and not match:
            raise BadRequest(f"{param} is a data URI without ;base64,", param)
        body = "".join(body.split())
        self._check(len(body) * 3 // 4 - body[-2:].count("="), param)
        try:
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRequest(f"{param} is neither base64 nor a data URI: {error}", param) from error

    def decode(self, data: bytes) -> Image.Image:
        """Raises ImageUnreadable, ImageTooLarge."""
        return decode_image(data, max_pixels=self.max_pixels)

    def _check(self, size: int, param: str) -> None:
        if size > self._max_bytes:
            raise TooLarge(f"{param} has {size} bytes, the limit is {self._max_bytes}", param)


def is_data_uri(text: str) -> bool:
    """Whether a text is a picture as a data URI."""
    return text.startswith("data:image/") and DATA_URI.match(text) is not None
