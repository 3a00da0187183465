import pytest
import torch
from torch import Tensor

from textmm.config import DecoderConfig
from textmm.fusion import TextDecoder
from textmm.generate import Decoding, decode

VOCAB, IMAGE_WIDTH, LENGTH = 14, 6, 9
PAD, START, END = 0, 1, 13
PICTURES = 12


def opinionated() -> TextDecoder:
    """Random but opinionated, so that beams differ, some captions end early and some never."""
    torch.manual_seed(3)
    config = DecoderConfig(width=16, layers=2, heads=2, vocab_size=VOCAB, context_length=LENGTH)
    decoder = TextDecoder(config, IMAGE_WIDTH).eval()
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.45)
    return decoder


@pytest.fixture(scope="module")
def decoder() -> TextDecoder:
    return opinionated()


@pytest.fixture(scope="module")
def image_tokens() -> Tensor:
    return 2 * torch.randn(PICTURES, 4, IMAGE_WIDTH, generator=torch.Generator().manual_seed(4))


def how(beams: int, *, max_length: int = LENGTH, length_penalty: float = 0.9) -> Decoding:
    return Decoding(
        start_token_id=START,
        end_token_id=END,
        pad_token_id=PAD,
        beams=beams,
        max_length=max_length,
        length_penalty=length_penalty,
    )


def log_probabilities(decoder: TextDecoder, words: list[int], image: Tensor) -> list[float]:
    """Of the next word, without a cache; pad and start never come."""
    with torch.inference_mode():
        row = decoder(torch.tensor([words]), image[None])[0, -1].log_softmax(-1).tolist()
    return [float("-inf") if word in (PAD, START) else p for word, p in enumerate(row)]


def greedy(decoder: TextDecoder, image: Tensor, max_length: int) -> list[int]:
    words = [START]
    while len(words) < max_length:
        log_p = log_probabilities(decoder, words, image)
        words.append(log_p.index(max(log_p)))
        if words[-1] == END:
            return words[1:-1]
    return words[1:]


def beam_search(decoder: TextDecoder, image: Tensor, decoding: Decoding) -> list[int]:
    """The plainest one: no cache, no early stop."""
    open_beams = [(0.0, [START])]
    finished: list[tuple[float, list[int]]] = []
    for _ in range(decoding.max_length - 1):
        grown = [
            (score + p, [*words, word])
            for score, words in open_beams
            for word, p in enumerate(log_probabilities(decoder, words, image))
        ]
        best = sorted(grown, key=lambda beam: -beam[0])[: decoding.beams]
        finished += [
            (score / (len(words) - 1) ** decoding.length_penalty, words)
            for score, words in best
            if words[-1] == END
        ]
        open_beams = [beam for beam in best if beam[1][-1] != END]
    if finished:
        return max(finished)[1][1:-1]
    return max(open_beams)[1][1:]


@pytest.mark.parametrize("max_length", [2, 5, LENGTH])
def test_one_beam_is_the_argmax_loop_without_a_cache(
    decoder: TextDecoder, image_tokens: Tensor, max_length: int
) -> None:
    expected = [greedy(decoder, image, max_length) for image in image_tokens]

    assert decode(decoder, image_tokens, how(1, max_length=max_length)) == expected


@pytest.mark.parametrize("length_penalty", [0.0, 0.9, 2.0])
@pytest.mark.parametrize("beams", [2, 3, 5])
def test_beam_search_is_the_plain_search_without_a_cache(
    decoder: TextDecoder, image_tokens: Tensor, beams: int, length_penalty: float
) -> None:
    decoding = how(beams, length_penalty=length_penalty)
    expected = [beam_search(decoder, image, decoding) for image in image_tokens]

    assert decode(decoder, image_tokens, decoding) == expected


@pytest.mark.parametrize("beams", [1, 3])
def test_a_picture_in_a_batch_is_put_into_the_words_that_it_gets_alone(
    decoder: TextDecoder, image_tokens: Tensor, beams: int
) -> None:
    alone = [decode(decoder, image[None], how(beams))[0] for image in image_tokens]

    assert decode(decoder, image_tokens, how(beams)) == alone


def test_captions_of_this_decoder_are_of_many_lengths_and_more_beams_find_others(
    decoder: TextDecoder, image_tokens: Tensor
) -> None:
    """What makes the comparisons above worth something."""
    one, three = (decode(decoder, image_tokens, how(beams)) for beams in (1, 3))

    assert len({len(words) for words in three}) >= 3
    assert one != three
    assert any(len(words) == LENGTH - 1 for words in one)  # some never end


def test_decoding_stops_when_nothing_open_can_win(image_tokens: Tensor) -> None:
    decoder = opinionated()
    with torch.no_grad():
        decoder.norm.bias.copy_(100 * decoder.word.weight[END])  # always ends at once
    steps: list[int] = []
    decoder.norm.register_forward_hook(lambda *_: steps.append(1))

    captions = decode(decoder, image_tokens, how(3))

    assert captions == [[]] * PICTURES
    assert len(steps) == 1


def test_less_than_one_beam_is_refused() -> None:
    with pytest.raises(ValueError, match="beams must be at least 1, got 0"):
        how(0)
