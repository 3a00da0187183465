"""Universal Sentence Encoder, multilingual v3 (Yang et al. 2019): n-grams and averaging, no attention."""

# B batch, T tokens, D = 512 width of an embedding, C = 256 width of a branch

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

BRANCHES = ((2, 0), (3, 1), (5, 2))
"""(n of the n-gram, tokens of left context) of each convolutional branch."""
CHUNKS, CHUNK_ROWS = 17, 7530
WIDTH, BRANCH = 512, 256
FEW = 4
"""Fewer sentences share too little for it to be worth looking for."""


class SentenceEncoder(nn.Module):
    """tokens [B, T], -1 is padding -> token states [B, T, 1280] and features [B, 512], L2-normalised.

    The embedding table stays uint8 with a scale and an offset per chunk, as published: 65 MB, not 262.
    """

    table: Tensor
    scale: Tensor
    low: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(CHUNKS * CHUNK_ROWS, WIDTH, dtype=torch.uint8))
        self.register_buffer("scale", torch.zeros(CHUNKS))
        self.register_buffer("low", torch.zeros(CHUNKS))
        self.width = WIDTH
        joint = BRANCH * len(BRANCHES)
        self.project = nn.Linear(WIDTH, joint)
        self.norm = nn.LayerNorm(joint, eps=1e-12)
        self.conv1 = nn.ModuleList(nn.Linear(n * BRANCH, BRANCH) for n, _ in BRANCHES)
        self.conv2 = nn.ModuleList(nn.Linear(n * BRANCH, BRANCH) for n, _ in BRANCHES)
        self.norm_out = nn.LayerNorm(WIDTH + joint, eps=1e-12)
        self.pooled = nn.Linear(WIDTH + joint, WIDTH)
        self.d0 = nn.Linear(WIDTH, 320, bias=False)
        self.d1 = nn.Linear(320, 320, bias=False)
        self.p1 = nn.Linear(WIDTH, 320, bias=False)
        self.d2 = nn.Linear(320, WIDTH, bias=False)
        self.p3 = nn.Linear(320, WIDTH, bias=False)
        self.d3 = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        states, which = self._states(tokens)
        return states[which], self._pool(states, which, tokens)

    def features(self, tokens: Tensor) -> Tensor:
        """`forward`'s features alone. Of sentences much alike this costs a fraction: what they share is made once."""
        states, which = self._states(tokens)
        return self._pool(states, which, tokens)

    def _states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """States [S, 1280] of all surroundings that a word of the batch has, the last one zeros, and which of them is
        whose, [B, T]; padding has the last. A state depends on four neighbours to each side, no more.
        """
        real = tokens >= 0
        ids, words = _distinct(tokens.clamp_min(0).unsqueeze(-1))
        rows = ids[:, 0]
        chunk = rows % CHUNKS
        x = self.table[rows].float() * self.scale[chunk].unsqueeze(-1) + self.low[chunk].unsqueeze(-1)
        branches = self.norm(self.project(x)).chunk(len(BRANCHES), dim=-1)  # normed jointly
        parts, whose = [x], [words]
        for i, (n, left) in enumerate(BRANCHES):
            y, which = branches[i], words
            for conv in (self.conv1[i], self.conv2[i]):
                nothing = len(y)  # what stands beyond a sentence
                y = F.pad(y, (0, 0, 0, 1))
                around = F.pad(which.masked_fill(~real, nothing), (left, n - 1 - left), value=nothing)
                window, which = _distinct(around.unfold(1, n, 1))
                y = F.relu(conv(y[window].flatten(1))) + y[window[:, left]]
            parts.append(y)
            whose.append(which)
        of_parts, which = _distinct(torch.stack(whose, dim=-1))
        states = self.norm_out(torch.cat([part[of_parts[:, i]] for i, part in enumerate(parts)], dim=-1))
        return F.pad(states, (0, 0, 0, 1)), which.masked_fill(~real, len(states))

    def _pool(self, states: Tensor, which: Tensor, tokens: Tensor) -> Tensor:
        return self._tail(F.embedding_bag(which, states, mode="sum"), (tokens >= 0).sum(1, keepdim=True))

    def _tail(self, total: Tensor, length: Tensor) -> Tensor:
        """Sum of states [B, 1280] and lengths [B, 1] -> features [B, 512]."""
        s = (total @ self.pooled.weight.T + length * self.pooled.bias) / length.clamp_min(1).sqrt()
        y1 = F.relu(self.p1(s) + self.d1(F.relu(self.d0(s))))
        z = torch.tanh(self.p3(y1) + self.d3(F.relu(self.d2(y1))))
        return F.normalize(z, dim=-1)

    def load_published(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Read the published npz. Row id r lies in array q{r % 17 + 1} at r // 17. KeyError names what is
        missing.
        """
        with torch.no_grad():
            for i in range(CHUNKS):
                self.table[i::CHUNKS] = torch.from_numpy(weights[f"q{i + 1}"])
        grams = [n for n, _ in BRANCHES]
        state = {
            "scale": weights["scale"],
            "low": weights["lo"],
            "project.weight": np.concatenate([weights[f"proj{n}"] for n in grams], axis=1).T,
            "project.bias": np.concatenate([weights[f"proj_b{n}"] for n in grams]),
            "norm.weight": np.concatenate([weights[f"ln_g{n}"] for n in grams]),
            "norm.bias": np.concatenate([weights[f"ln_b{n}"] for n in grams]),
            "norm_out.weight": weights["ln_g"],
            "norm_out.bias": weights["ln_b"],
            "pooled.weight": weights["cnn_W"].T,
            "pooled.bias": weights["cnn_b"],
        }
        for i, n in enumerate(grams):
            for conv, layer in (("conv1", 1), ("conv2", 2)):
                state[f"{conv}.{i}.weight"] = weights[f"w{layer}_{n}"].T
                state[f"{conv}.{i}.bias"] = weights[f"b{layer}_{n}"]
        for name in ("d0", "d1", "p1", "d2", "p3", "d3"):
            state[f"{name}.weight"] = weights[name].T
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()}
        self.load_state_dict({**tensors, "table": self.table})
        for norm in (self.norm, self.norm_out):
            norm.eps = float(weights["eps"])


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [B, T, n] of int64, 0 or more -> the distinct ones [U, n] and which of them each is, [B, T]; of a FEW
    sentences all as they are.

    Column by column: `unique` over whole rows compares them one by one, which took longer than all the rest.
    """
    flat = rows.flatten(0, 1)
    places = torch.arange(len(flat), device=rows.device)
    if len(rows) < FEW:
        return flat, places.view(rows.shape[:2])
    which = torch.zeros_like(places)
    for column in flat.unbind(1):
        keys = which * (int(column.max()) + 1) + column
        found, which = torch.unique(keys, return_inverse=True)
    one_of_each = torch.empty_like(found).scatter_(0, which, places)
    return flat[one_of_each], which.view(rows.shape[:2])
