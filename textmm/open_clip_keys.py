"""Names and shapes of weights: open_clip's state dicts to ours and back, for CLIP's ViTs and CoCa.

Where both differ in more than names: open_clip packs the matrices of query, key and value into one (unless keys are of
another width) and multiplies projections from the right; a plain CLIP has its text tower at the top, others under
`text.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

STEMS = {
    "image.blocks.": "visual.transformer.resblocks.",
    "image.pooler.": "visual.attn_pool.",
    "text.blocks.": "text.transformer.resblocks.",
    "decoder.layers.": "text_decoder.resblocks.",
    "decoder.cross.": "text_decoder.cross_attn.",
    "image.patches.": "visual.conv1.",
    "image.class_token": "visual.class_embedding",
    "image.positions": "visual.positional_embedding",
    "image.norm_pre.": "visual.ln_pre.",
    "image.norm_post.": "visual.ln_post.",
    "image.projection.weight": "visual.proj",
    "text.word.": "text.token_embedding.",
    "text.positions": "text.positional_embedding",
    "text.class_token": "text.cls_emb",
    "text.norm.": "text.ln_final.",
    "text.projection.weight": "text.text_projection",
    "decoder.norm.": "text_decoder.ln_final.",
    "decoder.projection.weight": "text_decoder.text_projection",
    "logit_scale": "logit_scale",
    "logit_bias": "logit_bias",
}
"""How our keys begin -> how open_clip's do."""
PARTS = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "norm_image": "ln_1_kv",
    "norm_query": "ln_q",
    "norm_tokens": "ln_k",
    "mlp.fc": "mlp.c_fc",
    "mlp.proj": "mlp.c_proj",
    "attention.out": "attn.out_proj",
}
"""Parts of a block or a pooler."""
PACKED = ("query", "key", "value")
"""In the order in which open_clip packs them."""
TOP = ("positional_embedding", "text_projection", "token_embedding.", "transformer.", "ln_final.")
"""What a plain CLIP has at the top and others have under `text.`."""
DROPPED = ("attn_mask", "input_resolution", "context_length", "vocab_size")
"""Entries of older files that are no weights."""


@dataclass(frozen=True)
class Place:
    """Where one of our tensors is in open_clip's state dict."""

    key: str
    third: int | None = None
    """Which third of the rows; None: all of it."""
    transposed: bool = False


def from_open_clip(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's weights under our keys, as float32; `like` is the state dict of the model that they are for.

    Raises ValueError that names what is lacking, left over or of another shape.
    """
    given = _under_text(state)
    out: dict[str, Tensor] = {}
    used = set()
    for key, tensor in like.items():
        place = _place(key, like)
        if place.key not in given:
            raise ValueError(f"the weights lack {place.key}: are they of another architecture?")
        used.add(place.key)
        out[key] = _taken(given[place.key], place, tensor.shape)
    left = sorted(set(given) - used)
    if left:
        raise ValueError(
            f"the weights hold {left[0]}, which this architecture has not: are they of another one?"
        )
    return out


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under open_clip's keys; a model without class token and decoder as a plain CLIP."""
    out: dict[str, Tensor] = {}
    packed: dict[str, list[Tensor]] = {}
    for key, tensor in state.items():
        place = _place(key, state)
        if place.third is not None:
            packed.setdefault(place.key, [tensor] * 3)[place.third] = tensor
        else:
            out[place.key] = (tensor.T if place.transposed else tensor).contiguous()
    out |= {key: torch.cat(thirds) for key, thirds in packed.items()}
    if "text.class_token" in state:
        return out
    return {key.removeprefix("text."): tensor for key, tensor in out.items()}


def _under_text(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix of a parallel training, with the text tower under `text.`, without what is no weight."""
    plain = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return {
        f"text.{key}" if key.startswith(TOP) else key: tensor
        for key, tensor in plain.items()
        if key.rpartition(".")[2] not in DROPPED
    }


def _place(key: str, ours: Mapping[str, Tensor]) -> Place:
    stem = max((stem for stem in STEMS if key.startswith(stem)), key=len, default="")
    if not stem:
        raise ValueError(f"open_clip has no counterpart of {key}")
    theirs, rest = STEMS[stem], key.removeprefix(stem)
    if stem.endswith("projection.weight"):
        return Place(theirs, transposed=True)
    if stem not in ("image.blocks.", "image.pooler.", "text.blocks.", "decoder.layers.", "decoder.cross."):
        return Place(theirs + rest)
    number, dot, part = rest.partition(".") if rest[0].isdigit() else ("", "", rest)
    name, _, kind = part.rpartition(".")
    if name in PARTS:
        return Place(f"{theirs}{number}{dot}{PARTS[name]}.{kind}")
    if not name:  # the pooler's queries
        return Place(theirs + part)
    return _packed(f"{theirs}{number}{dot}attn.", key.removesuffix(part), name, kind, ours)


def _packed(theirs: str, stem: str, name: str, kind: str, ours: Mapping[str, Tensor]) -> Place:
    """Of `attention.query.weight` and its like."""
    which = name.removeprefix("attention.")
    shapes = {ours[f"{stem}attention.{w}.weight"].shape for w in PACKED}
    if kind == "weight" and len(shapes) > 1:
        return Place(f"{theirs}{which[0]}_proj_weight")
    return Place(f"{theirs}in_proj_{kind}", third=PACKED.index(which))


def _taken(tensor: Tensor, place: Place, shape: torch.Size) -> Tensor:
    tensor = tensor.T if place.transposed else tensor
    if place.third is not None:
        rows = len(tensor) // 3
        tensor = tensor[place.third * rows : (place.third + 1) * rows]
    if not shape:
        tensor = tensor.reshape(())  # some trainings keep the scale as [1]
    if tensor.shape != shape:
        found, wanted = list(tensor.shape), list(shape)
        raise ValueError(
            f"{place.key} is {found} where this architecture has {wanted}: are they of another one?"
        )
    return tensor.float().contiguous()
