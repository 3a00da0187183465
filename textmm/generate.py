"""Words about pictures: greedy, beam and sampled decoding with a cache, and how likely given answers are."""

# B pictures still open, K beams, N image tokens, T words so far, A answers, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from textmm.draft import Decoder, Draft

NEVER = float("-inf")
SCORED_AT_ONCE = 512
"""Words whose logits are held in memory at a time when answers are scored."""
SEEN_AT_ONCE = 512
"""Words of a picture's answers that are read together, padding among them."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How to decode: greedily (one beam), by beams, or, with a temperature, by sampling."""

    start_token_id: int
    end_token_id: int
    pad_token_id: int
    never: tuple[int, ...] = ()
    """Other words that never come, as padding and the start token never do."""
    beams: int = 3
    min_length: int = 0
    """Words at least before the end token may come; those of the prompt are not counted."""
    max_length: int = 40
    """Tokens at most, those of the prompt (or the start token) and the end token counted."""
    length_penalty: float = 0.9
    """A beam's score is its log probability over its length to this power."""
    repetition_penalty: float = 1.0
    """Logits of words that have come (the prompt's are not among them) are divided by it where they are positive and
    multiplied where negative, as in CTRL (Keskar et al. 2019)."""
    temperature: float = 0.0
    """Above 0: each word is drawn, from the softmax of logits over it. 0: the best is taken."""
    top_p: float = 1.0
    """Drawn are only the most probable words that together reach this probability (Holtzman et al. 2020)."""
    early_stopping: bool = False
    """A search by beams ends with as many finished beams as it has beams, though an open one might still beat them."""
    seed: int = 0
    """Of the draws, the same for every picture: what is drawn for one does not depend on its batch."""

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ValueError(f"beams must be at least 1, got {self.beams}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, and finite, got {self.temperature}")
        if self.temperature > 0 and self.beams > 1:
            raise ValueError(
                f"sampling (temperature {self.temperature}) goes with one beam, got {self.beams}"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.length_penalty < 0:
            raise ValueError(f"length_penalty must be 0 or more, got {self.length_penalty}")
        if self.repetition_penalty < 1:
            raise ValueError(f"repetition_penalty must be at least 1, got {self.repetition_penalty}")
        if not 0 <= self.min_length < self.max_length:
            raise ValueError(f"min_length must be below max_length {self.max_length}, got {self.min_length}")


@dataclass(frozen=True)
class Candidate:
    words: list[int]
    """Without those of the prompt and the end token."""
    score: float
    """Log probability over length to the power `length_penalty`."""


@torch.inference_mode()
def decode(
    decoder: Decoder,
    image_tokens: Tensor,
    decoding: Decoding,
    *,
    prompts: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """The word ids found for each picture [B, N, D], in order, without those of its prompt and the end token.

    A prompt is the words that come before, beginning with a start token; without prompts, the start token alone.
    Prompts of different lengths may share a batch. A picture that has its words leaves the batch; a beam search ends
    when no open beam can beat its best finished one, or as `early_stopping` says. ValueError for a prompt that
    leaves no room.
    """
    if not len(image_tokens):
        return []
    draft = _draft(decoder, image_tokens, decoding, prompts)
    if decoding.beams > 1:
        return [found[0].words for found in _by_beams(draft, decoding)]
    return _word_by_word(draft, decoding)


@torch.inference_mode()
def candidates(decoder: Decoder, image_tokens: Tensor, decoding: Decoding) -> list[list[Candidate]]:
    """What a beam search finished for each picture [B, N, D], the best first, `beams` at most; beams that have no room
    to go on count as finished. The first is what `decode` gives. ValueError for a decoding without beams.
    """
    if decoding.beams < 2:
        raise ValueError(
            f"candidates are those of a beam search, of two beams at least, got {decoding.beams}"
        )
    if not len(image_tokens):
        return []
    return _by_beams(_draft(decoder, image_tokens, decoding, None), decoding)


def _draft(
    decoder: Decoder, image_tokens: Tensor, decoding: Decoding, prompts: Sequence[Sequence[int]] | None
) -> Draft:
    limit = min(decoding.max_length, decoder.context_length)
    if prompts is None:
        prompts = [[decoding.start_token_id]] * len(image_tokens)
    _check_prompts(prompts, len(image_tokens), limit)
    return Draft(decoder, image_tokens, prompts, limit)


@torch.inference_mode()
def score(
    decoder: Decoder,
    image_tokens: Tensor,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[Sequence[int]]],
) -> list[list[float]]:
    """Log probabilities of each picture's answers, each after the picture's prompt: sums over the answer's words.

    Image tokens [B, N, D], a prompt each (beginning with a start token), any number of answers each. An answer that
    ends with the end token is scored as a whole, one without as a beginning. A picture and its prompt are gone through
    once for every SEEN_AT_ONCE words of its answers. ValueError when prompt and answer, its last word not counted, are
    longer than the decoder's context, or an answer has no words.
    """
    _check_prompts(prompts, len(image_tokens), decoder.context_length)
    _check_answers(prompts, answers, decoder.context_length)
    longest = max((len(answer) for of_one in answers for answer in of_one), default=0)
    if not longest:
        return [[] for _ in answers]
    most, device = max(map(len, answers)), image_tokens.device
    some = max(1, SEEN_AT_ONCE // longest)
    if most > some:  # each word of all answers has a place in a mask over all of them
        starts = range(0, most, some)
        found = [score(decoder, image_tokens, prompts, [a[i : i + some] for a in answers]) for i in starts]
        return [[p for part in found for p in part[row]] for row in range(len(answers))]
    draft = Draft(decoder, image_tokens, prompts, decoder.context_length)
    words = torch.full((len(answers), most, longest), -1)  # [B, A, T]
    for row, of_one in enumerate(answers):
        for at, answer in enumerate(of_one):
            words[row, at, : len(answer)] = torch.tensor(answer)
    words = words.to(device)
    states = draft.states_of(words.clamp_min(0))  # [B, A, T, D]: what each word's successor follows from
    before = torch.cat([draft.last[:, None, None].expand(-1, most, 1, -1), states[:, :, :-1]], dim=2)
    real = words >= 0
    n = SCORED_AT_ONCE
    parts = zip(torch.split(before[real], n), torch.split(words[real], n), strict=True)
    log_p = words.new_zeros(words.shape, dtype=torch.float32)
    log_p[real] = torch.cat([_log_probabilities(decoder, part, of) for part, of in parts])
    rows = log_p.sum(2).tolist()
    return [row[: len(of_one)] for row, of_one in zip(rows, answers, strict=True)]


def _check_prompts(prompts: Sequence[Sequence[int]], pictures: int, limit: int) -> None:
    if len(prompts) != pictures:
        raise ValueError(f"{pictures} pictures need as many prompts, got {len(prompts)}")
    for prompt in prompts:
        if not 1 <= len(prompt) < limit:
            raise ValueError(f"a prompt must have 1 to {limit - 1} words to leave room, got {len(prompt)}")


def _check_answers(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]], limit: int
) -> None:
    if len(answers) != len(prompts):
        raise ValueError(f"{len(prompts)} pictures need as many lists of answers, got {len(answers)}")
    for prompt, of_one in zip(prompts, answers, strict=True):
        lengths = [len(answer) for answer in of_one]
        if 0 in lengths:
            raise ValueError("an answer has no words: give it the end token at least")
        if lengths and len(prompt) + max(lengths) > limit + 1:  # the last word is never read, as an end token
            raise ValueError(
                f"a prompt of {len(prompt)} words and an answer of {max(lengths)} are more than the decoder's {limit}"
            )


def _log_probabilities(decoder: Decoder, states: Tensor, words: Tensor) -> Tensor:
    """Of the words [n] to come after the states [n, D]."""
    logits = decoder.logits(states).float()
    return logits.gather(1, words[:, None])[:, 0] - logits.logsumexp(1)


def _word_by_word(draft: Draft, decoding: Decoding) -> list[list[int]]:
    out: list[list[int]] = [[] for _ in draft.pictures]
    logits = draft.decoder.logits(draft.last).float()  # [B, V]
    words = logits.new_empty(len(out), 0, dtype=torch.int64)  # [B, T]
    draws = uniform_draws(decoding.seed, draft.decoder.context_length).to(logits.device)
    count = 0
    while True:
        _allow(_penalise(logits, words, decoding), count, decoding)
        if decoding.temperature > 0:
            word = _sample(logits / decoding.temperature, decoding.top_p, draws[count].expand(len(logits)))
        else:
            word = logits.argmax(1)
        words = torch.cat([words, word[:, None]], dim=1)
        count += 1
        done = (word == decoding.end_token_id) | (draft.room == count)
        if bool(done.any()):
            for row, ids in zip(draft.pictures[done].tolist(), words[done].tolist(), strict=True):
                out[row] = ids[:-1] if ids[-1] == decoding.end_token_id else ids
            rows = (~done).nonzero()[:, 0]
            if not len(rows):
                return out
            words = words[rows]
            draft.keep(rows)
        logits = draft.grow(words[:, -1:], count - 1)[:, 0]


def uniform_draws(seed: int, length: int) -> Tensor:
    """What sampling takes for word t of any picture: float64 [length]."""
    return torch.rand(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _sample(logits: Tensor, top_p: float, draws: Tensor) -> Tensor:
    """A word of each row [B, V]: where its draw [B] falls when the probabilities stand in descending order."""
    probabilities, words = logits.softmax(1).sort(dim=1, descending=True, stable=True)
    reached = probabilities.double().cumsum(1)
    kept = (reached - probabilities < top_p).sum(1, keepdim=True)  # the one that reaches top_p is kept
    mass = reached.gather(1, kept - 1)
    place = torch.searchsorted(reached, draws[:, None] * mass, right=True)
    return words.gather(1, torch.minimum(place, kept - 1))[:, 0]


def _by_beams(draft: Draft, decoding: Decoding) -> list[list[Candidate]]:
    search = _Finished(len(draft.pictures), decoding)
    logits = draft.decoder.logits(draft.last).float()[:, None]  # [B, 1, V]: the prompt is one beam
    words = logits.new_empty(len(logits), 1, 0, dtype=torch.int64)  # [B, K, T]
    scores = logits.new_zeros(len(logits), 1)  # [B, K]
    count = 0
    while True:
        scores, parents, word = _best(logits, words, scores, decoding)
        own = words.gather(1, parents[:, :, None].expand(-1, -1, count))
        words = torch.cat([own, word[:, :, None]], dim=2)
        count += 1
        scores = search.take(draft.pictures, words, scores)
        settled, full = search.settled(draft.pictures, scores, draft.room), draft.room == count
        done = settled | full
        if bool(done.any()):
            cut = full & ~settled
            search.close(draft.pictures[cut], words[cut], scores[cut])
            rows = (~done).nonzero()[:, 0]
            if not len(rows):
                return search.found
            words, scores, parents = words[rows], scores[rows], parents[rows]
            draft.keep(rows)
        if count > 1:
            draft.follow(parents)
        logits = draft.grow(words[:, :, -1], count - 1)


def _best(logits: Tensor, words: Tensor, scores: Tensor, decoding: Decoding) -> tuple[Tensor, Tensor, Tensor]:
    """The best `beams` continuations of each picture: their scores, beams they come from and words, each [B, K].

    A beam's own best K words are all that can be among the best K of its picture, so that only those few logits become
    log probabilities.
    """
    beams = decoding.beams
    total = _penalise(logits, words, decoding).logsumexp(2, keepdim=True)
    _allow(logits, words.shape[2], decoding)
    top, word = logits.topk(min(beams, logits.shape[2]), dim=2)
    candidates = (scores[:, :, None] + (top - total)).flatten(1)
    scores, at = candidates.topk(beams, dim=1)
    return scores, at // top.shape[2], word.flatten(1).gather(1, at)


class _Finished:
    """The best finished beams of every picture so far."""

    def __init__(self, pictures: int, decoding: Decoding) -> None:
        self._decoding = decoding
        self.found: list[list[Candidate]] = [[] for _ in range(pictures)]
        """Of each picture, the best first, `beams` at most."""

    def take(self, pictures: Tensor, words: Tensor, scores: Tensor) -> Tensor:
        """Remember beams [B, K, T] that ended just now; their scores become too low to go on with."""
        ended = (words[:, :, -1] == self._decoding.end_token_id) & (scores > NEVER)
        if bool(ended.any()):
            rows, beams = ended.nonzero(as_tuple=True)
            said = zip(
                pictures[rows].tolist(),
                (scores[rows, beams] / self._length(words)).tolist(),
                words[rows, beams].tolist(),
                strict=True,
            )
            for picture, score, ids in said:
                found = self.found[picture]
                found.append(Candidate(ids[:-1], score))
                found.sort(key=lambda one: -one.score)  # of equals the one that ended first stays ahead
                del found[self._decoding.beams :]
        return scores.masked_fill(ended, NEVER)

    def settled(self, pictures: Tensor, scores: Tensor, room: Tensor) -> Tensor:
        """Which pictures are done, bool [B]: they have all they are to have, or no open beam that could still win, as
        scores only fall while a beam grows."""
        longest = room.to(scores.dtype) ** self._decoding.length_penalty
        found = [self.found[picture] for picture in pictures.tolist()]
        best = torch.tensor([one[0].score if one else NEVER for one in found], device=scores.device)
        done = (best > NEVER) & (scores.max(1).values / longest <= best)
        if self._decoding.early_stopping:
            full = [len(of_one) == self._decoding.beams for of_one in found]
            done |= torch.tensor(full, device=scores.device)
        return done

    def close(self, pictures: Tensor, words: Tensor, scores: Tensor) -> None:
        """Pictures [n] that have no room to grow: their open beams [n, K, T] count as finished ones."""
        rows = zip(pictures.tolist(), words.tolist(), (scores / self._length(words)).tolist(), strict=True)
        for picture, beams, totals in rows:
            pairs = zip(beams, totals, strict=True)
            found = self.found[picture]
            found += [Candidate(ids, total) for ids, total in pairs if total > NEVER]
            found.sort(key=lambda one: -one.score)
            del found[self._decoding.beams :]

    def _length(self, words: Tensor) -> float:
        """What log probabilities of beams [.., T] are divided by."""
        return float(words.shape[-1] ** self._decoding.length_penalty)


def _penalise(logits: Tensor, words: Tensor, decoding: Decoding) -> Tensor:
    """The logits [..., V], in place, with the repetition penalty for the words so far [..., T]."""
    penalty = decoding.repetition_penalty
    if penalty > 1 and words.shape[-1]:
        came = logits.gather(-1, words)
        logits.scatter_(-1, words, torch.where(came > 0, came / penalty, came * penalty))
    return logits


def _allow(logits: Tensor, count: int, decoding: Decoding) -> None:
    """Rule out, in place, what may not come after `count` words."""
    for word in (decoding.pad_token_id, decoding.start_token_id, *decoding.never):
        logits[..., word] = NEVER
    if count < decoding.min_length:
        logits[..., decoding.end_token_id] = NEVER
