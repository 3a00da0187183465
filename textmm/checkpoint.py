"""A model as a folder: config.json, model.safetensors (what we train), vocabulary.json (the decoder's words) and,
where it was calibrated, calibration.json.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from textmm import calibration
from textmm.calibration import Calibration
from textmm.clip_tokenizer import ClipTokenizer
from textmm.config import ModelConfig
from textmm.model import TextMultiModalModel
from textmm.open_clip_module import OpenClipModule
from textmm.pretrained import TRUNKS, load_tokenizer, load_trunks, trunks_of
from textmm.tokenizers import BytePair, Tokenizer

LOCKED = ("image.features.", "text.trunks.")
"""Key prefixes of pretrained trunks, which a checkpoint does not repeat."""


@dataclass(frozen=True)
class LoadedModel:
    model: TextMultiModalModel | OpenClipModule
    tokenizer: Tokenizer
    captioner: BytePair | ClipTokenizer | None
    """The decoder's vocabulary; None for a model without a decoder."""
    model_id: str
    """Name and a hash over configuration, trained weights, vocabulary and trunks."""
    unlocked: frozenset[str] = frozenset()
    """Keys of pretrained trunks that were trained on, so that the checkpoint holds them."""
    calibration: Calibration | None = None
    """None: it was never calibrated."""


def save(
    folder: Path,
    model: TextMultiModalModel,
    vocabulary: BytePair | None,
    *,
    name: str,
    half: bool = False,
    unlocked: Collection[str] = (),
) -> None:
    """Write the folder, each file whole. `half` stores float16; `unlocked` are keys of pretrained trunks that
    are no longer as published.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: stored(v, half) for k, v in trained_state(model, unlocked).items()}
    write_atomically(folder / "model.safetensors", lambda path: save_file(tensors, path))
    if vocabulary is not None:
        write_atomically(folder / "vocabulary.json", lambda path: path.write_text(vocabulary.vocabulary))
    config = {"name": name, "model": asdict(model.config)}
    write_atomically(
        folder / "config.json", lambda path: path.write_text(json.dumps(config, indent=2) + "\n")
    )


def load(name: str, trunks: Path) -> LoadedModel:
    """The model `name`: a folder that `save` wrote, or one of the bundled models.

    `trunks` is the folder of pretrained trunk weights. Raises ValueError for an unknown name, WeightsMissing.
    """
    folder = find(name)
    config = stored_config(folder)
    model = build(config, trunks)
    state = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    unlocked = frozenset(k for k in state if _locked(model, k))
    missing, unexpected = model.load_state_dict(state, strict=False)
    wrong = [k for k in missing if not _locked(model, k)] + list(unexpected)
    if wrong:
        raise ValueError(f"{folder} does not fit its own config.json: {', '.join(wrong[:3])} …")
    vocabulary = folder / "vocabulary.json"
    words = vocabulary.read_text() if vocabulary.is_file() else None
    decoder = config.multimodal_cfg
    captioner = None
    if words is not None and decoder is not None:
        captioner = BytePair(words, context_length=decoder.context_length)
    tokenizer = _tokenizer(config, trunks, words)
    return LoadedModel(
        model.eval(), tokenizer, captioner, model_id(folder), unlocked, calibration.read(folder)
    )


def trained_state(model: TextMultiModalModel, unlocked: Collection[str] = ()) -> dict[str, Tensor]:
    """What a checkpoint holds of the model's state: all but pretrained trunks, and of those the keys
    `unlocked`.
    """
    return {k: v for k, v in model.state_dict().items() if k in unlocked or not _locked(model, k)}


def build(config: ModelConfig, trunks: Path) -> TextMultiModalModel:
    """A model of this architecture: pretrained trunks loaded, the rest initialised at random."""
    model = TextMultiModalModel(config)
    if trunks_of(config):
        load_trunks(model, trunks)
    return model


def find(name: str) -> Path:
    """The folder of model `name`. ValueError when there is none, with the bundled names."""
    bundled = Path(str(resources.files("textmm"))) / "weights"
    for folder in (Path(name), bundled / name):
        if (folder / "config.json").is_file():
            return folder
    raise ValueError(
        f"there is no model {name!r}: give a folder with config.json or one of {', '.join(bundled_names())}, "
        f"or a published model as ARCHITECTURE/TAG or hf-hub:ORG/NAME"
    )


def stored_config(folder: Path) -> ModelConfig:
    """The architecture of a checkpoint folder."""
    return ModelConfig.parse(json.loads((folder / "config.json").read_text())["model"])


def bundled_names() -> list[str]:
    """Names of the models whose trained weights come with the project."""
    root = Path(str(resources.files("textmm"))) / "weights"
    return sorted(p.parent.name for p in root.glob("*/config.json"))


def model_id(folder: Path) -> str:
    """`mini-3f2a9c41`: the name and a hash over everything that a vector or a caption depends on."""
    stored = json.loads((folder / "config.json").read_text())
    digest = hashlib.sha256(json.dumps(stored["model"], sort_keys=True).encode())
    for file in (folder / "model.safetensors", folder / "vocabulary.json"):
        if file.is_file():
            digest.update(file.read_bytes())
    for name in trunks_of(ModelConfig.parse(stored["model"])):
        digest.update("".join(f.sha256 for f in TRUNKS[name].files).encode())
    return f"{stored['name']}-{digest.hexdigest()[:8]}"


def _tokenizer(config: ModelConfig, trunks: Path, words: str | None) -> Tokenizer:
    if config.text_cfg.trunks:
        return load_tokenizer(config.text_cfg, trunks)
    if words is None:
        raise ValueError("a model with a text tower of its own needs a vocabulary.json beside it")
    return BytePair(words, context_length=config.text_cfg.context_length)


def _locked(model: TextMultiModalModel, key: str) -> bool:
    return bool(trunks_of(model.config)) and key.startswith(LOCKED)


def stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.is_floating_point() else tensor.clone()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`write` fills a file beside it, which takes its place when it is on disk."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.chmod(0o644)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def save_training(path: Path, state: dict[str, object]) -> None:
    """What a run needs to go on: optimiser state and the step; written whole."""
    write_atomically(path, lambda partial: torch.save(state, partial))


def load_training(path: Path) -> dict[str, object]:
    state: dict[str, object] = torch.load(path, map_location="cpu", weights_only=True)
    return state
