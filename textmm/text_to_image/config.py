"""Architecture of a generator, as its config.json says."""

from __future__ import annotations

from dataclasses import dataclass

from textmm.config import check_positive


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    height: int = 128
    width: int = 96
    """Pixels, multiples of 16."""
    channels: int = 32
    """Of a latent."""
    widths: tuple[int, int, int, int] = (48, 96, 192, 256)
    """At a half, a quarter, an eighth and a sixteenth of the sides."""
    encoder_blocks: tuple[int, int, int, int] = (1, 2, 2, 2)
    decoder_blocks: tuple[int, int, int, int] = (2, 2, 2, 3)
    noise: float = 0.12
    """Deviation of the noise on latents in training, whose own is 1."""

    def __post_init__(self) -> None:
        check_positive("autoencoder", self, ("height", "width", "channels"))
        if self.height % STRIDE or self.width % STRIDE:
            raise ValueError(
                f"autoencoder.height and width must be multiples of {STRIDE}, got {self.height} x {self.width}"
            )

    @property
    def places(self) -> tuple[int, int]:
        return self.height // STRIDE, self.width // STRIDE


STRIDE = 16
"""Pixels a side to one place of a latent."""


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    channels: int
    places: tuple[int, int]
    words_widths: tuple[int, ...]
    """Of what each text trunk makes of words."""
    width: int = 256
    layers: int = 10
    heads: int = 4
    hidden: int = 384
    """Channels within an MLP."""

    def __post_init__(self) -> None:
        check_positive("flow", self, ("channels", "width", "layers", "heads", "hidden"))
        if self.width % self.heads:
            raise ValueError(f"flow.width {self.width} must be a multiple of flow.heads {self.heads}")
