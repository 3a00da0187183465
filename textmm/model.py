"""TextMultiModalModel: image tower, text tower, fusion and decoder joined."""

# B batch, E embed_dim, N image tokens, T words, V vocabulary

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from textmm.coca import CoCaDecoder
from textmm.config import ModelConfig
from textmm.fusion import QuestionTokens, TextDecoder
from textmm.image import Encoded, TrunkOutput, image_encoder
from textmm.text import ClassTokenText, Tokens, text_encoder

MAX_LOGIT_SCALE = math.log(100.0)


class ModelOutput(NamedTuple):
    image_features: Tensor
    """[B, E]"""
    text_features: Tensor
    """[B, E]"""
    caption_logits: Tensor | None
    """[B, T, V], or None without caption words or without a decoder."""
    logit_scale: Tensor
    """The factor on cosines, a scalar: 1 / temperature."""


class TextMultiModalModel(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        quick = config.quick_gelu
        self.image = image_encoder(config.vision_cfg, config.embed_dim, quick_gelu=quick)
        self.text = text_encoder(config.text_cfg, config.embed_dim, quick_gelu=quick)
        self.decoder = self._decoder()
        self.question = self._question()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        bias = config.init_logit_bias
        self.logit_bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    def _decoder(self) -> TextDecoder | CoCaDecoder | None:
        config = self.config.multimodal_cfg
        if config is None:
            return None
        if config.kind == "fusion":
            return TextDecoder(config, self.image.token_width)
        if not isinstance(self.text, ClassTokenText):
            raise ValueError(
                "multimodal_cfg.kind coca needs text_cfg.embed_cls: its layers stand on CoCa's text tower"
            )
        return CoCaDecoder(config, self.text, quick_gelu=self.config.quick_gelu)

    def _question(self) -> QuestionTokens | None:
        config = self.config.multimodal_cfg
        if config is None or not config.questions:
            return None
        return QuestionTokens(
            self.text.pooled_width,
            self.config.embed_dim,
            hidden=config.question_width,
            width=self.image.token_width,
        )

    def encode_image(self, images: Tensor) -> Encoded:
        """Normalised images [B, 3, H, W] -> features [B, E], tokens [B, N, D]."""
        out: Encoded = self.image(images)
        return out

    def encode_text(self, tokens: Tokens) -> Encoded:
        """Token ids -> features [B, E], tokens [B, T, D]."""
        out: Encoded = self.text(tokens)
        return out

    def encode_question(self, image: Encoded, question: TrunkOutput) -> Tensor:
        """Pictures and what the text trunk makes of a question to each -> tokens for the decoder, [B, N + 3, D].

        The heads of the shared space do not learn from answers. ValueError when the model answers no questions.
        """
        if self.question is None:
            raise ValueError("this model answers no questions: multimodal_cfg.questions is false")
        place = self.text.project(question).detach()
        asked = self.question(self.text.meaning(question), place, image.features.detach())
        return torch.cat([image.tokens, asked.to(image.tokens.dtype)], dim=1)

    def scale(self, most: float = MAX_LOGIT_SCALE) -> Tensor:
        """logit_scale as a factor, clamped at exp(most)."""
        return self.logit_scale.clamp(max=most).exp()

    def forward(self, images: Tensor, tokens: Tokens, words: Tensor | None = None) -> ModelOutput:
        """`words` [B, T]: caption ids that begin with a style token."""
        image, text = self.encode_image(images), self.encode_text(tokens)
        logits = None if self.decoder is None or words is None else self.decoder(words, image.tokens)
        return ModelOutput(image.features, text.features, logits, self.scale())
