import copy

import pytest
import torch
from torch import Tensor, nn

from textmm.efficientnet import LITE0, EfficientNetLite, InvertedResidual, SameConv

PUBLISHED_EPS = 1e-3
STRIDES = [(3, 1), (3, 2), (5, 1), (5, 2)]


def same_conv_by_loop(conv: SameConv, x: Tensor) -> Tensor:
    """TensorFlow's SAME, pixel by pixel: ceil(n / stride) outputs, the smaller half of the padding first."""
    kernel, stride, n = conv.kernel_size[0], conv.stride[0], x.shape[-1]
    count = -(-n // stride)
    total = max((count - 1) * stride + kernel - n, 0)
    before = total // 2
    assert conv.bias is not None
    out = conv.bias[:, None, None].repeat(1, count, count)
    for i in range(count):
        for j in range(count):
            for a in range(kernel):
                for b in range(kernel):
                    y, z = i * stride + a - before, j * stride + b - before
                    if 0 <= y < n and 0 <= z < n:
                        out[:, i, j] += conv.weight[:, :, a, b] @ x[:, y, z]
    return out


@torch.no_grad()
@pytest.mark.parametrize(("kernel", "stride"), STRIDES)
@pytest.mark.parametrize("side", [6, 7, 8, 9])
def test_same_conv_pads_as_tensorflow_does(kernel: int, stride: int, side: int) -> None:
    conv = SameConv(2, 3, kernel, stride=stride)
    x = torch.randn(2, side, side)

    torch.testing.assert_close(conv(x[None])[0], same_conv_by_loop(conv, x))


@torch.no_grad()
def test_same_conv_pads_height_and_width_each_by_its_own_size() -> None:
    conv = SameConv(2, 3, 3, stride=2)
    x = torch.randn(1, 2, 8, 7)
    tall = torch.zeros(1, 2, 9, 9)  # even sides get one row at the end, odd ones one at both ends
    tall[:, :, :8, 1:8] = x

    torch.testing.assert_close(conv(x), nn.functional.conv2d(tall, conv.weight, conv.bias, stride=2))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), *STRIDES])
def test_relu6_in_the_pass_of_the_convolution_is_relu6_after_it(
    kernel: int, stride: int, groups: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(2)
    conv = SameConv(16, 32 if groups == 1 else 16, kernel, stride=stride, groups=groups).to(dtype)
    conv.to(memory_format=torch.channels_last)
    x = (20 * torch.randn(3, 16, 15, 12)).to(dtype).contiguous(memory_format=torch.channels_last)

    y = conv.relu6(x)

    plain = nn.functional.relu6(conv(x))
    torch.testing.assert_close(y, plain)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert bool((plain == 0).any()) and bool((plain == 6).any())


@torch.no_grad()
@pytest.mark.parametrize("whole", [True, False])
def test_in_bfloat16_it_sees_nearly_what_it_sees_in_float32(whole: bool) -> None:
    torch.manual_seed(3)
    trunk = EfficientNetLite(LITE0[:5])
    narrowed = copy.deepcopy(trunk)
    narrowed.to_bfloat16(whole=whole)
    x = torch.randn(2, 3, 64, 64)
    expected, expected_top = trunk(x)

    maps, top = narrowed(x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last))

    later = torch.bfloat16 if whole else torch.float32
    assert [one.dtype for one in (*maps, top)] == [torch.bfloat16] * 4 + [later] * 3
    for one, as_it_is in zip((*maps, top), (*expected, expected_top), strict=True):
        assert (
            float(nn.functional.cosine_similarity(one.float().flatten(), as_it_is.flatten(), dim=0)) > 0.995
        )


def test_where_something_learns_relu6_is_differentiable() -> None:
    conv = SameConv(3, 4, 3)
    x = torch.randn(1, 3, 5, 5, requires_grad=True)

    grads = torch.autograd.grad(conv.relu6(x).sum(), [x, conv.weight])

    assert all(float(grad.abs().sum()) > 0 for grad in grads)


@pytest.mark.parametrize(("kernel", "stride"), STRIDES)
@pytest.mark.parametrize("sides", [(7, 7), (14, 14), (13, 8), (8, 5)])
def test_what_a_depthwise_convolution_learns_is_what_torch_learns(
    kernel: int, stride: int, sides: tuple[int, int]
) -> None:
    conv = SameConv(6, 6, kernel, stride=stride, groups=6)
    x = torch.randn(2, 6, *sides, requires_grad=True)
    plain = copy.deepcopy(conv)
    y = x.detach().clone().requires_grad_()

    out = conv(x)
    pull = torch.randn_like(out)
    out.backward(pull)
    missing = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in sides]
    (below, right), half = missing, kernel // 2
    padding = (
        (half, half, half, half)
        if stride == 1
        else (right // 2, right - right // 2, below // 2, below - below // 2)
    )
    wide = nn.functional.pad(y, padding)
    expected = nn.functional.conv2d(wide, plain.weight, plain.bias, stride=stride, groups=6)
    expected.backward(pull)  # type: ignore[no-untyped-call]

    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(conv.weight.grad, plain.weight.grad, atol=1e-4, rtol=1e-4)
    assert conv.bias is not None
    assert plain.bias is not None
    torch.testing.assert_close(conv.bias.grad, plain.bias.grad, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("stages", [0, 3, 7])
def test_first_and_later_stages_make_the_whole(stages: int) -> None:
    net = EfficientNetLite()
    images = torch.randn(1, 3, 64, 64)

    first = net.first(images, stages)
    later, top = net.later(first[-1], stages)

    maps, whole_top = net(images)
    assert len(first) == stages + 1
    assert all(torch.equal(a, b) for a, b in zip([*first, *later], maps, strict=True))
    assert torch.equal(top, whole_top)


def published_weights(
    net: EfficientNetLite,
) -> tuple[dict[str, Tensor], list[tuple[SameConv, nn.Sequential]]]:
    """Random weights under the published names, and each convolution beside plain conv + batch norm."""
    weights: dict[str, Tensor] = {}
    plain = []

    def add(ours: SameConv, conv_name: str, norm_name: str) -> None:
        conv = nn.Conv2d(
            ours.in_channels, ours.out_channels, ours.kernel_size[0], groups=ours.groups, bias=False
        )
        norm = nn.BatchNorm2d(ours.out_channels, eps=PUBLISHED_EPS)
        norm.weight.data.uniform_(0.5, 2)
        norm.bias.data.normal_()
        norm.running_mean = torch.randn(ours.out_channels)
        norm.running_var = torch.rand(ours.out_channels) + 0.1
        weights[f"{conv_name}.weight"] = conv.weight.data
        weights.update({f"{norm_name}.{k}": v for k, v in norm.state_dict().items()})
        plain.append((ours, nn.Sequential(conv, norm).eval()))

    add(net.stem, "_conv_stem", "_bn0")
    blocks = [block for block in net.stages.modules() if isinstance(block, InvertedResidual)]
    for i, block in enumerate(blocks):
        if block.expand is not None:
            add(block.expand, f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0")
        add(block.depthwise, f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1")
        add(block.project, f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2")
    add(net.head, "_conv_head", "_bn1")
    return weights, plain


@torch.no_grad()
def test_folded_convolutions_equal_convolution_and_batch_norm() -> None:
    net = EfficientNetLite(LITE0[:3])
    weights, plain = published_weights(net)

    net.load_published(weights)

    for ours, theirs in plain:
        x = torch.randn(2, ours.in_channels, 5, 5)
        without_padding = nn.functional.conv2d(x, ours.weight, ours.bias, groups=ours.groups)
        torch.testing.assert_close(without_padding, theirs(x), atol=1e-4, rtol=1e-4)
    assert len(plain) == 1 + 2 + 3 * 2 + 3 * 2 + 1


def test_a_published_file_that_lacks_a_weight_is_a_key_error_that_names_it() -> None:
    net = EfficientNetLite(LITE0[:1])
    weights, _ = published_weights(net)
    del weights["_blocks.0._bn2.running_mean"]

    with pytest.raises(KeyError, match=r"_blocks\.0\._bn2\.running_mean"):
        net.load_published(weights)


@torch.inference_mode()
def test_a_picture_shrinks_by_32_over_seven_stages() -> None:
    maps, top = EfficientNetLite()(torch.randn(1, 3, 64, 96))

    shapes = [tuple(m.shape[1:]) for m in maps]
    assert shapes == [
        (32, 32, 48),
        (16, 32, 48),
        (24, 16, 24),
        (40, 8, 12),
        (80, 4, 6),
        (112, 4, 6),
        (192, 2, 3),
        (320, 2, 3),
    ]
    assert top.shape == (1, 1280, 2, 3)
    assert float(top.min()) >= 0
    assert float(top.max()) <= 6
