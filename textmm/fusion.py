"""CrossModalFusion and the decoder stacked from it, which puts pictures into words (Yu et al. 2022, CoCa)."""

# B batch, T words, N image tokens, D width, V vocabulary

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textmm.config import DecoderConfig
from textmm.layers import MLP, Attention, KeysValues


@dataclass
class LayerCache:
    """What one layer remembers while a caption grows; `select` follows the beams."""

    image: KeysValues
    """Keys and values of the image tokens, computed once."""
    words: KeysValues | None = None
    """Keys and values of the words so far."""

    def append(self, new: KeysValues) -> KeysValues:
        if self.words is not None:
            new = (torch.cat([self.words[0], new[0]], dim=2), torch.cat([self.words[1], new[1]], dim=2))
        self.words = new
        return new

    def select(self, rows: Tensor, *, image: bool) -> None:
        """Keep the rows [B'] of what is remembered; of the image's too when `image`."""
        if self.words is not None:
            self.words = (self.words[0][rows], self.words[1][rows])
        if image:
            self.image = (self.image[0][rows], self.image[1][rows])


class CrossModalFusion(nn.Module):
    """Multi-head attention with text tokens as queries, image tokens as keys and values."""

    def __init__(self, width: int, heads: int, *, image_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, source_width=image_width)

    def forward(self, words: Tensor, image: KeysValues) -> Tensor:
        """words [B, T, D] -> what the image says to each of them, [B, T, D]."""
        out: Tensor = self.attention(self.norm(words), image)
        return out


class DecoderLayer(nn.Module):
    def __init__(self, config: DecoderConfig, image_width: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.fusion = CrossModalFusion(config.width, config.heads, image_width=image_width)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = MLP(config.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: LayerCache) -> Tensor:
        y = self.norm1(x)
        fresh = cache.words is None
        keys_values = cache.append(self.attention.keys_values(y))
        x = x + self.dropout(self.attention(y, keys_values, causal=fresh and x.shape[1] > 1))
        x = x + self.dropout(self.fusion(x, cache.image))
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out


class TextDecoder(nn.Module):
    """Words so far [B, T] and image tokens [B, N, image_width] -> logits of the next word [B, T, V]."""

    def __init__(self, config: DecoderConfig, image_width: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.randn(config.context_length, config.width) * 0.01)
        self.norm_image = nn.LayerNorm(image_width)
        self.layers = nn.ModuleList(DecoderLayer(config, image_width, dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.word.weight, std=0.02)

    def start(self, image_tokens: Tensor) -> list[LayerCache]:
        """A cache for pictures whose tokens are given, with no words yet."""
        source = self.norm_image(image_tokens)
        return [LayerCache(layer.fusion.attention.keys_values(source)) for layer in self.layers]  # type: ignore

    def step(self, words: Tensor, cache: list[LayerCache], *, position: int) -> Tensor:
        """The words [B, T] that come at `position` and after -> logits [B, T, V]; they go into the cache."""
        return self.logits(self._states(words, cache, position))

    def states(self, words: Tensor, image_tokens: Tensor) -> Tensor:
        """Words [B, T] and image tokens -> [B, T, D], which `logits` turns into words; in training most of the
        work is there, so only the states of real words go through it."""
        return self._states(words, self.start(image_tokens), 0)

    def logits(self, states: Tensor) -> Tensor:
        """States [..., D] -> logits of the next word [..., V]; the matrix is that of the word embeddings."""
        return states @ self.word.weight.T

    def forward(self, words: Tensor, image_tokens: Tensor) -> Tensor:
        return self.logits(self.states(words, image_tokens))

    def _states(self, words: Tensor, cache: list[LayerCache], position: int) -> Tensor:
        x = self.word(words) + self.positions[position : position + words.shape[1]]
        x = self.dropout(x)
        for layer, remembered in zip(self.layers, cache, strict=True):
            x = layer(x, remembered)
        out: Tensor = self.norm(x)
        return out
