"""EfficientNet-Lite: a locked convolutional trunk (Tan & Le 2019; the Lite variants are TensorFlow's).

Batch norms are folded into the convolutions when the weights are read, so the module holds convolutions only.
"""

# B batch, C channels, H W pixels

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight


@dataclass(frozen=True)
class Stage:
    kernel: int
    stride: int
    expand: int
    width: int
    repeats: int


LITE0 = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
LITE2 = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 3),
    Stage(5, 2, 6, 48, 3),
    Stage(3, 2, 6, 88, 4),
    Stage(5, 1, 6, 120, 4),
    Stage(5, 2, 6, 208, 5),
    Stage(3, 1, 6, 352, 1),
)
STEM_WIDTH, HEAD_WIDTH = 32, 1280
WIDE_STAGES = 3
"""Whose maps are so large that moving them takes longer than multiplying."""
FUSES = (
    torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
)
"""Whether oneDNN can put ReLU6 into a convolution here: without AVX-512 it refuses bfloat16."""
BN_EPS = 1e-3


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME does: at stride 2 the odd pixel goes right and below."""

    def __init__(
        self, width_in: int, width_out: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(width_in, width_out, kernel, stride=stride, padding=padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        x = self._padded(x)
        if self.groups > 1 and x.requires_grad and x.device.type == "cpu":
            assert self.bias is not None
            out: Tensor = _Depthwise.apply(x, self.weight, self.bias, self.stride[0], self.padding[0])
            return out
        return super().forward(x)

    def relu6(self, x: Tensor) -> Tensor:
        """ReLU6 of the convolution. On a CPU, where nothing learns, in the same pass: the same bits, a tenth sooner."""
        if not FUSES or torch.is_grad_enabled() or x.device.type != "cpu":
            return F.relu6(self(x), inplace=True)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            self._padded(x),
            self.weight,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            "hardtanh",
            [0.0, 6.0],
            "",
        )
        return out

    def _padded(self, x: Tensor) -> Tensor:
        if self.stride[0] == 1:
            return x
        bottom, right = (self._missing(n) for n in x.shape[2:])
        return F.pad(x, (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2))

    def _missing(self, n: int) -> int:
        kernel, stride = self.kernel_size[0], self.stride[0]
        return max((-(-n // stride) - 1) * stride + kernel - n, 0)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose input learns by one more depthwise convolution, with the kernel turned.

    On a CPU oneDNN's own way back takes four times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        y = F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=len(weight))
        ctx.save_for_backward(x.to(y.dtype), weight)
        ctx.stride, ctx.padding, ctx.dtype = stride, padding, x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        stride, padding, kernel = ctx.stride, ctx.padding, weight.shape[-1]
        height, width = x.shape[2:]
        spread = grad
        if stride > 1:  # what a step skipped is 0, and so is what it did not reach at the end
            spread = grad.new_zeros(
                *grad.shape[:2], height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1
            ).to(memory_format=torch.channels_last)
            spread[:, :, ::stride, ::stride] = grad
        turned = weight.flip((2, 3)).to(grad.dtype)
        back = F.conv2d(spread, turned, padding=kernel - 1 - padding, groups=len(weight))
        learnt = None
        if ctx.needs_input_grad[1]:
            learnt = conv2d_weight(  # type: ignore[no-untyped-call]
                x, weight.shape, grad, stride=stride, padding=padding, groups=len(weight)
            ).to(weight.dtype)
        return back.to(ctx.dtype), learnt, grad.sum((0, 2, 3), dtype=torch.float32), None, None


class InvertedResidual(nn.Module):
    def __init__(self, width_in: int, stage: Stage, *, first: bool) -> None:
        super().__init__()
        stride = stage.stride if first else 1
        hidden = width_in * stage.expand
        self.expand = SameConv(width_in, hidden, 1) if stage.expand > 1 else None
        self.depthwise = SameConv(hidden, hidden, stage.kernel, stride=stride, groups=hidden)
        self.project = SameConv(hidden, stage.width, 1)
        self.residual = stride == 1 and width_in == stage.width

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand.relu6(x)
        y = self.project(self.depthwise.relu6(y))
        out: Tensor = x + y if self.residual else y
        return out


class EfficientNetLite(nn.Module):
    """images [B, 3, H, W], (x - 127) / 128 -> the end of the stem and of each stage, and the head's map."""

    def __init__(self, stages: tuple[Stage, ...] = LITE0) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_WIDTH, 3, stride=2)
        self.stages = nn.ModuleList()
        width = STEM_WIDTH
        for stage in stages:
            blocks = []
            for i in range(stage.repeats):
                blocks.append(InvertedResidual(width, stage, first=i == 0))
                width = stage.width
            self.stages.append(nn.Sequential(*blocks))
        self.head = SameConv(width, HEAD_WIDTH, 1)
        self.stage_widths = (STEM_WIDTH, *(stage.width for stage in stages))
        self._float_from: int | None = None
        """The stage from which on weights and maps are float32 while they are bfloat16 before it."""

    def to_bfloat16(self, *, whole: bool) -> None:
        """To bfloat16, channels last: all of it, or the stem and the first WIDE_STAGES stages."""
        self.to(memory_format=torch.channels_last)
        for part in (self,) if whole else (self.stem, *self.stages[:WIDE_STAGES]):
            part.to(torch.bfloat16)
        self._float_from = None if whole else WIDE_STAGES

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """-> (the end of the stem and of each stage [B, C, h, w], head map [B, 1280, H/32, W/32])."""
        maps = self.first(images, len(self.stages))
        return maps, self.later(maps[-1], len(self.stages))[1]

    def first(self, images: Tensor, stages: int) -> list[Tensor]:
        """The end of the stem and of the first `stages` stages."""
        maps = [self.stem.relu6(images)]
        for i in range(stages):
            maps.append(self._stage(i, maps[-1]))
        return maps

    def later(self, x: Tensor, stages: int) -> tuple[list[Tensor], Tensor]:
        """What comes of the end `x` of the first `stages` stages -> (the end of each later one, head map)."""
        maps = []
        for i in range(stages, len(self.stages)):
            x = self._stage(i, x)
            maps.append(x)
        return maps, self.head.relu6(x)

    def _stage(self, i: int, x: Tensor) -> Tensor:
        out: Tensor = self.stages[i](x.float() if i == self._float_from else x)
        return out

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Read the published checkpoint's names, batch norms folded in fp32. KeyError names what is missing."""
        _fold(self.stem, weights, "_conv_stem", "_bn0")
        blocks = [m for m in self.stages.modules() if isinstance(m, InvertedResidual)]
        for i, block in enumerate(blocks):
            at = f"_blocks.{i}."
            if block.expand is not None:
                _fold(block.expand, weights, at + "_expand_conv", at + "_bn0")
            _fold(block.depthwise, weights, at + "_depthwise_conv", at + "_bn1")
            _fold(block.project, weights, at + "_project_conv", at + "_bn2")
        _fold(self.head, weights, "_conv_head", "_bn1")


def _fold(conv: nn.Conv2d, weights: Mapping[str, Tensor], conv_name: str, norm_name: str) -> None:
    gain = weights[f"{norm_name}.weight"] / torch.sqrt(weights[f"{norm_name}.running_var"] + BN_EPS)
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(weights[f"{conv_name}.weight"] * gain[:, None, None, None])
        conv.bias.copy_(weights[f"{norm_name}.bias"] - weights[f"{norm_name}.running_mean"] * gain)
