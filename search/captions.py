"""Captions: of any picture, and of hits, where they are remembered."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
from PIL import Image

from indexer.database import Database
from indexer.store.captions import Captions
from indexer.store.images import ImageRecord
from search.batching import Batching
from search.contents import Contents
from search.messages import BadRequest, Caption, Decoding
from textmm.encoder import USUAL, CaptionDecoding, Encoder
from textmm.transforms import ImageTooLarge, ImageUnreadable, decode_image
from textmm.wording import style_in

logger = logging.getLogger(__name__)


class Captioner:
    def __init__(self, encoder: Encoder, batching: Batching, database: Database, contents: Contents) -> None:
        self._encoder, self._batching = encoder, batching
        self._captions = Captions(database)
        self._contents = contents

    def style(self, asked: str | None, usual: str | None) -> str:
        """The style that is asked for; else the collection's usual one if this model has it; else photo."""
        return asked or (usual if usual in self._encoder.styles else None) or "photo"

    def style_in(self, style: str | None, language: str) -> str:
        """The style in that language. BadRequest unless the model has it."""
        name = style_in(style, language)
        self.check_style(name, "style" if language == "en" else "language")
        return name

    def check_style(self, style: str, param: str) -> None:
        """BadRequest unless the model has this style."""
        if style not in self._encoder.styles:
            there = ", ".join(self._encoder.styles) or "none: this model does not caption"
            raise BadRequest(f"{param} {style!r} is none of this model's styles: {there}", param)

    def caption(self, image: Image.Image, style: str, asked: Decoding | None = None) -> Caption:
        """A fresh caption of a decoded picture. Raises BadRequest, Overloaded."""
        return self.captions([self._encoder.fit(image)], style, asked)[0]

    def captions(
        self, images: Sequence[Image.Image], style: str, asked: Decoding | None = None
    ) -> list[Caption]:
        """Fresh captions of fitted pictures, in order. Raises BadRequest for a decoding that cannot be, Overloaded."""
        how = USUAL if asked is None else CaptionDecoding(**msgspec.structs.asdict(asked))
        try:
            self._encoder.decoding(style, how)
        except ValueError as error:
            raise BadRequest(f"decoding: {error}", "decoding") from error
        made = self._batching.caption_images(images, style=style, how=how)
        return [Caption(one.text, round(one.score, 6)) for one in made]

    def caption_hits(self, records: Sequence[ImageRecord], style: str) -> list[Caption | None]:
        """Remembered captions; the rest decoded in one batch and remembered. None: there is no picture, or its
        bytes cannot be read now.
        """
        model_id = self._encoder.model_id
        known = self._captions.find([r.image_id for r in records], model_id=model_id, style=style)
        fresh = {r.image_id: r for r in records if r.image_id not in known and r.sha256 is not None}
        pictures = {i: picture for i, r in fresh.items() if (picture := self._picture(r)) is not None}
        made = self._batching.caption_images(list(pictures.values()), style=style)
        new = {i: (c.text, c.score) for i, c in zip(pictures, made, strict=True)}
        if new:
            digests = {i: digest for i in new if (digest := fresh[i].sha256) is not None}
            self._captions.remember(new, digests, model_id=model_id, style=style)
        all_known = known | new
        return [
            Caption(found[0], round(found[1], 6)) if (found := all_known.get(r.image_id)) else None
            for r in records
        ]

    def _picture(self, record: ImageRecord) -> Image.Image | None:
        try:
            return self._encoder.fit(decode_image(self._contents.read(record)))
        except (OSError, ImageUnreadable, ImageTooLarge) as error:
            logger.warning("no caption for image %s: %s", record.key, error)
            return None
