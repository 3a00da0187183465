"""The CoCa pair of losses: pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    scale: Tensor,
    positives: Tensor,
    *,
    ignored: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE (Oord et al. 2018, Radford et al. 2021) with any number of right answers a row.

    Features [n, embed_dim], L2-normalised; `scale` the factor on cosines; `positives` [n, n] bool, True where
    picture i and text j belong together (the diagonal always, identical texts or pictures too). A row's target
    is spread evenly over its positives; pairs in `ignored` [n, n] are left out of its sum. At random features
    and one positive a row: about ln(n).
    """
    logits = scale * image_features @ text_features.T  # [n pictures, n texts]
    if ignored is not None:
        logits = logits.masked_fill(ignored & ~positives, -1e4)
    loss_i = _soft_cross_entropy(logits, positives)
    loss_t = _soft_cross_entropy(logits.T, positives.T)
    return (loss_i + loss_t) / 2


def sigmoid_loss(
    image_features: Tensor,
    text_features: Tensor,
    scale: Tensor,
    bias: Tensor,
    positives: Tensor,
    *,
    ignored: Tensor | None = None,
) -> Tensor:
    """Sigmoid loss (Zhai et al. 2023, SigLIP): every pair is a question of its own, right or not.

    Arguments as in `contrastive_loss`; `bias` is added to the scaled cosines, about -10 at the start, since
    most pairs are wrong. The sum over all pairs that are not ignored, over the number of pictures.
    """
    logits = (scale * image_features @ text_features.T + bias).float()
    losses = -F.logsigmoid(torch.where(positives, logits, -logits))
    if ignored is not None:
        losses = losses.masked_fill(ignored & ~positives, 0.0)
    return losses.sum() / len(image_features)


def captioning_loss(logits: Tensor, words: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of next words [n] under logits [n, V]; `next_words` picks both out of a padded batch."""
    return F.cross_entropy(logits.float(), words, label_smoothing=label_smoothing)


def shortened(features: Tensor, dim: int) -> Tensor:
    """The first `dim` numbers of features [n, embed_dim], L2-normalised anew."""
    return features if dim == features.shape[1] else F.normalize(features[:, :dim], dim=-1)


def next_words(words: Tensor, pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Of captions [B, T]: where a real word follows, bool [B, T], and those words [n], row by row."""
    follows = words[:, 1:] != pad_token_id
    return F.pad(follows, (0, 1), value=False), words[:, 1:][follows]


def _soft_cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    target = positives.float()
    target = target / target.sum(1, keepdim=True)
    return -(target * torch.log_softmax(logits.float(), dim=1)).sum(1).mean()
