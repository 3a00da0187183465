"""A published tokenizer.json, without transformers: the ids that open_clip's HFTokenizer gives, which needs it."""

import json
from pathlib import Path

import pytest
import tokenizers
import torch
from open_clip.tokenizer import HFTokenizer

from textmm.hub_tokenizer import HubTokenizer

TEXTS = [
    "A red-circle!",
    "blue " * 40,
    "",
    "snake_case &amp; <br>",
    "red\tblue\n circle",
    "never seen 红色 🦜",
]


def write_tokenizer(folder: Path) -> Path:
    """A small word tokenizer with an end token, in the files that a hub repository has."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [
        "<pad>",
        "</s>",
        "<unk>",
        "a",
        "red",
        "blue",
        "circle",
        "redcircle",
        "snake",
        "case",
        "never",
        "<sep>",
    ]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <sep> </s>", special_tokens=[("</s>", 1), ("<sep>", 11)]
    )
    made.add_special_tokens(["<pad>", "</s>", "<unk>", "<sep>"])
    made.save(str(folder / "tokenizer.json"))
    named = {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "<sep>"}
    settings = {**named, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 99}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_texts_are_cleaned_cut_and_padded(tmp_path: Path) -> None:
    tokenizer = HubTokenizer(write_tokenizer(tmp_path), context_length=7, settings={"clean": "canonicalize"})

    (ids,) = tokenizer(["A red-circle!", "blue " * 40, ""])

    assert ids.tolist() == [[3, 7, 11, 1, 1, 1, 1], [5, 5, 5, 5, 5, 11, 1], [11, 1, 1, 1, 1, 1, 1]]
    assert tokenizer.lengths(["A red-circle!", "blue " * 40, ""]) == [4, 7, 2]
    assert tokenizer([])[0].shape[0] == 0


def test_the_separator_may_be_left_out(tmp_path: Path) -> None:
    tokenizer = HubTokenizer(write_tokenizer(tmp_path), context_length=5, settings={"strip_sep_token": True})

    assert tokenizer(["red blue"])[0].tolist() == [[4, 5, 0, 1, 1]]


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"language": "fra"}, {}, "tokenizer_kwargs language: not known here"),
        ({}, {"pad_token": None}, "names no pad_token that tokenizer.json has"),
        ({}, {"pad_token": "[PAD]"}, "names no pad_token that tokenizer.json has"),
    ],
)
def test_what_cannot_be_done_is_refused(
    tmp_path: Path, settings: dict[str, str], change: dict[str, str], message: str
) -> None:
    path = write_tokenizer(tmp_path) / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(ValueError, match=message):
        HubTokenizer(tmp_path, context_length=5, settings=settings)


def test_missing_files_are_asked_for_with_their_place(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"put its tokenizer\.json and tokenizer_config\.json in .*nowhere"
    ):
        HubTokenizer(tmp_path / "nowhere", context_length=5, settings={})


@pytest.mark.parametrize(
    "settings", [{}, {"clean": "canonicalize"}, {"clean": "lower", "strip_sep_token": True}]
)
def test_ids_are_those_of_open_clip(tmp_path: Path, settings: dict[str, object]) -> None:
    pytest.importorskip("transformers", reason="open_clip's HFTokenizer needs transformers")
    write_tokenizer(tmp_path)

    (ids,) = HubTokenizer(tmp_path, context_length=9, settings=settings)(TEXTS)

    assert torch.equal(ids, HFTokenizer(str(tmp_path), context_length=9, **settings)(TEXTS))
