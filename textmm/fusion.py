"""CrossModalFusion and the decoder stacked from it, which puts pictures into words (Yu et al. 2022, CoCa)."""

# B batch, T words, N image tokens, D width, V vocabulary

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textmm.cache import Cache, WordMemory
from textmm.config import DecoderConfig
from textmm.layers import MLP, Attention, KeysValues


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


class QuestionTokens(nn.Module):
    """Tokens that the decoder reads beside a picture's when it is to answer: what the question means, and how it lies
    to the picture in the space that both share.

    The words of a question are not the decoder's: a trunk that has read many ways to ask understands those that
    training had not.
    """

    COUNT = 3
    DROPOUT = 0.2

    def __init__(self, meaning_width: int, embed_dim: int, *, hidden: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.place_scale = embed_dim**0.5  # makes the numbers of a unit vector about 1 each
        self.in_dropout = nn.Dropout(self.DROPOUT)
        self.fc = nn.Linear(meaning_width + 3 * embed_dim, hidden)
        self.dropout = nn.Dropout(self.DROPOUT)
        self.proj = nn.Linear(hidden, self.COUNT * width)

    def forward(self, meaning: Tensor, question: Tensor, picture: Tensor) -> Tensor:
        """The question's meaning [B, meaning_width], its place and the picture's [B, E] -> [B, COUNT, width]."""
        q, p = question * self.place_scale, picture * self.place_scale
        x = self.in_dropout(torch.cat([meaning, q, p, q * p], dim=1))
        out: Tensor = self.proj(self.dropout(F.gelu(self.fc(x))))
        return out.view(len(out), self.COUNT, self.width)


class DecoderLayer(nn.Module):
    def __init__(self, config: DecoderConfig, image_width: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.fusion = CrossModalFusion(config.width, config.heads, image_width=image_width)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = MLP(config.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, image: KeysValues, memory: WordMemory, mask: Tensor | None) -> Tensor:
        """x [B, Q, D] after the words of `memory`, which it joins; None for a mask: as in Cache.visible."""
        y = self.norm1(x)
        keys_values = memory.append(self.attention.keys_values(y))
        causal = mask is None and x.shape[1] > 1
        x = x + self.dropout(self.attention(y, keys_values, mask=mask, causal=causal))
        x = x + self.dropout(self.fusion(x, image))
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

    @property
    def context_length(self) -> int:
        """Words at most."""
        return len(self.positions)

    def start(self, image_tokens: Tensor) -> Cache:
        """A cache for pictures whose tokens [B, N, image_width] are given, with no words yet."""
        source = self.norm_image(image_tokens)
        image = [layer.fusion.attention.keys_values(source) for layer in self.layers]  # type: ignore
        return Cache(image, word_layers=len(self.layers))

    def step(self, words: Tensor, cache: Cache, *, positions: Tensor, seen: Tensor | None = None) -> Tensor:
        """States [B, Q, D] of the words [B, Q] at `positions` [B, Q] or [Q]; they go into the cache.

        `seen` [B, Q, S + Q] bool: which of the S words remembered and of these each may see. None: these come first
        and each sees those before it, or it is one that sees all.
        """
        mask = cache.visible(words.shape[1], seen)
        x = self.dropout(self.word(words) + self.positions[positions])
        for layer, image, memory in zip(self.layers, cache.image, cache.words, strict=True):
            x = layer(x, image, memory, mask)
        out: Tensor = self.norm(x)
        return out

    def states(self, words: Tensor, image_tokens: Tensor) -> Tensor:
        """Words [B, T] and image tokens -> [B, T, D], which `logits` turns into words; in training most of the
        work is there, so only the states of real words go through it."""
        places = torch.arange(words.shape[1], device=words.device)
        return self.step(words, self.start(image_tokens), positions=places)

    def logits(self, states: Tensor) -> Tensor:
        """States [..., D] -> logits of the next word [..., V]; the matrix is that of the word embeddings."""
        return states @ self.word.weight.T

    def forward(self, words: Tensor, image_tokens: Tensor) -> Tensor:
        return self.logits(self.states(words, image_tokens))
