"""Captions from image tokens: greedy and beam decoding with a cache of keys and values."""

# B pictures, K beams, N image tokens, T words so far, V vocabulary

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from textmm.fusion import LayerCache, TextDecoder

NEVER = -1e9


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How to decode."""

    start_token_id: int
    end_token_id: int
    pad_token_id: int
    beams: int = 3
    max_length: int = 40
    """Tokens at most, the start and end tokens counted."""
    length_penalty: float = 0.9
    """A beam's score is its log probability over its length to this power."""

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ValueError(f"beams must be at least 1, got {self.beams}")


@torch.inference_mode()
def decode(decoder: TextDecoder, image_tokens: Tensor, decoding: Decoding) -> list[list[int]]:
    """The best word ids of each picture [B, N, D], without start and end tokens.

    One beam is greedy decoding. A picture's search stops when no open beam can beat its best finished one.
    """
    batch, beams = len(image_tokens), decoding.beams
    length = min(decoding.max_length, decoder.positions.shape[0])
    cache = decoder.start(image_tokens)
    words = torch.full((batch, 1), decoding.start_token_id, device=image_tokens.device)
    logits = decoder.step(words, cache, position=0)[:, -1]
    scores, first = _log_probabilities(logits, decoding).topk(beams, dim=1)  # [B, K]
    _spread(cache, batch, beams)
    words = torch.cat([words.repeat_interleave(beams, 0), first.flatten()[:, None]], dim=1)  # [B K, T]
    search = _Search(batch, decoding)
    scores = search.take_finished(words.view(batch, beams, -1), scores)
    for position in range(1, length - 1):
        if search.settled(scores, position):
            break
        logits = decoder.step(words[:, -1:], cache, position=position)[:, -1]
        log_p = _log_probabilities(logits, decoding).view(batch, beams, -1)  # [B, K, V]
        total = (scores.unsqueeze(-1) + log_p).flatten(1)
        scores, flat = total.topk(beams, dim=1)  # [B, K] over K V
        rows = (flat // log_p.shape[-1] + torch.arange(batch, device=flat.device)[:, None] * beams).flatten()
        words = torch.cat([words[rows], (flat % log_p.shape[-1]).flatten()[:, None]], dim=1)
        for layer in cache:
            layer.select(rows, image=False)
        scores = search.take_finished(words.view(batch, beams, -1), scores)
    return search.best(words.view(batch, beams, -1), scores)


class _Search:
    """The best finished beam of every picture so far."""

    def __init__(self, batch: int, decoding: Decoding) -> None:
        self._decoding = decoding
        self._best: list[tuple[float, list[int]] | None] = [None] * batch

    def take_finished(self, words: Tensor, scores: Tensor) -> Tensor:
        """Remember the beams [B, K, T] that ended; their scores become too low to go on with."""
        ended = words[:, :, -1] == self._decoding.end_token_id
        for row, beam in ended.nonzero().tolist():
            score = float(scores[row, beam])
            if score <= NEVER / 2:
                continue
            ids = words[row, beam, 1:-1].tolist()
            self._keep(row, self._normalised(score, len(ids) + 1), ids)
        return scores.masked_fill(ended, NEVER)

    def settled(self, scores: Tensor, length: int) -> bool:
        """Whether no picture has an open beam that could still win (scores only fall as a beam grows)."""
        top = scores.max(dim=1).values.tolist()
        longest = self._decoding.max_length
        return all(
            best is not None and self._normalised(score, longest) <= best[0]
            for best, score in zip(self._best, top, strict=True)
        )

    def best(self, words: Tensor, scores: Tensor) -> list[list[int]]:
        """The winners; a picture without a finished beam gives its best open one."""
        out = []
        for row, best in enumerate(self._best):
            if best is None:
                out.append(words[row, int(scores[row].argmax()), 1:].tolist())
            else:
                out.append(best[1])
        return out

    def _keep(self, row: int, score: float, ids: list[int]) -> None:
        best = self._best[row]
        if best is None or score > best[0]:
            self._best[row] = (score, ids)

    def _normalised(self, score: float, length: int) -> float:
        return score / float(length**self._decoding.length_penalty)


def _log_probabilities(logits: Tensor, decoding: Decoding) -> Tensor:
    log_p = torch.log_softmax(logits.float(), dim=-1)
    log_p[..., [decoding.pad_token_id, decoding.start_token_id]] = NEVER
    return log_p


def _spread(cache: list[LayerCache], batch: int, beams: int) -> None:
    """Every picture's cache once for each of its beams."""
    rows = torch.arange(batch).repeat_interleave(beams)
    for layer in cache:
        layer.select(rows.to(layer.image[0].device), image=True)
