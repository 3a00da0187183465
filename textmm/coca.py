"""CoCa's decoder as open_clip builds it: the text tower's layers say what the words are, layers on top of them ask the
picture (Yu et al. 2022).
"""

# B batch, T words, Q words of a step, N image tokens, D width, V vocabulary

from __future__ import annotations

import torch
from torch import Tensor, nn

from textmm.cache import Cache, WordMemory
from textmm.config import DecoderConfig
from textmm.layers import MLP, Attention, Block, KeysValues
from textmm.text import ClassTokenText, shifted_mask

FEW = 16
"""Rows up to which a CPU goes through the vocabulary's matrix faster from its left: 8 of them in 8 ms instead of 13."""


class CrossBlock(nn.Module):
    """Pre-norm attention of words over image tokens and an MLP, each added to its input."""

    def __init__(self, width: int, heads: int, *, image_width: int, quick_gelu: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm_image = nn.LayerNorm(image_width)
        self.attention = Attention(width, heads, source_width=image_width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, quick_gelu=quick_gelu)

    def keys_values(self, image_tokens: Tensor) -> KeysValues:
        return self.attention.keys_values(self.norm_image(image_tokens))

    def forward(self, x: Tensor, image: KeysValues) -> Tensor:
        x = x + self.attention(self.norm1(x), image)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class CoCaDecoder(nn.Module):
    """Words so far [B, T] and image tokens [B, N, D] -> logits of the next word [B, T, V]; as TextDecoder."""

    def __init__(self, config: DecoderConfig, text: ClassTokenText, *, quick_gelu: bool = False) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self._text = (
            text,
        )  # in a tuple, so that its weights are the text tower's and not ours a second time
        self.layers = nn.ModuleList(
            Block(width, heads, causal=True, quick_gelu=quick_gelu) for _ in range(config.layers)
        )
        self.cross = nn.ModuleList(
            CrossBlock(width, heads, image_width=width, quick_gelu=quick_gelu) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, config.vocab_size, bias=False)

    @property
    def text(self) -> ClassTokenText:
        return self._text[0]

    @property
    def context_length(self) -> int:
        """Words at most."""
        return self.text.context_length

    def start(self, image_tokens: Tensor) -> Cache:
        """A cache for pictures whose tokens [B, N, D] are given; the text tower's layers remember words too."""
        image = [cross.keys_values(image_tokens) for cross in self.cross]  # type: ignore[operator]
        return Cache(image, word_layers=len(self.text.blocks) + len(self.layers))

    def step(self, words: Tensor, cache: Cache, *, positions: Tensor, seen: Tensor | None = None) -> Tensor:
        """States [B, Q, D] of the words [B, Q] at `positions`; as TextDecoder.step.

        Padding (id 0) hides the place after it from the text tower's layers, as in training, among words that come
        first; decoding says none later.
        """
        text, count = self.text, words.shape[1]
        mask = cache.visible(count, seen)
        below = shifted_mask(words, count) if mask is None and count > 1 else mask
        x = text.word(words) + text.positions[positions]
        memories = iter(cache.words)
        for block in text.blocks:
            x = _grow(block, x, next(memories), below)
        for layer, cross, image in zip(self.layers, self.cross, cache.image, strict=True):
            x = cross(_grow(layer, x, next(memories), mask), image)
        out: Tensor = self.norm(x)
        return out

    def states(self, words: Tensor, image_tokens: Tensor) -> Tensor:
        """Words [B, T] and image tokens -> [B, T, D], which `logits` turns into words."""
        places = torch.arange(words.shape[1], device=words.device)
        return self.step(words, self.start(image_tokens), positions=places)

    def logits(self, states: Tensor) -> Tensor:
        """States [..., D] -> logits of the next word [..., V]."""
        rows = states.flatten(0, -2)
        few = 1 < len(rows) <= FEW
        out: Tensor = (self.projection.weight @ rows.t()).t() if few else self.projection(rows)
        return out.view(*states.shape[:-1], -1)

    def forward(self, words: Tensor, image_tokens: Tensor) -> Tensor:
        return self.logits(self.states(words, image_tokens))


def _grow(block: nn.Module, x: Tensor, memory: WordMemory, mask: Tensor | None) -> Tensor:
    """The block over the words of `memory`, which x [B, Q, D] joins; None for a mask: as in Cache.visible."""
    assert isinstance(block, Block)
    y = block.norm1(x)
    keys_values = memory.append(block.attention.keys_values(y))
    return block.attend(x, y, keys_values, mask=mask, causal=mask is None and x.shape[1] > 1)
