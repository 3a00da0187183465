"""CLIP's tokenizer gives the ids that open_clip's gives, on texts of every kind."""

import random
from pathlib import Path

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from textmm.clip_tokenizer import FILE_NAME, ClipTokenizer, clean
from textmm.open_clip_config import package_folder

BROKEN = [
    "schÃ¶n",
    "donâ€™t",
    "caf\u00e9",
    "cafe\u0301",
    "&amp;lt;b&amp;gt;",
    "&#128512; &eacute; &notanentity;",
]
ODD = [
    *(
        "",
        "   ",
        "\n\t",
        "!",
        "!!!",
        "it's IT'S ſ's 'ſ",
        "İstanbul ẞ ǅ K",
        "👩‍👩‍👧‍👦🏳️‍🌈 e\u0301",
        "\u200b\u00ad\ufeff",
        "\ud7ff\ue000",
    ),
    *(
        "<start_of_text> in a text <END_OF_TEXT>",
        "½ ² Ⅷ ٣ 42",
        "x" * 3000,
        "word " * 500,
        "红" * 300,
        "a_b-c/d\\e",
    ),
]


@pytest.fixture(scope="module")
def vocabulary() -> Path:
    return package_folder() / FILE_NAME


def generated(count: int) -> list[str]:
    """Texts of random length out of many scripts, words, entities and broken encodings."""
    rng = random.Random(7)
    ranges = [(32, 126), (0xA0, 0x5FF), (0x900, 0xDFF), (0x2000, 0x2FFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF)]
    ranges += [(9, 13), (0x300, 0x36F), (0x1F300, 0x1FAFF), (0xFB00, 0xFFFD)]
    words = ["a photo of", "red", "dress", "'s", "100%", *BROKEN]

    def part() -> str:
        if rng.random() < 0.4:
            return rng.choice(words) + " "
        low, high = rng.choice(ranges)
        return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 6)))

    return ["".join(part() for _ in range(rng.choice([1, 3, 8, 60]))) for _ in range(count)]


@pytest.mark.parametrize("context_length", [pytest.param(77, marks=pytest.mark.slow), 76, 16])
def test_ids_are_those_of_open_clip(vocabulary: Path, context_length: int) -> None:
    texts = [*ODD, *BROKEN, *generated(3000 if context_length == 77 else 100)]

    (ids,) = ClipTokenizer(vocabulary, context_length=context_length, whole=True)(texts)

    expected = SimpleTokenizer(context_length=context_length)(texts)
    different = [
        text for text, same in zip(texts, (ids == expected).all(1).tolist(), strict=True) if not same
    ]
    assert different == []


def test_a_batch_is_as_wide_as_its_longest_text(vocabulary: Path) -> None:
    tokenizer = ClipTokenizer(vocabulary, context_length=77)

    (ids,) = tokenizer(["a red dress", "a"])

    assert ids.shape == (2, 5)
    assert ids[1].tolist() == [tokenizer.start_token_id, 320, tokenizer.end_token_id, 0, 0]
    assert tokenizer.lengths(["a red dress", "a"]) == [5, 3]


def test_decoding_gives_the_words_back(vocabulary: Path) -> None:
    tokenizer = ClipTokenizer(vocabulary, context_length=77)
    theirs = SimpleTokenizer()

    for text in ["a red dress with 红色 and 🦜", "schön, it's", *generated(50)]:
        row = tokenizer([text])[0][0].tolist()
        assert tokenizer.decode(row) == theirs.decode(row[1:-1]).strip()
    assert tokenizer.decode(tokenizer(["A Red  Dress"])[0][0].tolist()) == "a red dress"


def test_a_word_longer_than_any_is_read_as_far_as_it_matters(vocabulary: Path) -> None:
    rng = random.Random(1)
    long = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(6000))

    (ids,) = ClipTokenizer(vocabulary, context_length=77)([long * 100])

    assert torch.equal(ids, SimpleTokenizer()([long]))


def test_a_missing_vocabulary_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="install open_clip_torch"):
        ClipTokenizer(tmp_path / "none.gz", context_length=77)


def test_cleaning_mends_encodings_and_undoes_entities_twice() -> None:
    assert clean("  schÃ¶n &amp;amp;\n <b> ") == "schön & <b>"
