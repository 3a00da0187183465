"""Errors that somebody catches.

IndexerError
├── NotFound        no such collection or image
│   └── NoPicture   the image came as a vector
├── Conflict        exists already, or belongs to another model
│   └── GenerationSwitched  while its vectors were made
└── DatabaseTooOld  the schema is not the one of this version
"""

from __future__ import annotations


class IndexerError(Exception):
    pass


class NotFound(IndexerError):
    def __init__(self, what: str, name: str) -> None:
        """`what`: collection, image, model …; `name`: the one that is not there."""
        super().__init__(f"there is no {what} {name!r}")
        self.what = what


class NoPicture(NotFound):
    def __init__(self, key: str) -> None:
        super().__init__("image", key)
        self.args = (f"image {key!r} came as a vector: it has no picture",)


class Conflict(IndexerError):
    pass


class GenerationSwitched(Conflict):
    """Vectors were made for a generation that does not serve any more."""


class DatabaseTooOld(IndexerError):
    pass


class BadItem(IndexerError, ValueError):
    """Words or attributes that cannot be kept; the message says which and why."""
