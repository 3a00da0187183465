"""What a model is made of. Field names are open_clip's where open_clip has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    kind: str = "vit"
    """`vit`: patches and attention. `cnn`: a pretrained, locked EfficientNet-Lite with a trained head. `open_clip`: a
    module of open_clip's own, of which only size and preprocessing are said here."""
    image_size: int = 224
    """Pixels a side of the square that the tower sees."""
    resize_mode: str = "squash"
    """`squash` ignores the aspect ratio; `shortest` scales the short side and crops the centre."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    """Per channel, on a scale of 0..1; open_clip's by default."""
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    """`bicubic` or `bilinear`."""
    exact_resize: bool = False
    """Resample every pixel and crop as torchvision does, as open_clip's models were trained; else Pillow may shrink a
    large photo by a whole factor first, which is several times faster."""
    width: int = 768
    layers: int = 12
    heads: int = 12
    patch_size: int = 32
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs of a `vit`, in widths."""
    attentional_pool: bool = False
    """Tokens of a `vit` are pooled by attention, as in CoCa: the first is the picture's, the rest the decoder's."""
    attn_pooler_queries: int = 256
    attn_pooler_heads: int = 8
    trunk: str = ""
    """Name of the pretrained trunk of a `cnn` (see pretrained.TRUNKS)."""
    head_width: int = 1024
    """Hidden width of the trained head of a `cnn`."""
    pool_grid: int = 0
    """Cells a side of the last stage whose means join the pooled features of a `cnn`, so that its head knows what is
    where (spatial pyramid pooling, He et al. 2014); 0: none."""
    token_width: int = 256
    """Width of the image tokens that a `cnn` hands to the decoder."""
    summary_tokens: bool = False
    """Whether a `cnn` hands on two more: its pooled features, and the picture's place in the shared space."""

    def __post_init__(self) -> None:
        _one_of("vision_cfg.kind", self.kind, ("vit", "cnn", "open_clip"))
        _one_of("vision_cfg.resize_mode", self.resize_mode, ("squash", "shortest"))
        _one_of("vision_cfg.interpolation", self.interpolation, ("bicubic", "bilinear"))
        if self.pool_grid < 0:
            raise ValueError(f"vision_cfg.pool_grid must be 0 or more cells a side, got {self.pool_grid}")
        sizes = ("image_size", "width", "layers", "heads", "patch_size")
        check_positive("vision_cfg", self, (*sizes, "attn_pooler_queries", "attn_pooler_heads"))


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    kind: str = "causal"
    """`causal`: CLIP's Transformer. `bert`, `sentence`: one pretrained trunk. `pair`: both of them. `open_clip`: a
    module of open_clip's own."""
    context_length: int = 77
    """Tokens kept of a text; the rest is cut."""
    vocab_size: int = 49408
    width: int = 512
    layers: int = 12
    heads: int = 8
    mlp_ratio: float = 4.0
    embed_cls: bool = False
    """A class token at the end stands for a text of a `causal` tower, as in CoCa; else its end token does."""
    trunks: tuple[str, ...] = ()
    """Names of the pretrained trunks (see pretrained.TRUNKS), in the order of their features."""
    head_width: int = 1024
    """Hidden width of the trained head over pretrained trunks."""

    def __post_init__(self) -> None:
        _one_of("text_cfg.kind", self.kind, ("causal", "bert", "sentence", "pair", "open_clip"))
        check_positive("text_cfg", self, ("context_length", "vocab_size", "width", "layers", "heads"))


ANSWER = "answer"


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    kind: str = "fusion"
    """`fusion`: a decoder of its own words. `coca`: open_clip's CoCa, layers on top of the text tower's."""
    width: int = 256
    layers: int = 2
    heads: int = 4
    vocab_size: int = 6000
    context_length: int = 40
    """Tokens of a caption, the style token that starts it and the end token included."""
    styles: tuple[str, ...] = ("photo", "title", "attributes")
    """Ways to put a picture into words; each has its own start token."""
    questions: bool = False
    """Whether it answers questions: `<answer>` starts an answer, and tokens of the question join the picture's."""
    question_width: int = 768
    """Hidden width of the layer that makes those tokens."""
    beams: int = 3
    """Of a search for a caption, unless another number is asked for."""
    choice_weight: float = 0.0
    """How much a caption's likeness to its picture (cosine in the shared space) counts beside its score when one of the
    finished beams is chosen; 0: the decoder alone chooses."""

    def __post_init__(self) -> None:
        _one_of("multimodal_cfg.kind", self.kind, ("fusion", "coca"))
        check_positive(
            "multimodal_cfg", self, ("width", "layers", "heads", "vocab_size", "context_length", "beams")
        )

    @property
    def start_tokens(self) -> tuple[str, ...]:
        """Names of the special tokens of its vocabulary, beside the padding and the end."""
        return (*self.styles, *((ANSWER,) if self.questions else ()))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    embed_dim: int
    """Dimension that pictures and words share."""
    vision_cfg: ImageConfig
    text_cfg: TextConfig
    multimodal_cfg: DecoderConfig | None = None
    """None: a model without words of its own (CLIP)."""
    quick_gelu: bool = False
    """OpenAI's estimate of GELU in `vit` and `causal`, with which some weights were trained."""
    init_logit_bias: float | None = None
    """Where the bias on scaled cosines starts; None: a model without one. The sigmoid loss needs it."""
    short_dims: tuple[int, ...] = ()
    """Sizes to which its vectors may be cut, as it was trained; empty: nothing is known of it."""

    def __post_init__(self) -> None:
        check_positive("model", self, ("embed_dim",))

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> ModelConfig:
        """From the JSON of a models/*.json file. An unknown key is a ValueError that names it."""
        decoder = data.get("multimodal_cfg")
        rest = {k: v for k, v in data.items() if k not in ("vision_cfg", "text_cfg", "multimodal_cfg")}
        return from_mapping(
            cls,
            {
                **rest,
                "vision_cfg": from_mapping(ImageConfig, data["vision_cfg"]),
                "text_cfg": from_mapping(TextConfig, data["text_cfg"]),
                "short_dims": tuple(data.get("short_dims", ())),
                "multimodal_cfg": None if decoder is None else from_mapping(DecoderConfig, decoder),
            },
        )

    @classmethod
    def read(cls, path: Path) -> ModelConfig:
        return cls.parse(json.loads(path.read_text()))


def named_model(name: str) -> ModelConfig:
    """The architecture `name` of textmm/models/, or of a JSON file like those. ValueError lists the names there are."""
    if name.endswith(".json"):
        try:
            return ModelConfig.read(Path(name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    folder = resources.files("textmm") / "models"
    names = sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json"))
    if name not in names:
        raise ValueError(
            f"there is no model {name!r}; there are: {', '.join(names)}, JSON files of yours, and, by open_clip's "
            "names, CLIP's ViTs and CoCa"
        )
    return ModelConfig.parse(json.loads((folder / f"{name}.json").read_text()))


def from_mapping(cls: type[T], data: Mapping[str, Any], *, where: str = "") -> T:
    """A dataclass from a mapping; lists become tuples. ValueError names a key that is unknown, missing, or whose value
    is of another type; a whole number is a fine float."""
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise ValueError(f"unknown key {where}{key}; known here: {', '.join(sorted(known))}")
    for key, one in known.items():
        if key not in data and one.default is MISSING and one.default_factory is MISSING:
            raise ValueError(f"missing key {where}{key}")
    for key, kind in get_type_hints(cls).items():
        if key not in data:
            continue
        value = data[key]
        if get_origin(kind) is tuple and not isinstance(value, list | tuple):
            raise ValueError(f"{where}{key} must be a list, got {value!r}")
        fits = type(value) is kind or (kind is float and type(value) is int)
        if kind in (bool, int, float, str) and not fits:
            raise ValueError(f"{where}{key} must be of type {kind.__name__}, got {value!r}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def check_positive(where: str, config: object, names: tuple[str, ...]) -> None:
    """ValueError names the first of these fields that is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{where}.{name} must be at least 1, got {getattr(config, name)}")
