"""A published tokenizer.json (of a hub repository) as open_clip's HFTokenizer uses it, without transformers."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch

from textmm.clip_tokenizer import clean
from textmm.text import Tokens

FILE_NAME, SETTINGS = "tokenizer.json", "tokenizer_config.json"
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class HubTokenizer:
    """Texts -> ids [n, context_length], cleaned, cut and padded as the model was trained."""

    def __init__(self, folder: Path, *, context_length: int, settings: Mapping[str, Any]) -> None:
        """`settings` are open_clip's `tokenizer_kwargs`. Raises FileNotFoundError, ValueError for unknown ones."""
        for name in (FILE_NAME, SETTINGS):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"the tokenizer of this model is not here: put its {FILE_NAME} and {SETTINGS} in {folder}"
                )
        unknown = set(settings) - {"clean", "strip_sep_token"}
        if unknown:
            raise ValueError(f"tokenizer_kwargs {', '.join(sorted(unknown))}: not known here")
        said = json.loads((folder / SETTINGS).read_text())
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / FILE_NAME))
        self._context_length = context_length
        self._clean = CLEANING[settings.get("clean", "whitespace")]
        self._pad = self._id(said, "pad_token", folder)
        self._stripped = self._id(said, "sep_token", folder) if settings.get("strip_sep_token") else None
        pad = self._tokenizer.id_to_token(self._pad)
        self._tokenizer.enable_truncation(context_length)
        self._tokenizer.enable_padding(length=context_length, pad_id=self._pad, pad_token=pad)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        rows = [encoding.ids for encoding in self._encoded(texts)]
        ids = torch.tensor(rows, dtype=torch.int64).reshape(len(rows), self._context_length)
        return (ids if self._stripped is None else ids.masked_fill(ids == self._stripped, 0),)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [sum(encoding.attention_mask) for encoding in self._encoded(texts)]

    def _encoded(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        return self._tokenizer.encode_batch([self._clean(text) for text in texts])

    def _id(self, said: Mapping[str, Any], kind: str, folder: Path) -> int:
        token = said.get(kind)
        token = token["content"] if isinstance(token, dict) else token
        found = None if token is None else self._tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"{folder / SETTINGS} names no {kind} that {FILE_NAME} has")
        return int(found)


def _canonical(text: str) -> str:
    """big_vision's: no punctuation, lower case."""
    return " ".join(clean(text).replace("_", " ").translate(NO_PUNCTUATION).lower().split())


CLEANING: dict[str, Callable[[str], str]] = {
    "whitespace": clean,
    "lower": lambda text: clean(text).lower(),
    "canonicalize": _canonical,
}
"""open_clip's names of ways to clean a text."""
