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


@torch.inference_mode()
def test_word_by_word_with_a_cache_gives_the_logits_of_all_words_at_once(
    decoder: TextDecoder, image_tokens: Tensor, words: Tensor
) -> None:
    expected = decoder(words, image_tokens)

    cache = decoder.start(image_tokens)
    steps = [decoder.step(words[:, t : t + 1], cache, position=t) for t in range(words.shape[1])]

    torch.testing.assert_close(torch.cat(steps, dim=1), expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_beginning_at_once_and_the_rest_word_by_word_gives_the_same_logits(
    decoder: TextDecoder, image_tokens: Tensor, words: Tensor
) -> None:
    cache = decoder.start(image_tokens)
    first = decoder.step(words[:, :4], cache, position=0)
    rest = [decoder.step(words[:, t : t + 1], cache, position=t) for t in range(4, 9)]

    torch.testing.assert_close(
        torch.cat([first, *rest], dim=1), decoder(words, image_tokens), atol=1e-5, rtol=1e-4
    )


@torch.inference_mode()
def test_rows_chosen_of_a_cache_go_on_as_their_own_pictures_do(
    decoder: TextDecoder, image_tokens: Tensor, words: Tensor
) -> None:
    rows = torch.tensor([2, 0, 2])
    cache = decoder.start(image_tokens)
    decoder.step(words[:, :3], cache, position=0)

    for layer in cache:
        layer.select(rows, image=True)
    chosen = decoder.step(words[rows, 3:4], cache, position=3)

    expected = decoder(words[rows, :4], image_tokens[rows])[:, 3:]
    torch.testing.assert_close(chosen, expected, atol=1e-5, rtol=1e-4)


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
