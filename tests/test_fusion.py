import pytest
import torch
from torch import Tensor

from textmm.config import DecoderConfig
from textmm.fusion import CrossModalFusion, TextDecoder

CONFIG = DecoderConfig(width=24, layers=2, heads=3, vocab_size=40, context_length=12)
IMAGE_WIDTH = 10


@pytest.fixture(scope="module")
def decoder() -> TextDecoder:
    torch.manual_seed(1)
    decoder = TextDecoder(CONFIG, IMAGE_WIDTH).eval()
    torch.nn.init.normal_(decoder.word.weight, std=0.5)  # far enough from uniform for differences to show
    return decoder


@pytest.fixture(scope="module")
def image_tokens() -> Tensor:
    return torch.randn(3, 5, IMAGE_WIDTH, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def words() -> Tensor:
    return torch.randint(0, 40, (3, 9), generator=torch.Generator().manual_seed(3))


def at(*places: int) -> Tensor:
    return torch.tensor(places)


@torch.inference_mode()
def test_word_by_word_with_a_cache_gives_the_logits_of_all_words_at_once(
    decoder: TextDecoder, image_tokens: Tensor, words: Tensor
) -> None:
    expected = decoder.states(words, image_tokens)

    cache = decoder.start(image_tokens)
    steps = [decoder.step(words[:, t : t + 1], cache, positions=at(t)) for t in range(words.shape[1])]

    torch.testing.assert_close(torch.cat(steps, dim=1), expected, atol=1e-5, rtol=1e-4)
    assert cache.length == words.shape[1]


@torch.inference_mode()
def test_a_beginning_at_once_and_the_rest_word_by_word_gives_the_same_states(
    decoder: TextDecoder, image_tokens: Tensor, words: Tensor
) -> None:
    cache = decoder.start(image_tokens)
    first = decoder.step(words[:, :4], cache, positions=at(0, 1, 2, 3))
    rest = [decoder.step(words[:, t : t + 1], cache, positions=at(t)) for t in range(4, 9)]

    torch.testing.assert_close(
        torch.cat([first, *rest], dim=1), decoder.states(words, image_tokens), atol=1e-5, rtol=1e-4
    )


@torch.inference_mode()
def test_pictures_kept_of_a_cache_go_on_as_they_do_alone(
    decoder: TextDecoder, image_tokens: Tensor, words: Tensor
) -> None:
    rows = torch.tensor([2, 0])
    cache = decoder.start(image_tokens)
    decoder.step(words[:, :3], cache, positions=at(0, 1, 2))

    cache.keep(rows)
    went_on = decoder.step(words[rows, 3:4], cache, positions=at(3))

    expected = decoder.states(words[rows, :4], image_tokens[rows])[:, 3:]
    torch.testing.assert_close(went_on, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_words_of_several_beams_see_what_the_mask_says_and_no_more(
    decoder: TextDecoder, image_tokens: Tensor, words: Tensor
) -> None:
    """Two beams share a beginning of three words; both then follow the second beam's fourth word."""
    cache = decoder.start(image_tokens)
    decoder.step(words[:, :3], cache, positions=at(0, 1, 2))
    first = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 1]], dtype=torch.bool).expand(3, -1, -1)
    second = torch.tensor([[1, 1, 1, 0, 1, 1, 0], [1, 1, 1, 0, 1, 0, 1]], dtype=torch.bool).expand(3, -1, -1)
    decoder.step(words[:, 3:5], cache, positions=at(3, 3), seen=first)

    states = decoder.step(words[:, 5:7], cache, positions=at(4, 4), seen=second)

    for beam in range(2):
        own = torch.cat([words[:, :3], words[:, 4:5], words[:, 5 + beam : 6 + beam]], dim=1)
        expected = decoder.states(own, image_tokens)[:, -1]
        torch.testing.assert_close(states[:, beam], expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_several_words_after_others_must_say_what_they_see(
    decoder: TextDecoder, image_tokens: Tensor, words: Tensor
) -> None:
    cache = decoder.start(image_tokens)
    decoder.step(words[:, :3], cache, positions=at(0, 1, 2))

    with pytest.raises(ValueError, match="2 words after 3 need `seen`"):
        decoder.step(words[:, 3:5], cache, positions=at(3, 4))


@torch.inference_mode()
def test_a_later_word_changes_no_earlier_logits(
    decoder: TextDecoder, image_tokens: Tensor, words: Tensor
) -> None:
    other = words.clone()
    other[:, 5] = (other[:, 5] + 1) % 40

    one, changed = decoder(words, image_tokens), decoder(other, image_tokens)

    torch.testing.assert_close(one[:, :5], changed[:, :5])
    assert not torch.allclose(one[:, 5], changed[:, 5])


@torch.inference_mode()
def test_every_picture_has_its_own_say_and_the_order_of_its_tokens_does_not_matter(
    decoder: TextDecoder, image_tokens: Tensor, words: Tensor
) -> None:
    same_words = words[:1].expand(3, -1)

    logits = decoder(same_words, image_tokens)
    shuffled = decoder(same_words, image_tokens[:, torch.tensor([4, 2, 0, 1, 3])])

    assert float((logits[0] - logits[1]).abs().max()) > 1e-2
    torch.testing.assert_close(logits, shuffled, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_logits_of_chosen_states_are_the_chosen_logits(
    decoder: TextDecoder, image_tokens: Tensor, words: Tensor
) -> None:
    where = torch.rand(words.shape, generator=torch.Generator().manual_seed(4)) < 0.5

    chosen = decoder.logits(decoder.states(words, image_tokens)[where])

    torch.testing.assert_close(chosen, decoder(words, image_tokens)[where])


@torch.inference_mode()
def test_a_picture_of_one_token_says_its_value_to_every_word() -> None:
    fusion = CrossModalFusion(24, 3, image_width=IMAGE_WIDTH)
    token, words = torch.randn(1, 1, IMAGE_WIDTH), torch.randn(1, 4, 24)

    said = fusion(words, fusion.attention.keys_values(token))

    expected = fusion.attention.out(fusion.attention.value(token))
    torch.testing.assert_close(said, expected.expand(1, 4, 24))
