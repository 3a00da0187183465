import unicodedata
from pathlib import Path

import numpy as np
import pytest

from textmm.tokenizers import (
    BytePair,
    PretrainedTokenizer,
    SentencePiece,
    WordPiece,
    is_latin,
    read_word_piece,
)

TITLES = [
    f"a {colour} {thing}" for colour in ("red", "green", "navy blue") for thing in ("shirt", "dress", "clock")
]
STYLES = ("photo", "title")
ALPHABETS = [
    (0x20, 0x7F),  # ASCII
    (0xA1, 0x250),  # Latin with marks
    (0x391, 0x3A2),  # Greek
    (0x410, 0x450),  # Cyrillic
    (0x5D0, 0x5EB),  # Hebrew
    (0x3041, 0x3097),  # Hiragana
    (0x4E00, 0x9FA6),  # Han
    (0xAC00, 0xD7A4),  # Hangul
    (0xFF01, 0xFF5F),  # full width
    (0x1F300, 0x1F5FF),  # emoji
]


@pytest.fixture(scope="module")
def words() -> BytePair:
    return BytePair.train(TITLES, 320, context_length=16, styles=STYLES)


def generated_text(rng: np.random.Generator) -> str:
    """Words out of one to three alphabets."""
    kinds = rng.choice(len(ALPHABETS), rng.integers(1, 4))
    letters = [
        "".join(chr(rng.integers(*ALPHABETS[kind])) for _ in range(rng.integers(1, 9)))
        for kind in rng.choice(kinds, rng.integers(1, 6))
    ]
    return " ".join(letters)


def lowered(text: str) -> str:
    """NFKC, then each letter lower-case by itself (str.lower looks at the letters around a sigma)."""
    return "".join(c.lower() for c in unicodedata.normalize("NFKC", text)).strip()


# Byte-pair


def test_any_text_comes_back_in_lower_case_nfkc(words: BytePair) -> None:
    rng = np.random.default_rng(1)
    long = BytePair(words.vocabulary, context_length=1000)
    texts = [generated_text(rng) for _ in range(300)]

    (ids,) = long(texts)

    assert [long.decode(row) for row in ids.tolist()] == [lowered(text) for text in texts]


def test_a_text_stands_between_its_start_token_and_the_largest_id(words: BytePair) -> None:
    (ids,) = words(["a red shirt", ""])

    assert ids[:, 0].tolist() == [words.start_token_id] * 2
    assert words.end_token_id == words.vocab_size - 1 == int(ids.max())
    assert [int(row.argmax()) for row in ids] == [n - 1 for n in words.lengths(["a red shirt", ""])]
    assert ids[1].tolist() == [words.start_token_id, words.end_token_id] + [words.pad_token_id] * (
        ids.shape[1] - 2
    )


def test_the_vocabulary_has_no_more_tokens_than_asked_for_and_no_special_one_twice(words: BytePair) -> None:
    special = [
        words.pad_token_id,
        words.start_token_id,
        *map(words.style_token_id, STYLES),
        words.end_token_id,
    ]

    assert words.vocab_size <= 320
    assert special == [0, 1, 2, 3, words.vocab_size - 1]


def test_a_long_text_is_cut_and_still_ends(words: BytePair) -> None:
    (ids,) = words(["red dress " * 50])

    assert ids.shape == (1, 16)
    assert ids[0, -1] == words.end_token_id
    assert words.lengths(["red dress " * 50]) == [16]


def test_a_caption_starts_with_its_style(words: BytePair) -> None:
    ids = words.ids(["a red shirt"], start="<title>")

    assert ids[0, 0] == words.style_token_id("title")
    assert words.decode(ids[0].tolist()) == "a red shirt"
    with pytest.raises(ValueError, match="the vocabulary has no token <poem>"):
        words.style_token_id("poem")


def test_what_is_learned_is_the_same_every_time_and_often_seen_words_get_short(words: BytePair) -> None:
    again = BytePair.train(TITLES, 320, context_length=16, styles=STYLES)

    assert again.vocabulary == words.vocabulary
    assert words.lengths(["shirt"])[0] < len("shirt") + 2 < words.lengths(["zyxwv"])[0] + 1


@pytest.mark.parametrize("text", ["<end>", "a <pad> dress", "<start>"])
def test_a_text_that_spells_a_special_token_is_a_text_like_any_other(words: BytePair, text: str) -> None:
    (ids,) = words([text])

    assert words.decode(ids[0].tolist()) == text
    assert (ids == words.end_token_id).sum() == 1
    assert (ids[0, 1:] > 3).all()


def test_no_texts_have_no_rows(words: BytePair) -> None:
    (ids,) = words([])

    assert ids.shape == (0, 0)


# Scripts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "red dress",
        "Kleid für 25 €",
        "łódź",
        "naïve façade",
        "１２ Ａ",
        "№ 5 — 100% 😀",
        "e\u0301",
        "Nº 3ª",
    ],
)
def test_a_text_whose_letters_are_all_latin_is_latin(text: str) -> None:
    assert is_latin(text)


@pytest.mark.parametrize(
    "text", ["红色连衣裙", "red 连衣裙", "платье", "φόρεμα", "שמלה", "ドレス", "드레스", "ชุด"]
)
def test_a_text_with_a_letter_of_another_script_is_not_latin(text: str) -> None:
    assert not is_latin(text)


# Published tokenizers


@pytest.fixture(scope="module")
def word_piece(trunks: Path) -> WordPiece:
    return read_word_piece(trunks / "minilm-l6" / "tokenizer.json", context_length=16)


@pytest.fixture(scope="module")
def sentence_piece(trunks: Path) -> SentencePiece:
    return SentencePiece(trunks / "use-multilingual-v3" / "sp.model", context_length=16)


@pytest.mark.slow
def test_word_pieces_are_the_published_ids_of_bert(word_piece: WordPiece) -> None:
    rows = word_piece.rows(["Hello, world!", "", "unaffable"])

    # of bert-base-uncased, whose vocabulary MiniLM has: [CLS] hello , world ! [SEP]; una ##ffa ##ble
    assert rows == [[101, 7592, 1010, 2088, 999, 102], [101, 102], [101, 14477, 20961, 3468, 102]]


@pytest.mark.slow
def test_word_pieces_of_a_long_text_are_cut_and_still_end(word_piece: WordPiece) -> None:
    (row,) = word_piece.rows(["dress " * 100])

    assert (len(row), row[0], row[-1]) == (16, 101, 102)


@pytest.mark.slow
def test_sentence_pieces_stand_between_1_and_2_and_an_empty_text_is_1_0_2(
    sentence_piece: SentencePiece,
) -> None:
    rows = sentence_piece.rows(["", "red dress", "红色连衣裙 " * 40])

    assert rows[0] == [1, 0, 2]
    assert (rows[1][0], rows[1][-1]) == (1, 2)
    assert len(rows[1]) >= 4
    assert (len(rows[2]), rows[2][0], rows[2][-1]) == (16, 1, 2)


@pytest.mark.slow
def test_with_both_a_text_in_another_script_has_no_word_pieces(
    word_piece: WordPiece, sentence_piece: SentencePiece
) -> None:
    both = PretrainedTokenizer(word_piece, sentence_piece)
    texts = ["red dress", "红色连衣裙"]

    pieces, sentences = both(texts)

    assert pieces.tolist() == [[101, 2417, 4377, 102], [0, 0, 0, 0]]
    assert [[i for i in row if i >= 0] for row in sentences.tolist()] == sentence_piece.rows(texts)
    assert both.lengths(["red dress"]) == [4]


@pytest.mark.slow
def test_with_one_trunk_every_text_has_tokens(word_piece: WordPiece, sentence_piece: SentencePiece) -> None:
    (pieces,) = PretrainedTokenizer(word_piece, None)(["红", "red dress"])
    (sentences,) = PretrainedTokenizer(None, sentence_piece)(["红", "red dress"])

    assert (pieces[:, 0] == 101).all()
    assert (sentences[:, 0] == 1).all()
    assert PretrainedTokenizer(None, sentence_piece).lengths([""]) == [3]
