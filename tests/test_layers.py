import math

import pytest
import torch

from textmm.layers import MLP, Attention, Block, ProjectionHead

WIDTH, HEADS = 12, 3


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def attention_by_loop(
    attention: Attention, x: torch.Tensor, source: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    """Query by query and head by head; `seen` [T, S] says which keys a query may see."""
    size = WIDTH // HEADS
    q, k, v = attention.query(x), attention.key(source), attention.value(source)
    out = torch.zeros_like(q)
    for b in range(len(x)):
        for t in range(x.shape[1]):
            for h in range(HEADS):
                at = slice(h * size, (h + 1) * size)
                scores = [float(q[b, t, at] @ k[b, s, at]) / math.sqrt(size) for s in range(source.shape[1])]
                weights = [math.exp(w) * float(seen[t, s]) for s, w in enumerate(scores)]
                for s, weight in enumerate(weights):
                    out[b, t, at] += weight / sum(weights) * v[b, s, at]
    y: torch.Tensor = attention.out(out)
    return y


def test_attention_is_the_loop_over_queries_heads_and_keys(x: torch.Tensor) -> None:
    attention = Attention(WIDTH, HEADS)

    out = attention(x, attention.keys_values(x))

    torch.testing.assert_close(out, attention_by_loop(attention, x, x, torch.ones(5, 5)))


def test_attention_over_a_source_of_another_width_is_the_loop(x: torch.Tensor) -> None:
    attention = Attention(WIDTH, HEADS, source_width=7)
    source = torch.randn(2, 9, 7)

    out = attention(x, attention.keys_values(source))

    torch.testing.assert_close(out, attention_by_loop(attention, x, source, torch.ones(5, 9)))


def test_causal_attention_sees_no_later_key_and_a_mask_only_what_it_allows(x: torch.Tensor) -> None:
    attention = Attention(WIDTH, HEADS)
    allowed = torch.tensor([True, False, True, True, False])

    causal = attention(x, attention.keys_values(x), causal=True)
    masked = attention(x, attention.keys_values(x), mask=allowed[None, None, None])

    torch.testing.assert_close(causal, attention_by_loop(attention, x, x, torch.ones(5, 5).tril()))
    torch.testing.assert_close(masked, attention_by_loop(attention, x, x, allowed.expand(5, 5)))


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 10 is not a multiple of heads 3"):
        Attention(10, 3)


def test_a_block_without_weights_in_its_outputs_hands_on_its_input(x: torch.Tensor) -> None:
    block = Block(WIDTH, HEADS)
    for linear in (block.attention.out, block.mlp.proj):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)

    assert torch.equal(block(x), x)


def test_an_mlp_is_two_matrices_around_the_exact_gelu(x: torch.Tensor) -> None:
    mlp = MLP(WIDTH, ratio=2)
    hidden = x @ mlp.fc.weight.T + mlp.fc.bias

    expected = (hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2) @ mlp.proj.weight.T + mlp.proj.bias

    torch.testing.assert_close(mlp(x), expected)


def test_a_fitted_head_standardises_training_features_to_mean_0_and_deviation_1() -> None:
    head = ProjectionHead(4, 8, 3)
    features = torch.randn(500, 4) * torch.tensor([1.0, 20.0, 0.1, 1.0]) + torch.tensor([0.0, 5.0, -3.0, 9.0])
    head.fit(features)

    rows = head.standardise(features)

    torch.testing.assert_close(rows.mean(0), torch.zeros(4), atol=0.02, rtol=0)
    torch.testing.assert_close(rows.std(0), torch.ones(4), atol=0.02, rtol=0)


def test_a_feature_far_from_training_stays_within_6_and_a_constant_one_is_finite() -> None:
    head = ProjectionHead(2, 8, 3)
    head.fit(torch.stack([torch.arange(10.0), torch.full((10,), 4.0)], dim=1))

    rows = head.standardise(torch.tensor([[1e6, 4.0], [-1e6, 4.1]]))

    assert rows.tolist() == [[6.0, 0.0], [-6.0, 6.0]]


def test_a_head_in_use_is_a_linear_path_beside_an_mlp_and_normalised() -> None:
    head = ProjectionHead(4, 8, 3).eval()
    x = torch.randn(6, 4)
    y = head.linear(x) + head.proj(torch.nn.functional.gelu(head.fc(x)))

    torch.testing.assert_close(head(x), y / y.square().sum(1, keepdim=True).sqrt())
