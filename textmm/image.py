"""ImageEncoder: images to features and tokens; a ViT and a CNN behind one interface.

Each encoder has two halves: `trunk`, which may be locked and whose output may be kept on disk, and the heads
`project` and `tokens`, which are trained. `forward` is one after the other.
"""

# B batch, N image tokens, D width, E embed_dim, P patch side, H W pixels

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textmm.colour import COLOUR_WIDTH, SIDE, colour_features
from textmm.config import ImageConfig
from textmm.efficientnet import HEAD_WIDTH, EfficientNetLite
from textmm.layers import Attention, Block, ProjectionHead


class TrunkOutput(NamedTuple):
    pooled: Tensor
    """[B, width of the pooled features]"""
    memory: Tensor
    """[B, N, D]: a token each; for text, with `present`."""
    present: Tensor
    """[B, parts] bool: which parts of `pooled` say anything."""


class Front(NamedTuple):
    """What the first stages of a CNN make of pictures."""

    maps: Tensor
    """[B, C, h, w]: the end of the last of them."""
    pooled: Tensor
    """[B, F] float32: their part of the pooled features, then colour."""


class Encoded(NamedTuple):
    features: Tensor
    """[B, E] float32, L2-normalised."""
    tokens: Tensor
    """[B, N, D]"""


class ImageEncoder(nn.Module):
    """Normalised images [B, 3, H, W] -> features [B, E] and tokens [B, N, token_width]."""

    token_width: int

    def trunk(self, images: Tensor) -> TrunkOutput:
        raise NotImplementedError

    def project(self, out: TrunkOutput) -> Tensor:
        """Features [B, E], float32, L2-normalised."""
        raise NotImplementedError

    def tokens(self, out: TrunkOutput) -> Tensor:
        """[B, N, token_width], for the decoder."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Encoded:
        out = self.trunk(images)
        return Encoded(self.project(out), self.tokens(out))


class AttentionalPooler(nn.Module):
    """Learned queries ask the tokens of a picture (CoCa, Yu et al. 2022, as open_clip has it)."""

    def __init__(self, config: ImageConfig, embed_dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(config.attn_pooler_queries, embed_dim))
        self.norm_query = nn.LayerNorm(embed_dim)
        self.norm_tokens = nn.LayerNorm(config.width)
        self.attention = Attention(embed_dim, config.attn_pooler_heads, source_width=config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, D] -> [B, queries, E]"""
        queries = self.norm_query(self.query).expand(len(tokens), -1, -1)
        out: Tensor = self.attention(queries, self.attention.keys_values(self.norm_tokens(tokens)))
        return out


class ViT(ImageEncoder):
    """Vision Transformer (Dosovitskiy et al. 2021) with CLIP's norm before the blocks.

    With an attentional pooler the first of what it gives stands for the picture and the rest are its tokens.
    """

    def __init__(self, config: ImageConfig, embed_dim: int, *, quick_gelu: bool = False) -> None:
        super().__init__()
        width, patch = config.width, config.patch_size
        pooled = embed_dim if config.attentional_pool else width
        self.token_width = pooled
        self.patches = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5)
        count = (config.image_size // patch) ** 2 + 1
        self.positions = nn.Parameter(torch.randn(count, width) * width**-0.5)
        self.norm_pre = nn.LayerNorm(width)
        ratio = config.mlp_ratio
        self.blocks = nn.Sequential(
            *(
                Block(width, config.heads, mlp_ratio=ratio, quick_gelu=quick_gelu)
                for _ in range(config.layers)
            )
        )
        self.pooler = AttentionalPooler(config, embed_dim) if config.attentional_pool else None
        self.norm_post = nn.LayerNorm(pooled)
        self.projection = nn.Linear(pooled, embed_dim, bias=False)

    def trunk(self, images: Tensor) -> TrunkOutput:
        x = self.patches(images).flatten(2).transpose(1, 2)  # [B, 3, H, W] -> [B, N, D]
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1) + self.positions
        x = self.blocks(self.norm_pre(x))
        x = self.norm_post(x if self.pooler is None else self.pooler(x))
        memory = x if self.pooler is None else x[:, 1:]
        return TrunkOutput(x[:, 0], memory, torch.ones(len(x), 1, dtype=torch.bool, device=x.device))

    def project(self, out: TrunkOutput) -> Tensor:
        return F.normalize(self.projection(out.pooled).float(), dim=-1)

    def tokens(self, out: TrunkOutput) -> Tensor:
        return out.memory


class CNN(ImageEncoder):
    """An EfficientNet-Lite, locked as far as one likes; features of every stage and of colour; a trained head.

    pooled: 1280 of the head map, means (and, from stage 2 on, deviations) of the end of every stage, means of the last
    one in each of `pool_grid` x `pool_grid` cells, colour.
    memory: 17 tokens: the mean of the head map and its 4 x 4 average, 1280 wide. With `summary_tokens` the decoder gets
    two more, made of the pooled features and of the picture's place in the shared space.
    """

    GRID = 4
    place_scale: float
    """Makes the numbers of a unit vector about 1 each."""
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: ImageConfig, embed_dim: int) -> None:
        super().__init__()
        self.token_width = config.token_width
        self.place_scale = embed_dim**0.5
        self.features = EfficientNetLite()
        self.register_buffer("pixel_mean", torch.tensor(config.mean)[:, None, None], persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.std)[:, None, None], persistent=False)
        stem, first, *rest = self.features.stage_widths
        self.pool_grid = config.pool_grid
        cells = self.pool_grid**2 * rest[-1]
        self.pooled_width = HEAD_WIDTH + stem + first + 2 * sum(rest) + cells + COLOUR_WIDTH
        self.projection = ProjectionHead(self.pooled_width, config.head_width, embed_dim)
        self.token_projection = nn.Linear(HEAD_WIDTH, config.token_width)
        self.colour_projection = nn.Linear(COLOUR_WIDTH, config.token_width)
        self.summary_projection = nn.ModuleList()
        if config.summary_tokens:
            widths = (self.pooled_width, embed_dim)
            self.summary_projection = nn.ModuleList(nn.Linear(width, config.token_width) for width in widths)

    def trunk(self, images: Tensor) -> TrunkOutput:
        return self.rest(self.front(images, 0), 0)

    def front(self, images: Tensor, stages: int) -> Front:
        """The trunk as far as the end of its first `stages` stages."""
        weight = self.features.stem.weight
        x = images.to(weight.dtype).contiguous(memory_format=torch.channels_last)
        maps = self.features.first(x, stages)
        parts = _all_moments(maps, 0)
        small = F.adaptive_avg_pool2d(images.float(), SIDE)  # the few that count are put to scale
        parts.append(colour_features(small * self.pixel_std + self.pixel_mean))
        return Front(maps[-1], torch.cat(parts, dim=1))

    def rest(self, front: Front, stages: int) -> TrunkOutput:
        """What the trunk makes of what its first `stages` stages made."""
        maps, top = self.features.later(front.maps, stages)  # top [B, 1280, 7, 7]
        grid = F.adaptive_avg_pool2d(top, self.GRID).flatten(2).transpose(1, 2).float()  # [B, 16, 1280]
        mean = top.float().mean((2, 3))
        early, colour = front.pooled[:, :-COLOUR_WIDTH], front.pooled[:, -COLOUR_WIDTH:]
        parts = [mean, early, *_all_moments(maps, stages + 1)]
        if self.pool_grid:
            last = (maps or [front.maps])[-1].float()
            parts.append(F.adaptive_avg_pool2d(last, self.pool_grid).flatten(1))
        pooled = torch.cat([*parts, colour], dim=1)
        memory = torch.cat([mean[:, None], grid], dim=1)
        present = torch.ones(len(top), 1, dtype=torch.bool, device=top.device)
        return TrunkOutput(pooled, memory, present)

    def project(self, out: TrunkOutput) -> Tensor:
        features: Tensor = self.projection(self.projection.standardise(out.pooled))
        return features

    def tokens(self, out: TrunkOutput) -> Tensor:
        pooled = self.projection.standardise(out.pooled)
        seen = self.projection.in_dropout(pooled)
        tokens: Tensor = self.token_projection(self.projection.in_dropout(out.memory))
        first = tokens[:, :1] + self.colour_projection(seen[:, -COLOUR_WIDTH:])[:, None]
        if not self.summary_projection:
            return torch.cat([first, tokens[:, 1:]], dim=1)
        place = (
            self.projection(pooled).detach() * self.place_scale
        )  # the space is not bent for the decoder's sake
        summaries = zip(self.summary_projection, (seen, place), strict=True)
        return torch.cat([first, tokens[:, 1:], *(layer(x)[:, None] for layer, x in summaries)], dim=1)


def _all_moments(maps: Sequence[Tensor], first: int) -> list[Tensor]:
    """Of the ends of stages, the stem's being number 0 and those given beginning with number `first`."""
    return [part for i, end in enumerate(maps, first) for part in _moments(end, deviation=i >= 2)]


def _moments(maps: Tensor, *, deviation: bool) -> list[Tensor]:
    """Means [B, C] of channels-last maps, and deviations when asked for, in fp32.

    Sums of x and x² over NHWC rows: `std` on channels-last maps is several times slower.
    """
    rows = maps.permute(0, 2, 3, 1).flatten(1, 2)  # [B, HW, C], a view
    mean = rows.mean(1, dtype=torch.float32)
    if not deviation:
        return [mean]
    square = rows.square().mean(1, dtype=torch.float32)
    # at 0 a root has no slope: one flat map would make all gradients of an unlocked trunk nan
    return [mean, (square - mean.square()).clamp_min(1e-12).sqrt()]


def image_encoder(config: ImageConfig, embed_dim: int, *, quick_gelu: bool = False) -> ImageEncoder:
    if config.kind == "open_clip":
        raise ValueError("vision_cfg.kind open_clip: such a model is loaded by its name, not built")
    return CNN(config, embed_dim) if config.kind == "cnn" else ViT(config, embed_dim, quick_gelu=quick_gelu)
