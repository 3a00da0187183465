"""What only open_clip itself can do: run the architectures that are not ours, know its tags, fetch weights.

open_clip (and with it timm and transformers) is imported here alone, inside the functions: it takes seconds, and a
server of a bundled model never needs it.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from textmm.config import ModelConfig, TextConfig
from textmm.image import Encoded
from textmm.open_clip_config import image_config
from textmm.pretrained import FetchFailed, WeightsMissing
from textmm.text import Tokens

EXTRA_FILES = ("open_clip_config.json", "tokenizer.json", "tokenizer_config.json")
"""What a hub repository may hold beside weights."""


class OpenClipModule(nn.Module):
    """A model of open_clip's, to the Encoder what TextMultiModalModel is; it has no captions."""

    decoder = None

    def __init__(self, module: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        self.module, self.config = module, config

    def encode_image(self, images: Tensor) -> Encoded:
        """Normalised images [B, 3, H, W] -> features [B, E]; these are the tokens too, [B, 1, E]."""
        return _encoded(self.module.encode_image(images))  # type: ignore[operator]

    def encode_text(self, tokens: Tokens) -> Encoded:
        """Token ids [B, context_length] -> features [B, E]."""
        (ids,) = tokens
        return _encoded(self.module.encode_text(ids))  # type: ignore[operator]

    def scale(self) -> Tensor:
        """logit_scale as a factor, a scalar."""
        log: Tensor = self.module.logit_scale  # type: ignore[assignment]
        return log.exp().reshape(())


def load_module(
    model: Mapping[str, Any], preprocessing: Mapping[str, Any], weights: Path, *, hub: Path
) -> OpenClipModule:
    """open_clip's model of this `model_cfg` with the weights of a file; nothing is downloaded.

    `hub` holds what a text tower of transformers says of itself, as hub/NAME/config.json. Raises ValueError when the
    weights do not fit, WeightsMissing.
    """
    from open_clip import CLIP, CoCa, CustomTextCLIP
    from open_clip.factory import load_checkpoint

    fields = deepcopy(dict(model))
    custom = bool(fields.pop("custom_text", False))
    vision, text = fields["vision_cfg"], fields["text_cfg"]
    vision["timm_model_pretrained"] = False
    if text.get("hf_model_name"):
        text["hf_model_name"] = _described(text["hf_model_name"], hub)
        text["hf_model_pretrained"] = False
        custom = True
    made = CoCa if custom and "multimodal_cfg" in fields else CustomTextCLIP if custom else CLIP
    try:
        module = made(**fields)
    except (RuntimeError, ImportError) as error:  # packages that only some towers need
        raise ValueError(f"open_clip cannot build this model: {_first_line(error)}") from error
    try:
        load_checkpoint(module, str(weights))
    except (RuntimeError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise ValueError(
            f"{weights} does not hold the weights of this model: {_first_line(error)}"
        ) from error
    image = image_config(model, preprocessing, kind="open_clip")
    words = TextConfig(kind="open_clip", context_length=text.get("context_length", 77))
    return OpenClipModule(
        module.eval(), ModelConfig(embed_dim=model["embed_dim"], vision_cfg=image, text_cfg=words)
    )


def known_tags(architecture: str) -> list[str]:
    """The weights that open_clip knows of an architecture."""
    from open_clip.pretrained import list_pretrained_tags_by_model

    tags: list[str] = list_pretrained_tags_by_model(architecture)
    return tags


def tagged(architecture: str, tag: str) -> dict[str, Any]:
    """What open_clip says of the weights `tag`: preprocessing, quick_gelu, where they are; empty when unknown."""
    from open_clip.pretrained import get_pretrained_cfg

    said: dict[str, Any] = get_pretrained_cfg(architecture, tag)
    return said


def download(where: Mapping[str, Any], folder: Path) -> Path:
    """Bring weights that `tagged` says where to find, or those of {"hf_hub": "org/name/"}; the file, in `folder`.

    Raises FetchFailed.
    """
    from open_clip.pretrained import download_pretrained, download_pretrained_from_hf

    try:
        weights = Path(download_pretrained(dict(where), cache_dir=str(folder)))
    except (
        Exception
    ) as error:  # urllib's, the hub's and the operating system's, none of them ours to tell apart
        raise FetchFailed(f"weights could not be fetched: {_first_line(error)}") from error
    hub_id = str(where.get("hf_hub", "")).rpartition("/")[0]
    for name in EXTRA_FILES if hub_id else ():
        try:
            download_pretrained_from_hf(hub_id, filename=name, cache_dir=str(folder))
        except (
            FileNotFoundError
        ):  # a repository need not hold it; what a model cannot do without, loading it asks for
            continue
    return weights


def _encoded(features: Tensor) -> Encoded:
    features = F.normalize(features.float(), dim=-1)
    return Encoded(features, features[:, None])


def _described(name: str, hub: Path) -> str:
    """The folder of a text tower of transformers: given a folder, transformers asks no server for it."""
    folder = hub / name
    if not (folder / "config.json").is_file():
        raise WeightsMissing(
            f"the text tower {name} is not described here: put its config.json (of hub id {name}) at "
            f"{folder / 'config.json'}"
        )
    return str(folder)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
