"""CLIP's byte-pair tokenizer (Radford et al. 2021), with open_clip's cleaning; its vocabulary comes with open_clip."""

from __future__ import annotations

import gzip
import html
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import ftfy
import regex
import torch
from torch import Tensor

from textmm.text import Tokens

FILE_NAME = "bpe_simple_vocab_16e6.txt.gz"
"""In the folder of the package open_clip_torch (MIT licence)."""
MERGES = 49152 - 256 - 2
START, END = "<start_of_text>", "<end_of_text>"
REMEMBERED_WORDS = 100_000
REMEMBERED_BYTES = 40
LONGEST_WORD = 4000
"""Bytes of a word that are read. More tokens than any context come before its end; merging takes their square."""


class ClipTokenizer:
    """Texts -> ids 0..49407; the last two are start and end. The same ids as open_clip's SimpleTokenizer gives.

    Also the vocabulary of CoCa's decoder, which knows one style.
    """

    pad_token_id = 0

    def __init__(self, vocabulary: Path, *, context_length: int, whole: bool = False) -> None:
        """`vocabulary`: the gzipped file of merges. `whole`: pad to context_length rather than to the longest text."""
        self.context_length = context_length
        self._whole = whole
        self._letter_of = _byte_letters()
        self._byte_of = {letter: byte for byte, letter in self._letter_of.items()}
        merges = _merges(vocabulary)
        letters = list(self._letter_of.values())
        words = [*letters, *(f"{x}</w>" for x in letters), *map("".join, merges), START, END]
        self._id_of = {word: i for i, word in enumerate(words)}
        self._words = words
        self._rank_of = {pair: rank for rank, pair in enumerate(merges)}
        self.start_token_id, self.end_token_id = self._id_of[START], self._id_of[END]
        self._remembered = {START: [self.start_token_id], END: [self.end_token_id]}
        self._pattern = regex.compile(
            rf"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",
            regex.IGNORECASE,
        )

    def __call__(self, texts: Sequence[str]) -> Tokens:
        return (self._padded(self._rows(texts)),)

    def ids(self, texts: Sequence[str], *, start: str) -> Tensor:
        """[n, T]: the start, the words, the end; as BytePair.ids, but that there is one start for every style."""
        return self._padded(self._rows(texts))

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(row) for row in self._rows(texts)]

    @property
    def start_token_ids(self) -> list[int]:
        """Padding and the start: never a next word."""
        return [self.pad_token_id, self.start_token_id]

    def style_token_id(self, style: str) -> int:
        """What a caption starts with, in the one style there is."""
        return self.start_token_id

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, start and end left out."""
        words = "".join(self._words[i] for i in ids if i < self.start_token_id)
        data = bytearray(self._byte_of[letter] for letter in words.replace("</w>", self._letter_of[32]))
        return data.decode("utf-8", errors="replace").strip()

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        room, start, end = self.context_length - 2, self.start_token_id, self.end_token_id
        return [[start, *islice(self._ids(text), room), end] for text in texts]

    def _padded(self, rows: list[list[int]]) -> Tensor:
        longest = self.context_length if self._whole else max(map(len, rows), default=0)
        out = torch.full((len(rows), longest), self.pad_token_id, dtype=torch.int64)
        for i, row in enumerate(rows):
            out[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        return out

    def _ids(self, text: str) -> Iterator[int]:
        for word in self._pattern.findall(clean(text).lower()):
            data = word.encode("utf-8")[:LONGEST_WORD]
            yield from self._ids_of_word("".join(self._letter_of[byte] for byte in data))

    def _ids_of_word(self, word: str) -> list[int]:
        known = self._remembered.get(word)
        if known is None:
            known = [self._id_of[part] for part in self._merged(word)]
            if len(word) <= REMEMBERED_BYTES and len(self._remembered) < REMEMBERED_WORDS:
                self._remembered[word] = known
        return known

    def _merged(self, word: str) -> list[str]:
        """The parts of a word: again and again the pair with the lowest rank becomes one."""
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self._rank_of.get(pair, MERGES))
            if best not in self._rank_of:
                break
            parts = list(_joined(parts, best))
        return parts


def clean(text: str) -> str:
    """open_clip's cleaning, but for the case: broken encodings mended, HTML entities twice, white space single."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def _joined(parts: list[str], pair: tuple[str, str]) -> Iterator[str]:
    i = 0
    while i < len(parts):
        both = i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair
        yield parts[i] + parts[i + 1] if both else parts[i]
        i += 2 if both else 1


def _byte_letters() -> dict[int, str]:
    """A letter for each byte, those that print for themselves (GPT-2's table); the order is that of the ids."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in set(shown)]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def _merges(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"CLIP's vocabulary is not at {path}: install open_clip_torch, which holds it"
        )
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        pairs = [line.split() for line in lines][1 : MERGES + 1]
    return [(first, second) for first, second in pairs]
