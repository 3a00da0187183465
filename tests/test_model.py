from dataclasses import replace

import torch

from textmm.config import named_model
from textmm.model import TextMultiModalModel

TINY = named_model("tiny")


@torch.inference_mode()
def test_a_model_joins_what_its_towers_and_its_decoder_say() -> None:
    model = TextMultiModalModel(TINY).eval()
    images = torch.randn(2, 3, 32, 32)
    tokens, words = (torch.tensor([[1, 5, 319], [1, 6, 319]]),), torch.tensor([[2, 7, 8], [2, 9, 319]])

    out = model(images, tokens, words)

    image = model.encode_image(images)
    assert torch.equal(out.image_features, image.features)
    assert torch.equal(out.text_features, model.encode_text(tokens).features)
    assert model.decoder is not None
    assert out.caption_logits is not None
    assert torch.equal(out.caption_logits, model.decoder(words, image.tokens))
    assert out.caption_logits.shape == (2, 3, 320)
    assert out.logit_scale == model.scale()


@torch.inference_mode()
def test_without_words_or_without_a_decoder_there_are_no_caption_logits() -> None:
    images, tokens = torch.randn(1, 3, 32, 32), (torch.tensor([[1, 5, 319]]),)
    clip = TextMultiModalModel(replace(TINY, multimodal_cfg=None)).eval()

    assert TextMultiModalModel(TINY).eval()(images, tokens).caption_logits is None
    assert clip(images, tokens, torch.tensor([[2, 7]])).caption_logits is None
    assert clip.decoder is None
