"""Words for attribute values, by language: tables in textmm/translations."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path


def style_in(style: str, language: str) -> str:
    """The name of a caption style in a language: English has the plain names."""
    return style if language == "en" else f"{style}_{language}"


def read_translations(name: str) -> dict[str, list[str]]:
    """value (lower-cased) -> words, the usual one first; a file path or a name in textmm/translations."""
    path = Path(name)
    if not path.is_file():
        path = Path(str(resources.files("textmm"))) / "translations" / name
    out: dict[str, list[str]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            out.setdefault(row["value"].lower(), []).append(row["translation"])
    return out
