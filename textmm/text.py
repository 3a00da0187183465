"""TextEncoder: token ids to features and tokens; causal, BERT-like and sentence trunks behind one interface."""

# B batch, T tokens, D width, E embed_dim

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textmm.bert import Bert
from textmm.config import TextConfig
from textmm.image import Encoded, TrunkOutput
from textmm.layers import Block, ProjectionHead
from textmm.sentence import SentenceEncoder

Tokens = tuple[Tensor, ...]
"""int64 [B, T] for each trunk of a model: one of them, or two for a `pair`."""


class TextEncoder(nn.Module):
    """tokens -> features [B, E] and tokens [B, T, D]; `trunk` then `project`, as in ImageEncoder."""

    pooled_width: int

    def trunk(self, tokens: Tokens) -> TrunkOutput:
        raise NotImplementedError

    def project(self, out: TrunkOutput) -> Tensor:
        """Features [B, E], float32, L2-normalised."""
        raise NotImplementedError

    def meaning(self, out: TrunkOutput) -> Tensor:
        """[B, pooled_width]: what the trunk makes of the text, each number about 1 in size."""
        return out.pooled

    def skim(self, tokens: Tokens) -> Tensor:
        """Features [B, E] as `forward` has them, or less exact ones that cost less."""
        features: Tensor = self(tokens).features
        return features

    def forward(self, tokens: Tokens) -> Encoded:
        out = self.trunk(tokens)
        return Encoded(self.project(out), out.memory)


class CausalText(TextEncoder):
    """CLIP's text tower (Radford et al. 2021): causal Transformer, pooled at the end token.

    The end token has the largest id of a text, which is how CLIP finds it too.
    """

    def __init__(self, config: TextConfig, embed_dim: int, *, quick_gelu: bool = False) -> None:
        super().__init__()
        width, ratio = config.width, config.mlp_ratio
        self.pooled_width = width
        self.word = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Parameter(torch.randn(config.context_length + config.embed_cls, width) * 0.01)
        self.blocks = nn.Sequential(
            *(
                Block(width, config.heads, causal=True, mlp_ratio=ratio, quick_gelu=quick_gelu)
                for _ in range(config.layers)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, embed_dim, bias=False)
        nn.init.normal_(self.word.weight, std=0.02)

    def trunk(self, tokens: Tokens) -> TrunkOutput:
        (ids,) = tokens
        x = self.norm(self.blocks(self.word(ids) + self.positions[: ids.shape[1]]))  # [B, T, D]
        pooled = x[torch.arange(len(x), device=x.device), ids.argmax(dim=1)]
        return TrunkOutput(pooled, x, torch.ones(len(x), 1, dtype=torch.bool, device=x.device))

    def project(self, out: TrunkOutput) -> Tensor:
        return F.normalize(self.projection(out.pooled).float(), dim=-1)


class PretrainedText(TextEncoder):
    """One or two locked trunks (BERT-like, sentence) side by side under one trained head.

    In training each part of the features is now and then left out, the rest scaled up to keep its size, so
    that the head works on either: a text that a trunk cannot read comes with no tokens for that trunk.
    """

    LEAVE_OUT = 0.25

    def __init__(self, config: TextConfig, embed_dim: int) -> None:
        super().__init__()
        kinds = {"bert": ("bert",), "sentence": ("sentence",), "pair": ("bert", "sentence")}[config.kind]
        self.trunks = nn.ModuleList(Bert() if kind == "bert" else SentenceEncoder() for kind in kinds)
        self.widths = [int(trunk.width) for trunk in self.trunks]  # type: ignore[arg-type]
        self.pooled_width = sum(self.widths)
        self.projection = ProjectionHead(self.pooled_width, config.head_width, embed_dim)

    def trunk(self, tokens: Tokens) -> TrunkOutput:
        parts, states, present = [], [], []
        for trunk, ids in zip(self.trunks, tokens, strict=True):
            is_sentence = isinstance(trunk, SentenceEncoder)
            there = (ids >= 0).any(1) if is_sentence else (ids > 0).any(1)
            pooled, hidden = self._run(trunk, ids, there)
            parts.append(pooled)
            states.append(hidden)
            present.append(there)
        memory = max(states, key=lambda x: x.shape[1])
        return TrunkOutput(torch.cat(parts, dim=1), memory, torch.stack(present, dim=1))

    def _run(self, trunk: nn.Module, ids: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Features and states of one trunk, zeros for rows without tokens (which it never sees)."""
        width = int(trunk.width)  # type: ignore[arg-type]
        if not bool(there.any()):
            return torch.zeros(len(ids), width, device=ids.device), torch.zeros(len(ids), 0, width)
        if bool(there.all()):
            return _pooled(trunk, ids)
        pooled, hidden = _pooled(trunk, ids[there])
        all_pooled = pooled.new_zeros(len(ids), pooled.shape[1])
        all_hidden = hidden.new_zeros(len(ids), *hidden.shape[1:])
        all_pooled[there], all_hidden[there] = pooled, hidden
        return all_pooled, all_hidden

    def project(self, out: TrunkOutput) -> Tensor:
        features: Tensor = self.projection(self.meaning(out))
        return features

    def skim(self, tokens: Tokens) -> Tensor:
        """Of a pair the sentence trunk alone reads, at a third of the cost, and less of texts much alike."""
        trunk, ids = self.trunks[-1], tokens[-1]
        if len(self.trunks) == 1 or not isinstance(trunk, SentenceEncoder):
            return super().skim(tokens)
        there = (ids >= 0).any(1)
        pooled = torch.zeros(len(ids), self.pooled_width, device=ids.device)
        pooled[there, -int(trunk.width) :] = trunk.features(ids[there])
        present = torch.stack([torch.zeros_like(there), there], dim=1)
        return self.project(TrunkOutput(pooled, pooled.new_zeros(len(ids), 0, 1), present))

    def meaning(self, out: TrunkOutput) -> Tensor:
        present = out.present
        if self.training and len(self.widths) == 2:
            present = present & _leave_out(present, self.LEAVE_OUT)
        x = self.projection.standardise(out.pooled)
        widths = torch.tensor(self.widths, device=x.device)
        mask = present.repeat_interleave(widths, dim=1)  # [B, sum of widths]
        kept = (present * widths).sum(1, keepdim=True).clamp_min(1)
        return x * mask * (widths.sum() / kept).sqrt()


def _pooled(trunk: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(trunk, SentenceEncoder):
        states, features = trunk(ids)
        return features, states
    assert isinstance(trunk, Bert)
    hidden = trunk(ids)
    return trunk.pool(hidden, ids), hidden


def _leave_out(present: Tensor, share: float) -> Tensor:
    """[B, 2] bool, False for a part left out; a row that has one part only keeps it."""
    draw = torch.rand(len(present), device=present.device)
    keep = torch.stack([draw > share, draw < 1 - share], dim=1)
    return keep | ~present.all(1, keepdim=True)


class ClassTokenText(CausalText):
    """CoCa's text tower, which open_clip made so: a class token after the words stands for the text.

    It takes the last position of all, however short the text is. Key i of the attention is seen where the word before
    it is no padding (id 0): open_clip's weights were trained with the mask shifted by one, so what was meant to hide
    padding hides the place after it. Tokens are the states of the words, before the last norm.
    """

    def __init__(self, config: TextConfig, embed_dim: int, *, quick_gelu: bool = False) -> None:
        super().__init__(config, embed_dim, quick_gelu=quick_gelu)
        self.class_token = nn.Parameter(torch.randn(config.width) * 0.01)

    @property
    def context_length(self) -> int:
        return len(self.positions) - 1

    def trunk(self, tokens: Tokens) -> TrunkOutput:
        (ids,) = tokens
        if ids.shape[1] < self.context_length:
            ids = F.pad(ids, (0, 1))  # the first padding is seen, what follows is not: it may be left out
        x = self.word(ids) + self.positions[: ids.shape[1]]
        last = (self.class_token + self.positions[-1]).expand(len(ids), 1, -1)
        x = torch.cat([x, last], dim=1)  # [B, T + 1, D]
        mask = shifted_mask(ids, x.shape[1])
        for block in self.blocks:
            assert isinstance(block, Block)
            y = block.norm1(x)
            x = block.attend(x, y, block.attention.keys_values(y), mask=mask)
        words = x[:, : tokens[0].shape[1]]
        present = torch.ones(len(x), 1, dtype=torch.bool, device=x.device)
        return TrunkOutput(self.norm(x[:, -1]), words, present)


def shifted_mask(ids: Tensor, length: int) -> Tensor:
    """[B, 1, length, length] bool: what each place may see of ids [B, T], T >= length - 1 (see ClassTokenText)."""
    shown = F.pad(ids != 0, (1, 0), value=True)[:, :length]  # key i by word i - 1
    causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    return (shown[:, None] & causal)[:, None]


def text_encoder(config: TextConfig, embed_dim: int, *, quick_gelu: bool = False) -> TextEncoder:
    if config.kind != "causal":
        return PretrainedText(config, embed_dim)
    tower = ClassTokenText if config.embed_cls else CausalText
    return tower(config, embed_dim, quick_gelu=quick_gelu)
