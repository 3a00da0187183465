from collections.abc import Sequence
from dataclasses import replace
from heapq import nlargest
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.drawn import SHAPES, draw
from textmm import checkpoint, generate
from textmm.coca import CoCaDecoder
from textmm.config import DecoderConfig, TextConfig
from textmm.fusion import TextDecoder
from textmm.generate import Decoding, candidates, decode, score, uniform_draws
from textmm.text import ClassTokenText
from textmm.transforms import to_tensor

VOCAB, IMAGE_WIDTH, LENGTH = 14, 6, 9
PAD, START, END = 0, 1, 13
PICTURES = 12
PROMPTS = [[START], [START, 4, 5], [START, 7], [START, 4, 5, 6, 9, 9], [2, 3], [START, 9, 8, 7]] * 2


def opinionated(seed: int = 3) -> TextDecoder:
    """Random but opinionated, so that beams differ, some captions end early and some never."""
    torch.manual_seed(seed)
    config = DecoderConfig(width=16, layers=2, heads=2, vocab_size=VOCAB, context_length=LENGTH)
    decoder = TextDecoder(config, IMAGE_WIDTH).eval()
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.45)
    return decoder


def like_coca(seed: int) -> CoCaDecoder:
    torch.manual_seed(seed)
    text = TextConfig(width=16, layers=2, heads=2, vocab_size=VOCAB, context_length=LENGTH, embed_cls=True)
    config = DecoderConfig(kind="coca", width=16, layers=2, heads=2, vocab_size=VOCAB, context_length=LENGTH)
    tower = ClassTokenText(text, 8)
    decoder = CoCaDecoder(config, tower).eval()
    for parameter in (*tower.eval().parameters(), *decoder.parameters()):
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.45)
    return decoder


@pytest.fixture(scope="module")
def decoder() -> TextDecoder:
    return opinionated()


@pytest.fixture(scope="module")
def image_tokens() -> Tensor:
    return 2 * torch.randn(PICTURES, 4, IMAGE_WIDTH, generator=torch.Generator().manual_seed(4))


def how(beams: int = 1, *, max_length: int = LENGTH, **others: object) -> Decoding:
    ids = {"start_token_id": START, "end_token_id": END, "pad_token_id": PAD}
    return Decoding(**ids, beams=beams, max_length=max_length, **others)  # type: ignore[arg-type]


class Plain:
    """The same search without a cache, a batch, an early stop or tensors: the whole beginning anew for each word."""

    def __init__(
        self, decoder: TextDecoder | CoCaDecoder, image: Tensor, decoding: Decoding, prompt: Sequence[int]
    ) -> None:
        self._decoder, self._image, self._how, self._prompt = decoder, image, decoding, list(prompt)
        self._most = min(decoding.max_length, decoder.context_length) - len(prompt)

    def log_probabilities(self, said: list[int]) -> list[float]:
        return self.of_each([said])[0]

    def of_each(self, beams: list[list[int]]) -> list[list[float]]:
        with torch.no_grad():
            words = torch.tensor([self._prompt + said for said in beams])
            logits = self._decoder(words, self._image.expand(len(beams), -1, -1))[:, -1]
        return [self._allowed(row, said) for row, said in zip(logits, beams, strict=True)]

    def _allowed(self, logits: Tensor, said: list[int]) -> list[float]:
        penalty = self._how.repetition_penalty
        for word in set(said):
            logits[word] = logits[word] / penalty if logits[word] > 0 else logits[word] * penalty
        row: list[float] = logits.log_softmax(0).tolist()
        out = {self._how.pad_token_id, self._how.start_token_id, *self._how.never}
        if len(said) < self._how.min_length:
            out.add(self._how.end_token_id)
        return [float("-inf") if word in out else p for word, p in enumerate(row)]

    def greedy(self) -> list[int]:
        said: list[int] = []
        while len(said) < self._most:
            log_p = self.log_probabilities(said)
            said.append(log_p.index(max(log_p)))
            if said[-1] == self._how.end_token_id:
                return said[:-1]
        return said

    def sampled(self, draws: Sequence[float]) -> list[int]:
        said: list[int] = []
        while len(said) < self._most:
            logits = torch.tensor(self.log_probabilities(said)) / self._how.temperature
            ranked = sorted(enumerate(logits.softmax(0).tolist()), key=lambda pair: -pair[1])
            kept, mass = [], 0.0
            for word, p in ranked:
                if mass >= self._how.top_p:
                    break
                kept.append((word, p))
                mass += p
            reached = accumulate(p for _, p in kept)
            word = next(
                w for (w, _), sum_ in zip(kept, reached, strict=True) if sum_ > draws[len(said)] * mass
            )
            if word == self._how.end_token_id:
                return said
            said.append(word)
        return said

    def beams(self) -> list[int]:
        end, power = self._how.end_token_id, self._how.length_penalty
        open_beams: list[tuple[float, list[int]]] = [(0.0, [])]
        finished: list[tuple[float, list[int]]] = []
        for _ in range(self._most):
            if not open_beams:
                break
            grown = [
                (total + p, said, word)
                for (total, said), log_p in zip(
                    open_beams, self.of_each([said for _, said in open_beams]), strict=True
                )
                for word, p in enumerate(log_p)
            ]
            best = [(total, [*said, word]) for total, said, word in nlargest(self._how.beams, grown)]
            finished += [(total / len(said) ** power, said[:-1]) for total, said in best if said[-1] == end]
            open_beams = [beam for beam in best if beam[1][-1] != end]
            if self._how.early_stopping and len(finished) >= self._how.beams:
                break
        else:  # no room is left: what is open counts as finished
            finished += [(total / len(said) ** power, said) for total, said in open_beams]
        return max(finished)[1]


def plainly(
    decoder: TextDecoder | CoCaDecoder,
    images: Tensor,
    decoding: Decoding,
    prompts: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    prompts = prompts or [[decoding.start_token_id]] * len(images)
    draws = uniform_draws(decoding.seed, decoder.context_length).tolist()
    out = []
    for image, prompt in zip(images, prompts, strict=True):
        plain = Plain(decoder, image, decoding, prompt)
        if decoding.temperature:
            out.append(plain.sampled(draws))
        else:
            out.append(plain.greedy() if decoding.beams == 1 else plain.beams())
    return out


@pytest.mark.parametrize("max_length", [2, 5, LENGTH])
def test_one_beam_is_the_argmax_loop_without_a_cache(
    decoder: TextDecoder, image_tokens: Tensor, max_length: int
) -> None:
    decoding = how(max_length=max_length)

    assert decode(decoder, image_tokens, decoding) == plainly(decoder, image_tokens, decoding)


@pytest.mark.parametrize("length_penalty", [0.0, 0.9, 2.0])
@pytest.mark.parametrize("beams", [3, 6])
def test_beam_search_is_the_plain_search_without_a_cache(
    decoder: TextDecoder, image_tokens: Tensor, beams: int, length_penalty: float
) -> None:
    decoding = how(beams, length_penalty=length_penalty)

    assert decode(decoder, image_tokens, decoding) == plainly(decoder, image_tokens, decoding)


@pytest.mark.parametrize("length_penalty", [0.0, 0.9, 2.0])
@pytest.mark.parametrize("beams", [2, 6])
def test_candidates_of_a_search_are_what_it_finished_the_best_first(
    decoder: TextDecoder, image_tokens: Tensor, beams: int, length_penalty: float
) -> None:
    decoding = how(beams, length_penalty=length_penalty)

    found = candidates(decoder, image_tokens, decoding)

    assert [of_one[0].words for of_one in found] == decode(decoder, image_tokens, decoding)
    assert max(map(len, found)) == beams
    for of_one in found:
        assert len({tuple(one.words) for one in of_one}) == len(of_one)
        assert [one.score for one in of_one] == sorted((one.score for one in of_one), reverse=True)
    ends = [[[*one.words, END][: LENGTH - 1] for one in of_one] for of_one in found]
    for of_one, own, log_p in zip(
        found, ends, score(decoder, image_tokens, [[START]] * PICTURES, ends), strict=True
    ):
        for one, said, p in zip(of_one, own, log_p, strict=True):
            assert one.score == pytest.approx(p / len(said) ** length_penalty, abs=1e-4)


def test_one_beam_has_no_candidates_to_choose_from(decoder: TextDecoder, image_tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="of two beams at least, got 1"):
        candidates(decoder, image_tokens, how(1))


WAYS = {
    "greedy": how(1),
    "beams": how(3),
    "beams until as many are finished": how(3, length_penalty=2.0, early_stopping=True),
    "beams until none can win": how(3, length_penalty=2.0),
    "few words again": how(3, repetition_penalty=1.7),
    "few words again, greedily": how(1, repetition_penalty=1.7),
    "no short ones": how(3, min_length=5),
    "not these": how(3, never=(4, 5)),
    "drawn": how(temperature=1.0, seed=1),
    "drawn from few, warmer": how(temperature=1.5, top_p=0.6, seed=2, repetition_penalty=1.3, min_length=2),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", [3, 11])
def test_every_way_continues_prompts_of_several_lengths_as_it_does_without_a_cache(
    image_tokens: Tensor, seed: int, way: str
) -> None:
    decoder, decoding = opinionated(seed), WAYS[way]
    expected = plainly(decoder, image_tokens, decoding, PROMPTS)

    assert decode(decoder, image_tokens, decoding, prompts=PROMPTS) == expected


@pytest.mark.parametrize("way", ["greedy", "few words again", "drawn"])
def test_cocas_decoder_says_with_a_cache_what_it_says_without(way: str) -> None:
    decoder, images = (
        like_coca(5),
        2 * torch.randn(PICTURES, 4, 16, generator=torch.Generator().manual_seed(6)),
    )
    expected = plainly(decoder, images, WAYS[way], PROMPTS)

    assert decode(decoder, images, WAYS[way], prompts=PROMPTS) == expected
    assert len({len(words) for words in expected}) >= 3


def test_each_rule_makes_a_difference(decoder: TextDecoder, image_tokens: Tensor) -> None:
    """What makes the comparisons above worth something."""
    made = {way: decode(decoder, image_tokens, decoding) for way, decoding in WAYS.items()}

    assert len({str(words) for words in made.values()}) == len(WAYS)
    assert len({len(words) for words in made["beams"]}) >= 3
    assert any(len(words) == LENGTH - 1 for words in made["greedy"])  # some never end
    assert min(map(len, made["no short ones"])) == 5 > min(map(len, made["beams"]))
    assert not {4, 5} & {word for words in made["not these"] for word in words}
    repeated = sum(len(words) - len(set(words)) for words in made["greedy"])
    assert sum(len(words) - len(set(words)) for words in made["few words again, greedily"]) < repeated


@pytest.mark.parametrize("beams", [1, 3, 6])
def test_a_trained_model_says_with_a_cache_what_it_says_without(tiny: Path, beams: int) -> None:
    loaded = checkpoint.load(str(tiny), tiny)
    words, model = loaded.captioner, loaded.model.eval()
    assert words is not None and isinstance(model.decoder, TextDecoder)
    images = [draw(shape, colour) for shape in SHAPES for colour in ("red", "blue")]
    with torch.inference_mode():
        tokens = model.encode_image(to_tensor(images, model.config.vision_cfg)).tokens
    decoding = Decoding(
        start_token_id=words.style_token_id("photo"),
        end_token_id=words.end_token_id,
        pad_token_id=words.pad_token_id,
        never=tuple(words.start_token_ids),
        beams=beams,
        max_length=8,
    )

    assert decode(model.decoder, tokens, decoding) == plainly(model.decoder, tokens, decoding)


@pytest.mark.parametrize("way", ["greedy", "beams", "few words again"])
def test_a_picture_in_a_batch_is_put_into_the_words_that_it_gets_alone(
    decoder: TextDecoder, image_tokens: Tensor, way: str
) -> None:
    alone = [
        decode(decoder, image[None], WAYS[way], prompts=[prompt])[0]
        for image, prompt in zip(image_tokens, PROMPTS, strict=True)
    ]

    assert decode(decoder, image_tokens, WAYS[way], prompts=PROMPTS) == alone


def test_words_are_drawn_as_often_as_they_are_probable(decoder: TextDecoder, image_tokens: Tensor) -> None:
    decoding = how(temperature=1.3, max_length=2)
    times = 2000

    made = [decode(decoder, image_tokens[:1], replace(decoding, seed=seed))[0] for seed in range(times)]

    log_p = torch.tensor(Plain(decoder, image_tokens[0], decoding, [START]).log_probabilities([]))
    expected = (log_p / 1.3).softmax(0)
    counts = torch.bincount(torch.tensor([(words or [END])[0] for words in made]), minlength=VOCAB)
    deviation = (expected * (1 - expected) / times).sqrt()
    assert bool(((counts / times - expected).abs() <= 4 * deviation + 1e-6).all())


def test_another_seed_draws_other_words_and_the_same_seed_the_same(
    decoder: TextDecoder, image_tokens: Tensor
) -> None:
    one, again, other = (decode(decoder, image_tokens, how(temperature=1.0, seed=seed)) for seed in (7, 7, 8))

    assert one == again != other


def test_decoding_stops_when_nothing_open_can_win(image_tokens: Tensor) -> None:
    decoder = opinionated()
    with torch.no_grad():
        decoder.norm.bias.copy_(100 * decoder.word.weight[END])  # always ends at once
    steps: list[int] = []
    decoder.norm.register_forward_hook(lambda *_: steps.append(1))

    captions = decode(decoder, image_tokens, how(3))

    assert captions == [[]] * PICTURES
    assert len(steps) == 1


@pytest.mark.parametrize("beams", [1, 3])
def test_a_picture_that_has_its_words_leaves_the_batch(
    decoder: TextDecoder, image_tokens: Tensor, beams: int
) -> None:
    rows: list[int] = []
    hook = decoder.norm.register_forward_hook(lambda _, __, states: rows.append(len(states)))

    decode(decoder, image_tokens, how(beams))
    hook.remove()

    assert rows[0] == PICTURES
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < PICTURES / 2


def test_no_pictures_give_no_words(decoder: TextDecoder, image_tokens: Tensor) -> None:
    assert decode(decoder, image_tokens[:0], how(3)) == []
    assert score(decoder, image_tokens[:0], [], []) == []


def test_answers_are_scored_as_without_a_cache_word_by_word(
    decoder: TextDecoder, image_tokens: Tensor
) -> None:
    answers = [
        [[4, END], [5, 6, 7], [END]],
        [],
        [[3] * 6 + [END]],
        [[9, 9, END]],
        [[8, END], [8]],
        [[2, 3]],
    ] * 2

    scores = score(decoder, image_tokens, PROMPTS, answers)

    for image, prompt, of_one, got in zip(image_tokens, PROMPTS, answers, scores, strict=True):
        expected = []
        for answer in of_one:
            with torch.inference_mode():
                log_p = decoder(torch.tensor([prompt + answer[:-1]]), image[None])[0].log_softmax(-1)
            places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
            expected.append(float(sum(log_p[t, word] for t, word in zip(places, answer, strict=True))))
        assert got == pytest.approx(expected, abs=1e-4)


def test_answers_that_are_too_many_to_read_together_have_the_same_scores(
    decoder: TextDecoder, image_tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    answers = [
        [[int(w) for w in rng.integers(2, 10, rng.integers(1, 6))] for _ in range(n)]
        for n in rng.integers(0, 12, len(image_tokens))
    ]
    whole = score(decoder, image_tokens, PROMPTS[: len(answers)], answers)

    monkeypatch.setattr(generate, "SEEN_AT_ONCE", 13)
    parts = score(decoder, image_tokens, PROMPTS[: len(answers)], answers)

    assert [len(row) for row in parts] == [len(row) for row in answers]
    for row, other in zip(whole, parts, strict=True):
        assert row == pytest.approx(other, abs=1e-5)


def test_what_is_drawn_for_a_picture_does_not_depend_on_its_batch(
    decoder: TextDecoder, image_tokens: Tensor
) -> None:
    drawn = how(temperature=1.3, seed=9)

    together = decode(decoder, image_tokens, drawn)

    assert together == [decode(decoder, image[None], drawn)[0] for image in image_tokens]


def test_the_words_that_two_beams_find_are_more_probable_than_greedy_ones(
    decoder: TextDecoder, image_tokens: Tensor
) -> None:
    """Where no length is favoured, what decoding looks for is what `score` measures."""
    prompts = [[START]] * PICTURES
    greedy, found = (decode(decoder, image_tokens, how(beams, length_penalty=0.0)) for beams in (1, 6))
    answers = [
        [one + [END] * (len(one) < LENGTH - 1), two + [END] * (len(two) < LENGTH - 1)]
        for one, two in zip(greedy, found, strict=True)
    ]

    scores = torch.tensor(score(decoder, image_tokens, prompts, answers))

    assert float((scores[:, 1] - scores[:, 0]).mean()) > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beams": 0}, "beams must be at least 1, got 0"),
        ({"temperature": -1.0}, "temperature must be 0 or more, and finite, got -1.0"),
        ({"temperature": float("inf")}, "temperature must be 0 or more, and finite, got inf"),
        ({"temperature": float("nan")}, "temperature must be 0 or more, and finite, got nan"),
        ({"beams": 2, "temperature": 1.0}, "goes with one beam, got 2"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"length_penalty": -1.0}, "length_penalty must be 0 or more, got -1.0"),
        ({"repetition_penalty": 0.5}, "repetition_penalty must be at least 1, got 0.5"),
        ({"min_length": LENGTH}, "min_length must be below max_length 9, got 9"),
    ],
)
def test_a_wrong_way_to_decode_is_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        how(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([[START]], "12 pictures need as many prompts, got 1"),
        ([[START]] * 11 + [[]], "1 to 8 words to leave room, got 0"),
        ([[START]] * 11 + [[2] * LENGTH], "1 to 8 words to leave room, got 9"),
    ],
)
def test_a_prompt_that_leaves_no_room_is_refused(
    decoder: TextDecoder, image_tokens: Tensor, prompts: list[list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        decode(decoder, image_tokens, how(3), prompts=prompts)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([[[4]]], "1 pictures need as many lists of answers, got 2"),
        ([[[4], []]], "an answer has no words: give it the end token at least"),
        ([[[4] * 10]], "a prompt of 1 words and an answer of 10 are more than the decoder's 9"),
    ],
)
def test_an_answer_that_cannot_be_scored_is_refused(
    decoder: TextDecoder, image_tokens: Tensor, answers: list[list[list[int]]], message: str
) -> None:
    given = answers * 2 if "as many" in message else answers
    with pytest.raises(ValueError, match=message):
        score(decoder, image_tokens[:1], [[START]], given)
