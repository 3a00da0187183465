"""open_clip's description of a model (`open_clip_config.json`) to ours and back; nothing of open_clip is run."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textmm.config import DecoderConfig, ImageConfig, ModelConfig, TextConfig

CLIP_VOCABULARY = 49408
FILE_NAME = "open_clip_config.json"
PREPROCESSING: dict[str, Any] = {
    "mean": list(ImageConfig.mean),
    "std": list(ImageConfig.std),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
"""open_clip's, where neither a file nor a tag says otherwise."""

MODEL_KEYS = {
    *("embed_dim", "vision_cfg", "text_cfg", "multimodal_cfg", "quick_gelu", "custom_text"),
    "init_logit_bias",
}
VISION_KEYS = {
    *("image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "output_tokens"),
    *("attentional_pool", "attn_pooler_queries", "attn_pooler_heads", "patch_dropout"),
}
TEXT_KEYS = {
    "context_length",
    "vocab_size",
    "width",
    "heads",
    "layers",
    "mlp_ratio",
    "embed_cls",
    "output_tokens",
}
DECODER_KEYS = {
    *("context_length", "vocab_size", "width", "heads", "layers"),
    *(
        "mlp_ratio",
        "dim_head",
        "n_queries",
        "attn_pooler_heads",
    ),  # open_clip reads these and does not use them
}
DEFAULTS = {
    "pool_type": ("tok", "argmax"),
    "proj_type": ("linear",),
    "pos_embed_type": ("learnable",),
    "eos_id": (2,),
}
"""Values of further keys that change nothing; so do none, false and 0."""


def package_folder() -> Path:
    """Where open_clip is installed; ValueError when it is not."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ValueError("open_clip is not installed: pip install open_clip_torch")
    return Path(spec.origin).parent


def architecture(name: str) -> dict[str, Any] | None:
    """open_clip's `model_cfg` of an architecture, None when it has none of that name or is not installed."""
    if importlib.util.find_spec("open_clip") is None:
        return None
    path = package_folder() / "model_configs" / f"{name}.json"
    stored: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return stored


def model_config(model: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> ModelConfig | None:
    """Ours of a CLIP ViT or CoCa; None for every other architecture.

    Raises ValueError for preprocessing that we cannot do.
    """
    vision, text, decoder = model["vision_cfg"], model["text_cfg"], model.get("multimodal_cfg")
    known = (
        _known(model, MODEL_KEYS)
        and _known(vision, VISION_KEYS)
        and _known(text, TEXT_KEYS)
        and _known(decoder or {}, DECODER_KEYS)
    )
    if not known or not isinstance(vision.get("layers", 12), int) or not _ours(model):
        return None
    width = vision.get("width", 768)
    image = image_config(
        model,
        preprocessing,
        kind="vit",
        width=width,
        layers=vision.get("layers", 12),
        heads=width // vision.get("head_width", 64),
        patch_size=vision.get("patch_size", 16),
        mlp_ratio=float(vision.get("mlp_ratio", 4.0)),
        attentional_pool=bool(vision.get("attentional_pool")),
        attn_pooler_queries=vision.get("attn_pooler_queries", 256),
        attn_pooler_heads=vision.get("attn_pooler_heads", 8),
    )
    words = TextConfig(
        context_length=text.get("context_length", 77),
        width=text.get("width", 512),
        layers=text.get("layers", 12),
        heads=text.get("heads", 8),
        mlp_ratio=float(text.get("mlp_ratio", 4.0)),
        embed_cls=bool(text.get("embed_cls")),
    )
    return ModelConfig(
        embed_dim=model["embed_dim"],
        vision_cfg=image,
        text_cfg=words,
        multimodal_cfg=None if decoder is None else _decoder_config(decoder),
        quick_gelu=bool(model.get("quick_gelu")),
        init_logit_bias=model.get("init_logit_bias"),
    )


def image_config(model: Mapping[str, Any], preprocessing: Mapping[str, Any], **fields: Any) -> ImageConfig:
    """Size and preprocessing of a model, with further fields of ours. ValueError for a way that we do not have."""
    how = {**PREPROCESSING, **{key: value for key, value in preprocessing.items() if value is not None}}
    size = how.get("size", model["vision_cfg"].get("image_size", 224))
    sides = set(size) if isinstance(size, list | tuple) else {size}
    if len(sides) != 1:
        raise ValueError(f"pictures of {size} pixels: only models that see squares are run here")
    return ImageConfig(
        image_size=sides.pop(),
        resize_mode=how["resize_mode"],
        mean=_three(how["mean"]),
        std=_three(how["std"]),
        interpolation="bilinear" if how["interpolation"] == "bilinear" else "bicubic",
        exact_resize=True,
        **fields,
    )


def open_clip_config(config: ModelConfig) -> dict[str, Any]:
    """What open_clip reads from `open_clip_config.json`. ValueError when it has no such architecture."""
    image, text, decoder = config.vision_cfg, config.text_cfg, config.multimodal_cfg
    if image.kind != "vit" or text.kind != "causal" or (decoder is not None and decoder.kind != "coca"):
        raise ValueError(f"open_clip has no {image.kind} with a text tower {text.kind} and such a decoder")
    if image.width % image.heads:
        raise ValueError(f"vision_cfg.width {image.width} is not a multiple of heads {image.heads}")
    shared: dict[str, Any] = {"context_length": text.context_length, "vocab_size": text.vocab_size}
    model: dict[str, Any] = {
        "embed_dim": config.embed_dim,
        "quick_gelu": config.quick_gelu,
        "vision_cfg": {
            "image_size": image.image_size,
            "layers": image.layers,
            "width": image.width,
            "head_width": image.width // image.heads,
            "patch_size": image.patch_size,
            "mlp_ratio": image.mlp_ratio,
            "attentional_pool": image.attentional_pool,
            "attn_pooler_queries": image.attn_pooler_queries,
            "attn_pooler_heads": image.attn_pooler_heads,
            "output_tokens": decoder is not None,
        },
        "text_cfg": {
            **shared,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
            "mlp_ratio": text.mlp_ratio,
            "embed_cls": text.embed_cls,
            "output_tokens": decoder is not None,
        },
        "custom_text": text.embed_cls,
    }
    if config.init_logit_bias is not None:
        model["init_logit_bias"] = config.init_logit_bias
    if decoder is not None:
        sizes = {"width": decoder.width, "heads": decoder.heads, "layers": decoder.layers}
        model["multimodal_cfg"] = {**shared, **sizes}
    return {
        "model_cfg": model,
        "preprocess_cfg": {
            "size": image.image_size,
            "mean": list(image.mean),
            "std": list(image.std),
            "interpolation": image.interpolation,
            "resize_mode": image.resize_mode,
        },
    }


def _ours(model: Mapping[str, Any]) -> bool:
    """Whether towers of these shapes stand in our classes: CLIP's vocabulary, and of decoders that of CoCa."""
    vision, text, decoder = model["vision_cfg"], model["text_cfg"], model.get("multimodal_cfg")
    pooled, cls = vision.get("attentional_pool", False), bool(text.get("embed_cls"))
    if not isinstance(pooled, bool) or text.get("vocab_size", CLIP_VOCABULARY) != CLIP_VOCABULARY:
        return False
    if decoder is None:
        return not cls
    widths = {model["embed_dim"], text.get("width", 512), decoder.get("width", 512)}
    return pooled and cls and len(widths) == 1


def _decoder_config(decoder: Mapping[str, Any]) -> DecoderConfig:
    return DecoderConfig(
        kind="coca",
        width=decoder.get("width", 512),
        layers=decoder.get("layers", 12),
        heads=decoder.get("heads", 8),
        vocab_size=CLIP_VOCABULARY,
        context_length=decoder.get("context_length", 77),
        styles=("photo",),
    )


def _known(part: Mapping[str, Any], keys: set[str]) -> bool:
    """Whether nothing in this part of a description is beyond our classes."""
    return all(key in keys or not value or value in DEFAULTS.get(key, ()) for key, value in part.items())


def _three(value: Any) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, list | tuple) else (value,) * 3
    return float(red), float(green), float(blue)
