"""The tables beside this file: phrasings of intents, examples of roles, forms of values and numbers, replies."""

from __future__ import annotations

import csv
import io
from importlib import resources


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a table by the name of its file."""
    text = (resources.files("search") / "phrasings" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))
