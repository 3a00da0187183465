"""Attention, MLP and Block: shared by the towers and the decoder."""

# B batch, T queries, S keys, D width, H heads

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one attention, each [B, H, S, D/H]."""


class Attention(nn.Module):
    """Multi-head attention of `x` over `source` (over itself when that is None)."""

    def __init__(self, width: int, heads: int, *, source_width: int | None = None) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width or width, width)
        self.value = nn.Linear(source_width or width, width)
        self.out = nn.Linear(width, width)

    def keys_values(self, source: Tensor) -> KeysValues:
        return self._split(self.key(source)), self._split(self.value(source))

    def forward(
        self, x: Tensor, keys_values: KeysValues, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """x [B, T, D] -> [B, T, D]. `mask` is True where a key may be seen, or 0 there and -inf elsewhere."""
        keys, values = keys_values
        q = self._split(self.query(x))  # [B, H, T, D/H]
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, is_causal=causal)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        # [B, T, D] -> [B, H, T, D/H]
        return x.view(batch, length, self.heads, width // self.heads).transpose(1, 2)


class MLP(nn.Module):
    """Two linear layers with GELU between them, or with OpenAI's quick estimate of it, x · sigmoid(1.702 x)."""

    def __init__(self, width: int, *, ratio: float = 4.0, quick_gelu: bool = False) -> None:
        super().__init__()
        hidden = int(ratio * width)
        self.quick_gelu = quick_gelu
        self.fc = nn.Linear(width, hidden)
        self.proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        y: Tensor = self.proj(x * torch.sigmoid(1.702 * x) if self.quick_gelu else F.gelu(x))
        return y


class Block(nn.Module):
    """Pre-norm self-attention and MLP, each added to its input."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool = False,
        mlp_ratio: float = 4.0,
        quick_gelu: bool = False,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, ratio=mlp_ratio, quick_gelu=quick_gelu)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        return self.attend(x, y, self.attention.keys_values(y), causal=self.causal)

    def attend(
        self,
        x: Tensor,
        y: Tensor,
        keys_values: KeysValues,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """The block over keys and values that are given: x [B, T, D] and y, which is x after `norm1`."""
        x = x + self.attention(y, keys_values, mask=mask, causal=causal)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class FeatureDropout(nn.Module):
    """In training a share of the features is left out, others of each row, and the rest made larger for it (Srivastava
    et al. 2014); of a row of tokens the same of all: its neighbours would tell a feature (Tompson et al. 2015).
    """

    shares: float | Tensor = 0.2

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] or [B, N, D] -> the same shape."""
        if not self.training:
            return x
        kept = 1 - torch.as_tensor(self.shares, device=x.device, dtype=torch.float32).view(-1, 1)
        mask = (torch.rand(len(x), x.shape[-1], device=x.device) < kept) / kept
        return x * (mask if x.dim() == 2 else mask[:, None])


class ProjectionHead(nn.Module):
    """Features of a locked trunk -> the shared space: standardise, clamp, a linear path beside an MLP, L2.

    `mean` and `std` are those of the training features (`fit`). The clamp keeps a picture unlike any in
    training from leaving the range that the head was trained on.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, in_width: int, hidden: int, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_width))
        self.register_buffer("std", torch.ones(in_width))
        self.in_dropout = FeatureDropout()
        self.linear = nn.Linear(in_width, embed_dim)
        self.fc = nn.Linear(in_width, hidden)
        self.dropout = nn.Dropout(0.5)
        self.proj = nn.Linear(hidden, embed_dim)

    def fit(self, features: Tensor) -> None:
        """Take mean and deviation from training features [n, in_width]."""
        self.mean.copy_(features.mean(0))
        self.std.copy_(features.std(0).clamp_min(1e-4))

    def standardise(self, x: Tensor) -> Tensor:
        """[B, in_width] -> the same, each column of mean 0 and deviation 1, within ±6."""
        return ((x - self.mean) / self.std).clamp(-6, 6)

    def forward(self, x: Tensor) -> Tensor:
        """Standardised [B, in_width] -> [B, embed_dim], L2-normalised."""
        x = self.in_dropout(x)
        y = self.linear(x) + self.proj(self.dropout(F.gelu(self.fc(x))))
        return F.normalize(y.float(), dim=-1)


def set_feature_dropout(tower: nn.Module, shares: float | Tensor) -> None:
    """What the head over a pretrained trunk does not see of the features, in training: a share, or one a row [B]."""
    for module in tower.modules():
        if isinstance(module, FeatureDropout):
            module.shares = shares
