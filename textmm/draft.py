"""Draft: words that are being written about pictures, and what it asks of a decoder."""

# B pictures, N image tokens, K beams, A answers, Q words of a step, S words remembered, D width, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from textmm.cache import Cache


class Decoder(Protocol):
    """What puts a picture into words here: TextDecoder, or another that offers this."""

    @property
    def context_length(self) -> int:
        """Words at most, the start token among them."""

    def start(self, image_tokens: Tensor) -> Cache:
        """Keys and values of pictures [B, N, D]; no words yet."""

    def step(self, words: Tensor, cache: Cache, *, positions: Tensor, seen: Tensor | None = None) -> Tensor:
        """States [B, Q, D] of words [B, Q] of B pictures; they join the cache. See TextDecoder.step."""

    def logits(self, states: Tensor) -> Tensor:
        """States [..., D] -> logits of the next word [..., V], in memory of their own."""


class Draft:
    """Words that are being written about the pictures still open, in the decoder's cache.

    Prompts are padded on the right: no word of a prompt sees the padding, and no later one does.
    """

    def __init__(
        self, decoder: Decoder, image_tokens: Tensor, prompts: Sequence[Sequence[int]], limit: int
    ) -> None:
        device = image_tokens.device
        self.decoder = decoder
        self._cache = decoder.start(image_tokens)
        self._lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)  # [B]
        words = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True).to(device)
        places = torch.arange(words.shape[1], device=device)
        states = decoder.step(words, self._cache, positions=places)
        self.last = states[torch.arange(len(words), device=device), self._lengths - 1]
        """[B, D]: states of the prompts' last words."""
        self._seen = (places < self._lengths[:, None])[:, None]  # [B, K, S], K is 1 so far
        self._all_seen = bool(self._seen.all())
        self.pictures = torch.arange(len(words), device=device)
        """[B]: which of the pictures given are open."""
        self.room = limit - self._lengths
        """[B]: words that may come after each prompt."""

    def grow(self, words: Tensor, count: int) -> Tensor:
        """Word `count` after the prompt of each beam, [B, K] -> logits of the next [B, K, V]."""
        batch, beams = words.shape
        own = torch.eye(beams, dtype=torch.bool, device=words.device).expand(batch, -1, -1)
        self._seen = torch.cat([self._seen.expand(-1, beams, -1), own], dim=2)
        alone = beams == 1 and self._all_seen
        positions = (self._lengths + count)[:, None].expand(-1, beams)
        states = self.decoder.step(
            words, self._cache, positions=positions, seen=None if alone else self._seen
        )
        return self.decoder.logits(states).float()

    def states_of(self, words: Tensor) -> Tensor:
        """States [B, A, T, D] of several continuations [B, A, T], none of which sees another."""
        batch, answers, length = words.shape
        device = words.device
        which = torch.arange(answers, device=device).repeat_interleave(length)
        when = torch.arange(length, device=device).repeat(answers)
        own = (which[:, None] == which) & (when[:, None] >= when)  # [A T, A T]
        seen = self._seen.expand(-1, answers * length, -1)
        seen = torch.cat([seen, own.expand(batch, -1, -1)], dim=2)
        last = self.decoder.context_length - 1
        positions = (self._lengths[:, None] + when).clamp_max(
            last
        )  # beyond it stands padding of short answers
        states = self.decoder.step(words.flatten(1), self._cache, positions=positions, seen=seen)
        return states.view(batch, answers, length, -1)

    def follow(self, parents: Tensor) -> None:
        """Beam j of each picture goes on where beam parents[:, j] was, [B, K]."""
        self._seen = self._seen.gather(1, parents[:, :, None].expand(-1, -1, self._seen.shape[2]))

    def keep(self, rows: Tensor) -> None:
        """Only these rows [B'] go on."""
        self._cache.keep(rows)
        self._lengths, self._seen = self._lengths[rows], self._seen[rows]
        self.pictures, self.room = self.pictures[rows], self.room[rows]
