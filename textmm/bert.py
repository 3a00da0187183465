"""A BERT-like Transformer (Devlin et al. 2019) as all-MiniLM-L6-v2 has it: post-norm, exact GELU."""

# B batch, T tokens, D width

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textmm.layers import MLP, Attention

PUBLISHED = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.fc": "intermediate.dense",
    "mlp.proj": "output.dense",
    "norm2": "output.LayerNorm",
}
"""Our names of a layer's parts -> those of the published checkpoint."""


class BertLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.mlp = MLP(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.norm1(x + self.attention(x, self.attention.keys_values(x), mask=mask))
        y: Tensor = self.norm2(x + self.mlp(x))
        return y


class Bert(nn.Module):
    """tokens [B, T], 0 is padding -> hidden states [B, T, D]. The mean over the real tokens is the feature."""

    def __init__(
        self,
        *,
        vocab_size: int = 30522,
        width: int = 384,
        layers: int = 6,
        heads: int = 12,
        positions: int = 512,
    ) -> None:
        super().__init__()
        self.width = width
        self.word = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(positions, width)
        self.kind = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(BertLayer(width, heads) for _ in range(layers))

    def forward(self, tokens: Tensor) -> Tensor:
        real = tokens != 0  # [B, T]
        mask = None if bool(real.all()) else real[:, None, None, :]
        x = self.word(tokens) + self.position.weight[: tokens.shape[1]] + self.kind
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, mask)
        hidden: Tensor = x
        return hidden

    def pool(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Masked mean, L2-normalised: [B, T, D] -> [B, D] float32."""
        real = (tokens != 0).unsqueeze(-1)
        mean = (hidden.float() * real).sum(1) / real.sum(1).clamp_min(1)
        return F.normalize(mean, dim=-1)

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Read the published checkpoint's names. KeyError names what is missing."""
        state = {
            "word.weight": weights["embeddings.word_embeddings.weight"],
            "position.weight": weights["embeddings.position_embeddings.weight"],
            "kind": weights["embeddings.token_type_embeddings.weight"][0],
            "norm.weight": weights["embeddings.LayerNorm.weight"],
            "norm.bias": weights["embeddings.LayerNorm.bias"],
        }
        for i in range(len(self.layers)):
            for ours, theirs in PUBLISHED.items():
                for part in ("weight", "bias"):
                    state[f"layers.{i}.{ours}.{part}"] = weights[f"encoder.layer.{i}.{theirs}.{part}"]
        self.load_state_dict(state)
