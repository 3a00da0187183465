"""Models published in open_clip's formats, by name: where their files are, loading them, adding and exporting.

CLIP's ViTs and CoCa load into our own classes, every other architecture into open_clip's. Nothing is downloaded but by
`fetch`.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from textmm import calibration, clip_tokenizer, hub_tokenizer, open_clip_config, open_clip_module
from textmm.checkpoint import LoadedModel, stored, write_atomically
from textmm.clip_tokenizer import ClipTokenizer
from textmm.hub_tokenizer import HubTokenizer
from textmm.model import TextMultiModalModel
from textmm.open_clip_keys import from_open_clip, to_open_clip
from textmm.pretrained import WeightsMissing
from textmm.tokenizers import Tokenizer

HUB = "hf-hub:"
SAFE_FILE, TORCH_FILE = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
"""The names that hub repositories use."""
WEIGHTS = (SAFE_FILE, "open_clip_pytorch_model.safetensors", TORCH_FILE, "model.safetensors")
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
BESIDE = (open_clip_config.FILE_NAME, hub_tokenizer.FILE_NAME, hub_tokenizer.SETTINGS)
"""Files that go with weights."""


@dataclass(frozen=True)
class Published:
    """A model by name and the folder where its files are, or are to be put."""

    name: str
    folder: Path
    models: Path
    """The folder of all such models, DATA/models."""

    @property
    def architecture(self) -> str | None:
        """None: its own open_clip_config.json says what it is."""
        return None if self.name.startswith(HUB) or "/" not in self.name else self.name.partition("/")[0]

    @property
    def tag(self) -> str:
        return self.name.partition("/")[2]

    @property
    def weights(self) -> Path | None:
        """The file of weights; None when there is none."""
        there = [self.folder / name for name in WEIGHTS if (self.folder / name).is_file()]
        others = sorted(path for path in self.folder.glob("*") if path.suffix in SUFFIXES)
        return next(iter(there + others), None)


@dataclass(frozen=True)
class Description:
    model: dict[str, Any]
    """open_clip's `model_cfg`."""
    preprocessing: dict[str, Any]
    """open_clip's `preprocess_cfg`."""


def find(name: str, models: Path | None) -> Published | None:
    """The model that a name means: ARCHITECTURE/TAG, hf-hub:ORG/NAME, or a folder with open_clip_config.json.

    None for every other name. Raises ValueError for an architecture without a tag.
    """
    folder = Path(name)
    if (folder / open_clip_config.FILE_NAME).is_file():
        return Published(folder.resolve().name, folder, models or folder.parent)
    if models is None or (folder / "config.json").is_file():
        return None
    if re.fullmatch(r"hf-hub:\w[\w.-]*/\w[\w.-]*", name):
        return Published(name, models / "hub" / name.removeprefix(HUB), models)
    architecture, slash, tag = name.partition("/")
    if not re.fullmatch(r"\w[\w.-]*", architecture) or open_clip_config.architecture(architecture) is None:
        return None
    if not slash:
        tags = ", ".join(open_clip_module.known_tags(name)) or "the name you gave them"
        raise ValueError(
            f"{name} is an architecture: say with which weights, {name}/TAG, where TAG is one of {tags}"
        )
    return Published(name, models / architecture / tag, models) if re.fullmatch(r"\w[\w.-]*", tag) else None


def load(published: Published) -> LoadedModel:
    """Raises WeightsMissing, which says what to put where, and ValueError when files do not fit each other."""
    described = describe(published)
    weights = published.weights
    if weights is None:
        raise WeightsMissing(_remedy(published))
    config = open_clip_config.model_config(described.model, described.preprocessing)
    identity = _model_id(published.name, described, weights)
    fitted = calibration.read(published.folder)
    hub = published.models / "hub"
    if config is None:
        _refuse_code(weights)
        module = open_clip_module.load_module(described.model, described.preprocessing, weights, hub=hub)
        return LoadedModel(
            module, _tokenizer(described.model, published.folder, hub), None, identity, calibration=fitted
        )
    with torch.device("meta"):  # no numbers are drawn that the file's would replace
        model = TextMultiModalModel(config)
    given = read_weights(weights)
    try:
        state = from_open_clip(given, model.state_dict())
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from error
    model.load_state_dict(state, assign=True)
    words = _clip_tokenizer(config.text_cfg.context_length)
    return LoadedModel(
        model.eval(), words, words if config.multimodal_cfg else None, identity, calibration=fitted
    )


def describe(published: Published) -> Description:
    """What a model is and how its pictures are prepared: its open_clip_config.json, else what open_clip knows of it."""
    path = published.folder / open_clip_config.FILE_NAME
    if path.is_file():
        said = json.loads(path.read_text())
        return Description(said.get("model_cfg", said), said.get("preprocess_cfg", {}))
    if published.architecture is None:
        raise WeightsMissing(_remedy(published))
    model = open_clip_config.architecture(published.architecture)
    assert model is not None  # `find` has looked
    said = open_clip_module.tagged(published.architecture, published.tag)
    if said and bool(said.get("quick_gelu")) != bool(model.get("quick_gelu")):
        bare = published.architecture.removesuffix("-quickgelu")
        right = f"{bare}-quickgelu" if said.get("quick_gelu") else bare
        how = "with" if said.get("quick_gelu") else "without"
        raise ValueError(f"{published.name} was trained {how} quick_gelu: ask for {right}/{published.tag}")
    preprocessing = {key: said[key] for key in open_clip_config.PREPROCESSING if said.get(key) is not None}
    return Description(model, json.loads(json.dumps({**open_clip_config.PREPROCESSING, **preprocessing})))


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict out of safetensors or torch's format, read as data. ValueError when it is neither."""
    _refuse_code(path)
    try:
        if path.suffix == ".safetensors":
            state: dict[str, Any] = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, SafetensorError, EOFError) as error:
        raise ValueError(f"{path}: not weights that can be read as data: {type(error).__name__}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise ValueError(
            f"{path}: holds a {type(state).__name__}, where weights are a mapping of names to tensors"
        )
    return {key: tensor for key, tensor in state.items() if isinstance(tensor, Tensor)}


def _refuse_code(path: Path) -> None:
    """ValueError for a TorchScript archive, as which OpenAI published its weights."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(member.endswith("/constants.pkl") for member in archive.namelist()):
                raise ValueError(
                    f"{path} holds code, which is not run: take the .safetensors file of the same model"
                )


def add(name: str, source: Path, models: Path) -> str:
    """Put a file of weights (or a folder of a repository) where the model `name` is looked for; the model_id.

    It is copied beside, loaded once and only then takes its place, whole; what was there goes. Raises ValueError when
    the file does not fit, FileNotFoundError.
    """
    published = find(name, models)
    if published is None or not published.folder.is_relative_to(models):
        raise ValueError(
            f"{name!r} names no published model: say ARCHITECTURE/TAG, an architecture of open_clip's, or "
            f"{HUB}ORG/NAME; bundled models are there already"
        )
    inside = Published(source.name, source, models).weights if source.is_dir() else source
    if inside is None:
        raise FileNotFoundError(f"{source} holds no weights ({', '.join(SUFFIXES)})")
    if published.architecture is None and not (inside.parent / open_clip_config.FILE_NAME).is_file():
        raise ValueError(
            f"{source}: beside the weights of {name} must lie its {open_clip_config.FILE_NAME}; give the folder of the "
            "repository"
        )
    published.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=published.folder.parent, prefix=".adding-") as temporary:
        partial = Published(name, Path(temporary) / "model", models)
        partial.folder.mkdir()
        copied = partial.folder / (SAFE_FILE if inside.suffix == ".safetensors" else TORCH_FILE)
        _copy(inside, copied)
        for beside in BESIDE:
            if (inside.parent / beside).is_file() and (source.is_dir() or published.architecture is None):
                _copy(inside.parent / beside, partial.folder / beside)
        if not (partial.folder / open_clip_config.FILE_NAME).is_file():
            described = describe(partial)
            _write_config(
                partial.folder, {"model_cfg": described.model, "preprocess_cfg": described.preprocessing}
            )
        try:
            identity = load(partial).model_id
        except ValueError as error:
            raise ValueError(str(error).replace(str(copied), str(inside))) from error
        if published.folder.exists():
            published.folder.rename(Path(temporary) / "before")
        partial.folder.rename(published.folder)
    return identity


def fetch(name: str, models: Path) -> str | None:
    """Download a model and `add` it; its model_id, or None when it is there already. Raises FetchFailed, ValueError."""
    published = find(name, models)
    assert published is not None
    if published.weights is not None:
        return None
    if published.architecture is None:
        where: Mapping[str, Any] = {"hf_hub": f"{name.removeprefix(HUB)}/"}
    else:
        where = open_clip_module.tagged(published.architecture, published.tag)
    if not where:
        tags = ", ".join(open_clip_module.known_tags(published.architecture or ""))
        raise ValueError(
            f"open_clip knows no weights {published.tag!r} of {published.architecture}; it knows {tags}"
        )
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".fetching-") as temporary:
        return add(name, open_clip_module.download(where, Path(temporary)), models)


def installed(models: Path) -> list[str]:
    """Names of the published models whose weights are here."""
    folders = [path for path in (*models.glob("*/*"), *models.glob("hub/*/*")) if path.is_dir()]
    there = [path.relative_to(models) for path in sorted(folders) if Published("", path, models).weights]
    return [f"{HUB}{'/'.join(p.parts[1:])}" if p.parts[0] == "hub" else p.as_posix() for p in there]


def identify(name: str, models: Path) -> tuple[str, int]:
    """The model_id and embed_dim of one that is here, without loading it."""
    published = find(name, models)
    if published is None or published.weights is None:
        raise ValueError(f"there is no {name!r} in {models}")
    described = describe(published)
    return _model_id(name, described, published.weights), int(described.model["embed_dim"])


def untrained(architecture: str) -> LoadedModel | None:
    """An architecture of open_clip's that is ours, with random weights; None for any other name."""
    said = open_clip_config.architecture(architecture)
    config = None if said is None else open_clip_config.model_config(said, {})
    if config is None:
        return None
    words = _clip_tokenizer(config.text_cfg.context_length)
    return LoadedModel(
        TextMultiModalModel(config), words, words if config.multimodal_cfg else None, architecture
    )


def export(loaded: LoadedModel, folder: Path) -> None:
    """Write a model as open_clip reads it (`local-dir:FOLDER`). ValueError for one that open_clip cannot build."""
    if not isinstance(loaded.model, TextMultiModalModel) or not isinstance(loaded.tokenizer, ClipTokenizer):
        raise ValueError(
            f"{loaded.model_id} is no CLIP ViT or CoCa with CLIP's vocabulary: open_clip cannot build it"
        )
    save(folder, loaded.model)


def save(folder: Path, model: TextMultiModalModel, *, half: bool = False) -> None:
    """Write a CLIP ViT or CoCa with CLIP's vocabulary as open_clip reads it. `half` stores float16."""
    described = open_clip_config.open_clip_config(model.config)
    state = {key: stored(tensor, half) for key, tensor in to_open_clip(model.state_dict()).items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SAFE_FILE, lambda path: save_file(state, path))
    _write_config(folder, described)


def _model_id(name: str, described: Description, weights: Path) -> str:
    """The name and a hash over everything that a vector depends on, as of our own checkpoints."""
    said = {"model": described.model, "preprocessing": described.preprocessing}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    with weights.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{name.removeprefix(HUB).replace('/', '-')}-{digest.hexdigest()[:8]}"


def _tokenizer(model: Mapping[str, Any], folder: Path, hub: Path) -> Tokenizer:
    """The tokenizer of an architecture that is not ours; it pads to the whole context, as open_clip's towers want."""
    text = model["text_cfg"]
    context_length, name = text.get("context_length", 77), text.get("hf_tokenizer_name")
    settings = text.get("tokenizer_kwargs") or {}
    if text.get("tokenizer_mode"):
        raise ValueError(f"tokenizer_mode {text['tokenizer_mode']}: not known here")
    if not name:
        return _clip_tokenizer(context_length, whole=True)
    beside = (folder / hub_tokenizer.FILE_NAME).is_file()
    return HubTokenizer(folder if beside else hub / name, context_length=context_length, settings=settings)


def _clip_tokenizer(context_length: int, *, whole: bool = False) -> ClipTokenizer:
    vocabulary = open_clip_config.package_folder() / clip_tokenizer.FILE_NAME
    return ClipTokenizer(vocabulary, context_length=context_length, whole=whole)


def _remedy(published: Published) -> str:
    name, folder = published.name, published.folder
    if published.architecture is None:
        what = f"put {open_clip_config.FILE_NAME} and {SAFE_FILE} (or {TORCH_FILE}) of that repository in {folder}"
    else:
        said = open_clip_module.tagged(published.architecture, published.tag)
        source = said.get("hf_hub") or said.get("url", "").rpartition("/")[2]
        known = f", published as {source}," if source else ""
        what = f"put the weights{known} at {folder / SAFE_FILE} (or {TORCH_FILE})"
    return (
        f"the weights of {name} are not here: {what}, or run `textmm models add {name} FILE`, or, with a network, "
        f"`textmm models fetch {name}`"
    )


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    text = json.dumps(config, indent=2) + "\n"
    write_atomically(folder / open_clip_config.FILE_NAME, lambda path: path.write_text(text))


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
