"""Captions rewarded for what they are measured by: self-critical training (Rennie et al. 2017) with CIDEr-D, each of
several sampled captions against the mean of the others (Luo 2020, "A better variant of self-critical training").
"""

# B pictures, S samples of each, T words, N image tokens, V vocabulary

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from textmm.caption_metrics import caption_words
from textmm.draft import Decoder, Draft

Vector = dict[tuple[str, ...], float]
LONGEST, SIGMA = 4, 6.0
END = "</s>"
"""Counts as a word: or captions that stop in the middle ("a dog on a") would be as good."""


class CiderReward:
    """CIDEr-D of a caption against the sentences of its picture, with the n-gram weights of all sentences."""

    def __init__(self, sentences: Mapping[int, Sequence[str]]) -> None:
        """`sentences` by picture id."""
        counted = {i: [_ngrams(text) for text in texts] for i, texts in sentences.items()}
        pictures_with: Counter[tuple[str, ...]] = Counter()
        for own in counted.values():
            pictures_with.update({ngram for counts in own for ngram in counts})
        most = math.log(max(1, len(sentences)))
        self._weights = {ngram: most - math.log(n) for ngram, n in pictures_with.items()}
        self._unknown = most
        self._references = {i: [self._vector(c) for c in own] for i, own in counted.items()}

    def __call__(self, picture_id: int, caption: str) -> float:
        own, squares, length = self._vector(_ngrams(caption))
        references = self._references[picture_id]
        total = 0.0
        for reference, reference_squares, reference_length in references:
            dots = [0.0] * LONGEST
            for ngram, weight in own.items():
                there = reference.get(ngram)
                if there is not None:
                    dots[len(ngram) - 1] += min(weight, there) * there
            norms = (math.sqrt(a * b) for a, b in zip(squares, reference_squares, strict=True))
            cosine = sum(d / n for d, n in zip(dots, norms, strict=True) if n > 0) / LONGEST
            total += cosine * math.exp(-((length - reference_length) ** 2) / (2 * SIGMA**2))
        return 10 * total / len(references)

    def _vector(self, counts: Counter[tuple[str, ...]]) -> tuple[Vector, list[float], int]:
        """(tf-idf weights, their sums of squares by n, length)"""
        vector = {ngram: n * self._weights.get(ngram, self._unknown) for ngram, n in counts.items()}
        squares = [0.0] * LONGEST
        for ngram, weight in vector.items():
            squares[len(ngram) - 1] += weight * weight
        return vector, squares, sum(n for ngram, n in counts.items() if len(ngram) == 1)


def _ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = [*caption_words(text), END]
    return Counter(tuple(words[i : i + n]) for n in range(1, LONGEST + 1) for i in range(len(words) - n + 1))


@torch.no_grad()
def sample_words(
    decoder: Decoder,
    image_tokens: Tensor,
    *,
    samples: int,
    start: int,
    end: int,
    pad: int,
    length: int,
    never: Sequence[int],
) -> Tensor:
    """Words drawn at random from what the decoder expects: image tokens [B, N, D] -> ids [B S, T], `start` first, `pad`
    after `end`. Samples of a picture are neighbours. `never`: ids that are not drawn."""
    batch, device = len(image_tokens), image_tokens.device
    draft = Draft(decoder, image_tokens, [[start]] * batch, length)
    logits = decoder.logits(draft.last).float()[:, None].repeat(1, samples, 1)  # [B, S, V]
    words = torch.full((batch * samples, 1), start, device=device)
    done = torch.zeros(len(words), dtype=torch.bool, device=device)
    for count in range(length - 1):
        logits[:, :, list(never)] = -torch.inf
        drawn = torch.multinomial(torch.softmax(logits.flatten(0, 1), dim=-1), 1)[:, 0].masked_fill(done, pad)
        words = torch.cat([words, drawn[:, None]], dim=1)
        done |= drawn == end
        if bool(done.all()) or count == length - 2:
            break
        logits = draft.grow(drawn.view(batch, samples), count)
    return words


def reinforced_loss(logits: Tensor, words: Tensor, rewards: Tensor, *, pad: int) -> Tensor:
    """-(reward - the mean reward of the picture's other samples) · log p(word), mean over the words.

    logits [B S, T, V] of the words that follow, words [B S, T] with their start, rewards [B, S].
    """
    samples = rewards.shape[1]
    others = (rewards.sum(1, keepdim=True) - rewards) / (samples - 1)
    advantage = (rewards - others).flatten()  # [B S]
    real = words[:, 1:] != pad
    log_p = -F.cross_entropy(logits[:, :-1].float().transpose(1, 2), words[:, 1:], reduction="none")
    return -(advantage[:, None] * log_p)[real].mean()
