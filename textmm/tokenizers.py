"""Words to ids and back, behind one interface: byte-pair, WordPiece, SentencePiece, CLIP's."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import sentencepiece
import tokenizers
import torch
from torch import Tensor

from textmm.text import Tokens


class Tokenizer(Protocol):
    """What an encoder needs of a tokenizer."""

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """int64 [n, T] for each trunk of the model, padded on the right to the longest of the batch."""

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens the model reads of each text."""


class BytePair:
    """Byte-level byte-pair encoding (Sennrich et al. 2016; GPT-2's bytes), trained by us; any text has ids.

    ids 0..3 are `<pad>`, `<start>`, `<unused>`, then the style tokens; the last id is `<end>`, which is the
    largest so that CLIP's way to find it works.
    """

    def __init__(self, vocabulary: str, *, context_length: int) -> None:
        """`vocabulary` is the JSON text that `train` wrote."""
        self._tokenizer = tokenizers.Tokenizer.from_str(vocabulary)
        self._tokenizer.encode_special_tokens = True  # "<end>" in a text spells letters, not the end
        self.vocabulary = vocabulary
        self.context_length = context_length
        self.vocab_size = self._tokenizer.get_vocab_size()
        self.pad_token_id = self._id("<pad>")
        self.start_token_id = self._id("<start>")
        self.end_token_id = self._id("<end>")

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, *, context_length: int, styles: Sequence[str]
    ) -> BytePair:
        """Learn the merges from `texts`; `vocab_size` counts the special tokens."""
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
        bpe.normalizer = tokenizers.normalizers.Sequence(
            [tokenizers.normalizers.NFKC(), tokenizers.normalizers.Lowercase()]
        )
        bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
        bpe.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size - 1,
            special_tokens=["<pad>", "<start>", *(f"<{style}>" for style in styles)],
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        bpe.train_from_iterator(texts, trainer)
        bpe.add_special_tokens(["<end>"])
        return cls(bpe.to_str(), context_length=context_length)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        return (self.ids(texts, start="<start>"),)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(row) for row in self._rows(texts, "<start>")]

    def ids(self, texts: Sequence[str], *, start: str) -> Tensor:
        """[n, T]: the token `start`, the words, `<end>`; cut to context_length, padded to the longest."""
        return _padded(self._rows(texts, start), self.pad_token_id)

    def continuations(self, texts: Sequence[str]) -> list[list[int]]:
        """The words of each text and `<end>`, cut so that a start token goes before them."""
        return [row[1:] for row in self._rows(texts, "<start>")]

    @property
    def start_token_ids(self) -> list[int]:
        """Padding and the tokens that only ever come first: never a next word."""
        names = self._tokenizer.get_added_tokens_decoder()
        return sorted(i for i in names if i != self.end_token_id)

    def style_token_id(self, style: str) -> int:
        return self._id(f"<{style}>")

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()

    def _rows(self, texts: Sequence[str], start: str) -> list[list[int]]:
        first, room = self._id(start), self.context_length - 2
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[first, *e.ids[:room], self.end_token_id] for e in encoded]

    def _id(self, token: str) -> int:
        token_id: int | None = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise ValueError(f"the vocabulary has no token {token}")
        return token_id


class WordPiece:
    """BERT's WordPiece out of a published tokenizer.json; 0 pads."""

    def __init__(self, tokenizer_json: str, *, context_length: int) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_padding()  # the published file has fixed padding baked in
        self._tokenizer.enable_truncation(context_length)

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self._tokenizer.encode_batch(list(texts))]


class SentencePiece:
    """A SentencePiece model between its start and end ids (1 and 2); an empty text is [1, 0, 2]; -1 pads."""

    def __init__(self, path: Path, *, context_length: int) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.context_length = context_length

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        pieces = self._processor.encode(list(texts))
        return [[1, *(p[: self.context_length - 2] or [0]), 2] for p in pieces]


class PretrainedTokenizer:
    """WordPiece, SentencePiece or both for a text encoder over pretrained trunks.

    With both, a text with letters outside the Latin script gets no WordPiece tokens: MiniLM cannot read it, and
    the head is trained to do without.
    """

    def __init__(self, word_piece: WordPiece | None, sentence_piece: SentencePiece | None) -> None:
        self._word_piece = word_piece
        self._sentence_piece = sentence_piece

    def __call__(self, texts: Sequence[str]) -> Tokens:
        tokens = []
        if self._word_piece is not None:
            rows = self._word_piece.rows(texts)
            if self._sentence_piece is not None:
                rows = [row if is_latin(text) else [] for text, row in zip(texts, rows, strict=True)]
            tokens.append(_padded(rows, 0))
        if self._sentence_piece is not None:
            tokens.append(_padded(self._sentence_piece.rows(texts), -1))
        return tuple(tokens)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        first = self._word_piece or self._sentence_piece
        assert first is not None
        return [len(row) for row in first.rows(texts)]


def is_latin(text: str) -> bool:
    """Whether every letter of the text is of the Latin script."""
    return text.isascii() or all(
        unicodedata.name(c, "").startswith(("LATIN", "FEMININE", "MASCULINE", "FULLWIDTH LATIN"))
        for c in text
        if c.isalpha()
    )


def read_word_piece(path: Path, *, context_length: int) -> WordPiece:
    return WordPiece(json.dumps(json.loads(path.read_text())), context_length=context_length)


def _padded(rows: list[list[int]], pad: int) -> Tensor:
    longest = max(map(len, rows), default=0)
    padded = [row + [pad] * (longest - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.int64).view(len(rows), longest)
