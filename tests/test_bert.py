import pytest
import torch
from torch import Tensor, nn

from textmm.bert import Bert

WIDTH, LAYERS, HEADS = 16, 2, 4


@pytest.fixture(scope="module")
def bert() -> Bert:
    return Bert(vocab_size=50, width=WIDTH, layers=LAYERS, heads=HEADS, positions=20).eval()


def published_weights() -> dict[str, Tensor]:
    shapes = {
        "embeddings.word_embeddings.weight": (50, WIDTH),
        "embeddings.position_embeddings.weight": (20, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
    }
    for i in range(LAYERS):
        at = f"encoder.layer.{i}"
        for name in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ):
            shapes |= {f"{at}.{name}.weight": (WIDTH, WIDTH), f"{at}.{name}.bias": (WIDTH,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}.{name}.weight": (WIDTH,), f"{at}.{name}.bias": (WIDTH,)}
        shapes |= {
            f"{at}.intermediate.dense.weight": (4 * WIDTH, WIDTH),
            f"{at}.intermediate.dense.bias": (4 * WIDTH,),
            f"{at}.output.dense.weight": (WIDTH, 4 * WIDTH),
            f"{at}.output.dense.bias": (WIDTH,),
        }
    rng = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=rng) * 0.3 for name, shape in shapes.items()}


def torch_encoder(weights: dict[str, Tensor]) -> nn.TransformerEncoder:
    """PyTorch's own post-norm encoder with the same weights."""
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    )
    encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    state = {}
    for i in range(LAYERS):
        at, to = f"encoder.layer.{i}", f"layers.{i}"
        for part in ("weight", "bias"):
            names = [f"{at}.attention.self.{n}.{part}" for n in ("query", "key", "value")]
            state[f"{to}.self_attn.in_proj_{part}"] = torch.cat([weights[n] for n in names])
            state[f"{to}.self_attn.out_proj.{part}"] = weights[f"{at}.attention.output.dense.{part}"]
            state[f"{to}.linear1.{part}"] = weights[f"{at}.intermediate.dense.{part}"]
            state[f"{to}.linear2.{part}"] = weights[f"{at}.output.dense.{part}"]
            state[f"{to}.norm1.{part}"] = weights[f"{at}.attention.output.LayerNorm.{part}"]
            state[f"{to}.norm2.{part}"] = weights[f"{at}.output.LayerNorm.{part}"]
    encoder.load_state_dict(state)
    return encoder


@torch.no_grad()
def test_bert_with_published_names_is_pytorchs_post_norm_encoder(bert: Bert) -> None:
    weights = published_weights()
    ids = torch.tensor([[3, 7, 9, 4], [5, 6, 0, 0]])
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][:4]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    norm = (weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"])
    x = nn.functional.layer_norm(x, (WIDTH,), *norm, eps=1e-12)
    encoder = torch_encoder(weights)  # in training mode without dropout: its fast path would zero the padding
    expected = encoder(x, src_key_padding_mask=ids == 0)

    bert.load_published(weights)

    hidden = bert(ids)
    torch.testing.assert_close(hidden[0], expected[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(hidden[1, :2], expected[1, :2], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_changes_no_feature(bert: Bert) -> None:
    ids = torch.tensor([[3, 7, 9, 4]])
    padded = torch.tensor([[3, 7, 9, 4, 0, 0, 0]])

    torch.testing.assert_close(bert.pool(bert(padded), padded), bert.pool(bert(ids), ids))


@torch.no_grad()
def test_the_feature_is_the_normalised_mean_over_real_tokens(bert: Bert) -> None:
    ids = torch.tensor([[3, 7, 0], [5, 0, 0]])
    hidden = bert(ids)
    means = torch.stack([hidden[0, :2].mean(0), hidden[1, 0]])

    features = bert.pool(hidden, ids)

    torch.testing.assert_close(features, means / means.norm(dim=1, keepdim=True))


def test_a_published_file_that_lacks_a_weight_is_a_key_error_that_names_it(bert: Bert) -> None:
    weights = published_weights()
    del weights["encoder.layer.1.output.dense.bias"]

    with pytest.raises(KeyError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        bert.load_published(weights)
