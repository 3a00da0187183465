from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.drawn import COLOURS, SHAPES, draw
from textmm import checkpoint
from textmm.encoder import CaptionDecoding, Encoder
from textmm.fusion import TextDecoder
from textmm.generate import Decoding, candidates
from textmm.model import TextMultiModalModel
from textmm.tokenizers import BytePair
from textmm.transforms import to_tensor

NAMES = [(shape, colour) for shape in SHAPES for colour in COLOURS]
TITLES = [f"a {colour} {shape}" for shape, colour in NAMES]
TEXTS = [
    *TITLES,
    "",
    "a",
    "x" * 500,
    "红色连衣裙",
    "🦜 a bird",
    "A RED CIRCLE",
    *(f"word {i} " * (i % 9) for i in range(60)),
]


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [draw(shape, colour) for shape, colour in NAMES]


def stacked(rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(rows)


def test_a_batch_of_pictures_is_its_pictures_one_by_one_in_order(
    encoder: Encoder, images: list[Image.Image]
) -> None:
    rows = encoder.encode_images(images)

    np.testing.assert_allclose(rows, stacked([encoder.encode_images([i]) for i in images]), atol=1e-5)
    np.testing.assert_allclose(rows[::-1], encoder.encode_images(images[::-1]), atol=1e-5)


def test_a_batch_of_texts_is_its_texts_one_by_one_in_order(encoder: Encoder) -> None:
    rows = encoder.encode_texts(TEXTS)

    np.testing.assert_allclose(rows, stacked([encoder.encode_texts([text]) for text in TEXTS]), atol=1e-5)


def test_rows_are_float32_contiguous_and_of_norm_1(encoder: Encoder, images: list[Image.Image]) -> None:
    for rows in (encoder.encode_images(images), encoder.encode_texts(TEXTS)):
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        assert rows.shape[1] == encoder.embed_dim == 32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_nothing_gives_no_rows(encoder: Encoder) -> None:
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, 32)
    assert encoder.encode_images([]).dtype == encoder.encode_texts([]).dtype == np.float32
    assert encoder.caption_images([]) == []


def test_a_text_is_nearest_to_the_picture_it_describes_and_a_picture_to_its_text(
    encoder: Encoder, images: list[Image.Image]
) -> None:
    scores = encoder.encode_texts(TITLES) @ encoder.encode_images(images).T

    assert scores.argmax(axis=1).tolist() == scores.argmax(axis=0).tolist() == list(range(16))


def test_case_does_not_matter_to_a_text(encoder: Encoder) -> None:
    lower, upper = encoder.encode_texts(["a red circle", "A RED CIRCLE"])

    np.testing.assert_array_equal(lower, upper)


def test_a_fitted_picture_has_the_features_of_the_picture(encoder: Encoder) -> None:
    photo = draw("triangle", "yellow", side=500)

    fitted = encoder.fit(photo)

    assert fitted.size == (32, 32)
    np.testing.assert_array_equal(encoder.encode_images([fitted]), encoder.encode_images([photo]))
    assert encoder.preprocessing == "squash-32"


def test_eight_threads_at_once_get_the_serial_answers(encoder: Encoder, images: list[Image.Image]) -> None:
    serial = (encoder.encode_images(images), encoder.encode_texts(TEXTS), encoder.caption_images(images))

    with ThreadPoolExecutor(8) as threads:
        pictures = [threads.submit(encoder.encode_images, images) for _ in range(8)]
        texts = [threads.submit(encoder.encode_texts, TEXTS) for _ in range(8)]
        captions = [threads.submit(encoder.caption_images, images) for _ in range(2)]

    for rows in pictures:
        np.testing.assert_allclose(rows.result(), serial[0], atol=1e-6)
    for rows in texts:
        np.testing.assert_allclose(rows.result(), serial[1], atol=1e-6)
    for made in captions:
        assert [c.text for c in made.result()] == [c.text for c in serial[2]]


def test_captions_name_what_is_drawn(encoder: Encoder, images: list[Image.Image]) -> None:
    captions = encoder.caption_images(images)

    right = [caption.text == title for caption, title in zip(captions, TITLES, strict=True)]
    assert sum(right) >= 14


def test_a_caption_scores_its_cosine_with_its_picture(encoder: Encoder, images: list[Image.Image]) -> None:
    captions = encoder.caption_images(images[:3], how=CaptionDecoding(beams=1))

    for caption, image in zip(captions, images[:3], strict=True):
        cosine = float(encoder.encode_texts([caption.text])[0] @ encoder.encode_images([image])[0])
        assert caption.score == pytest.approx(cosine, abs=1e-5)


def test_captions_are_searched_by_as_many_beams_as_the_model_says(
    tiny: Path, images: list[Image.Image]
) -> None:
    loaded = checkpoint.load(str(tiny), Path("no-trunks"))
    config = loaded.model.config.multimodal_cfg
    assert config is not None
    said = {}
    for beams in (1, 4):
        decoder = replace(config, beams=beams, choice_weight=-1000.0)  # of four the least like it is taken
        loaded.model.config = replace(loaded.model.config, multimodal_cfg=decoder)
        encoder = Encoder(loaded)
        said[beams] = encoder.caption_images(images)
        assert said[beams] == encoder.caption_images(images, how=CaptionDecoding(beams=beams))

    assert said[1] != said[4]


def test_captions_are_decoded_as_wished(encoder: Encoder, images: list[Image.Image]) -> None:
    def said(**wishes: Any) -> list[str]:
        return [c.text for c in encoder.caption_images(images, how=CaptionDecoding(**wishes))]

    def tokens(texts: list[str]) -> list[int]:
        assert isinstance(encoder._captioner, BytePair)
        return [len(words) - 1 for words in encoder._captioner.continuations(texts)]  # without the end token

    plain = said()

    assert min(tokens(plain)) > 1 and set(tokens(said(max_length=1))) == {1}
    assert said(temperature=3.0, seed=1) == said(temperature=3.0, seed=1) != said(temperature=3.0, seed=2)
    assert min(tokens(said(min_length=8))) >= 8 > max(tokens(plain))


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"temperature": 1.0, "beams": 2}, "goes with one beam"),
        ({"max_length": 2, "min_length": 2}, "max_length must be above min_length 2"),
        ({"max_length": 999}, "at most"),
        ({"repetition_penalty": 0.5}, "repetition_penalty must be at least 1"),
    ],
)
def test_wishes_that_do_not_go_together_are_refused(
    encoder: Encoder, images: list[Image.Image], wishes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encoder.caption_images(images[:1], how=CaptionDecoding(**wishes))


@pytest.mark.parametrize("weight", [0.0, 3.0, -1000.0])
def test_of_finished_captions_the_one_is_taken_that_scores_best_with_its_likeness(
    tiny: Path, images: list[Image.Image], weight: float
) -> None:
    loaded = checkpoint.load(str(tiny), Path("no-trunks"))
    model, words = loaded.model, loaded.captioner
    assert isinstance(model, TextMultiModalModel) and isinstance(words, BytePair)
    config = model.config.multimodal_cfg
    assert config is not None and isinstance(model.decoder, TextDecoder)
    model.config = replace(model.config, multimodal_cfg=replace(config, choice_weight=weight))
    encoder = Encoder(loaded, threads=2)

    made = [caption.text for caption in encoder.caption_images(images, how=CaptionDecoding(beams=4))]

    how = Decoding(
        start_token_id=words.style_token_id("photo"),
        end_token_id=words.end_token_id,
        pad_token_id=words.pad_token_id,
        never=tuple(words.start_token_ids),
        beams=4,
        early_stopping=weight != 0,
    )
    with torch.inference_mode():
        tokens = model.encode_image(to_tensor(images, model.config.vision_cfg)).tokens
    found = candidates(model.decoder, tokens, how)
    pictures = encoder.encode_images(images)
    for text, picture, of_one in zip(made, pictures, found, strict=True):
        said = [words.decode(one.words) for one in of_one]
        likeness = encoder.encode_texts(said) @ picture
        totals = [one.score + weight * float(like) for one, like in zip(of_one, likeness, strict=True)]
        assert totals[said.index(text)] == pytest.approx(max(totals), abs=1e-4)
    firsts = [words.decode(of_one[0].words) for of_one in found]
    assert (made == firsts) == (weight >= 0)  # what the tiny model says first is the likest anyway


def test_an_unknown_style_is_refused_with_the_styles_there_are(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match=r"style 'poem' is not one of this model's styles \(photo\)"):
        encoder.caption_images([draw("circle", "red")], style="poem")


def test_a_model_without_its_decoders_words_has_no_styles(tiny: Path) -> None:
    loaded = checkpoint.load(str(tiny), Path("no-trunks"))
    encoder = Encoder(
        checkpoint.LoadedModel(loaded.model, loaded.tokenizer, None, loaded.model_id), threads=1
    )

    assert encoder.styles == ()
    with pytest.raises(ValueError, match="none: it has no decoder"):
        encoder.caption_images([draw("circle", "red")])


def test_tokens_are_counted_as_the_model_reads_them(encoder: Encoder) -> None:
    counts = encoder.count_tokens(["", "a red circle", "x " * 500])

    assert counts[0] == 2  # start and end
    assert counts[0] < counts[1] < counts[2] == 16


def test_the_name_of_a_model_is_that_of_its_checkpoint(encoder: Encoder, tiny: Path) -> None:
    assert encoder.model_id == checkpoint.model_id(tiny)
    assert encoder.styles == ("photo",)


def test_a_shortened_encoder_keeps_the_first_numbers_and_their_norm(
    encoder: Encoder, images: list[Image.Image]
) -> None:
    short, dim = encoder.shortened(8), encoder.embed_dim

    for whole, rows in (
        (encoder.encode_images(images), short.encode_images(images)),
        (encoder.encode_texts(TEXTS), short.encode_texts(TEXTS)),
    ):
        assert rows.shape == (len(whole), 8)
        cut = whole[:, :8]
        np.testing.assert_allclose(rows, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6)
    assert short.encode_images([]).shape == (0, 8) and short.model_id == f"{encoder.model_id}[:8]"
    assert encoder.shortened(dim) is encoder
    for wrong in (0, dim + 1):
        with pytest.raises(ValueError, match=f"makes {dim} numbers, {wrong} cannot be kept of them"):
            encoder.shortened(wrong)
