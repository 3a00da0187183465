"""Words for attribute values: by language (tables in textmm/translations), and which of them a text names."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path


def style_in(style: str | None, language: str) -> str:
    """The name of a caption style in a language: English has the plain names. None: the usual one of that language,
    which for photos speaks English alone."""
    style = style or ("photo" if language == "en" else "attributes")
    return style if language == "en" else f"{style}_{language}"


def read_translations(name: str) -> dict[str, list[str]]:
    """value (lower-cased) -> words, the usual one first; a file path or a name in textmm/translations."""
    path = Path(name)
    if not path.is_file():
        path = Path(str(resources.files("textmm"))) / "translations" / name
    out: dict[str, list[str]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if missing := {"value", "translation"}.difference(rows.fieldnames or ()):
            raise ValueError(
                f"{path}: a table of words needs the columns value, translation; it lacks {missing.pop()}"
            )
        for row in rows:
            out.setdefault(row["value"].lower(), []).append(row["translation"])
    return out


def named_in(text: str, values: Sequence[str]) -> list[str]:
    """Of these values those that a text names, in whole words (men are not in women), one or many (a sweater is one of
    Sweaters), and not as a part of a longer one (navy blue is not blue).
    """
    found = [value for value in values if _says(text, value)]
    return [v for v in found if not any(v != other and _says(other, v) for other in found)]


def _says(text: str, value: str) -> bool:
    """Whether a text has a value as a word, for one of it or for many."""
    stems = (value, value.removesuffix("s"), value.removesuffix("es"))
    forms = "|".join(rf"{re.escape(stem)}(?:e?s)?" for stem in stems if len(stem) > 1 or stem == value)
    return re.search(rf"(?<!\w)(?:{forms})(?!\w)", text, re.IGNORECASE) is not None
