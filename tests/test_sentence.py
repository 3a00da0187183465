import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from textmm.sentence import BRANCH, CHUNK_ROWS, CHUNKS, WIDTH, SentenceEncoder

JOINT = 3 * BRANCH

Reals = NDArray[np.float64]


def published_weights(rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    def some(*shape: int) -> NDArray[np.float32]:
        return (rng.normal(size=shape) * 0.05).astype(np.float32)

    weights: dict[str, NDArray[np.generic]] = {
        f"q{i + 1}": rng.integers(0, 256, (CHUNK_ROWS, WIDTH), np.uint8) for i in range(CHUNKS)
    }
    weights |= {"scale": rng.uniform(0.01, 0.02, CHUNKS).astype(np.float32), "lo": some(CHUNKS) - 1.5}
    for n in (2, 3, 5):
        weights |= {f"proj{n}": some(WIDTH, BRANCH), f"proj_b{n}": some(BRANCH)}
        weights |= {f"ln_g{n}": some(BRANCH) + 1, f"ln_b{n}": some(BRANCH)}
        weights |= {f"w1_{n}": some(n * BRANCH, BRANCH), f"b1_{n}": some(BRANCH)}
        weights |= {f"w2_{n}": some(n * BRANCH, BRANCH), f"b2_{n}": some(BRANCH)}
    weights |= {"ln_g": some(WIDTH + JOINT) + 1, "ln_b": some(WIDTH + JOINT)}
    weights |= {"cnn_W": some(WIDTH + JOINT, WIDTH), "cnn_b": some(WIDTH), "eps": np.array(1e-6)}
    shapes = {"d0": 320, "d1": 320, "p1": 320, "d2": WIDTH, "p3": WIDTH, "d3": WIDTH}
    inputs = {"d0": WIDTH, "d1": 320, "p1": WIDTH, "d2": 320, "p3": 320, "d3": WIDTH}
    weights |= {name: some(inputs[name], shapes[name]) for name in shapes}
    return weights


@pytest.fixture(scope="module")
def weights() -> dict[str, NDArray[np.generic]]:
    return published_weights(np.random.default_rng(6))


@pytest.fixture(scope="module")
def encoder(weights: dict[str, NDArray[np.generic]]) -> SentenceEncoder:
    encoder = SentenceEncoder().eval()
    encoder.load_published(weights)
    return encoder


def layer_norm(x: Reals, gain: Reals, bias: Reals) -> Reals:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    out: Reals = (x - mean) / np.sqrt(variance + 1e-6) * gain + bias
    return out


def by_loop(weights: dict[str, NDArray[np.generic]], ids: list[int]) -> Reals:
    """One sentence in numpy, token by token, in the names of the published file."""
    w = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    table = [w[f"q{i % CHUNKS + 1}"][i // CHUNKS] for i in ids]
    x = np.stack(
        [row * w["scale"][i % CHUNKS] + w["lo"][i % CHUNKS] for row, i in zip(table, ids, strict=True)]
    )
    projected = np.concatenate([x @ w[f"proj{n}"] + w[f"proj_b{n}"] for n in (2, 3, 5)], axis=1)
    gains = [np.concatenate([w[f"{k}{n}"] for n in (2, 3, 5)]) for k in ("ln_g", "ln_b")]
    normed = np.split(layer_norm(projected, *gains), 3, axis=1)

    def convolve(y: Reals, layer: int, n: int, left: int) -> Reals:
        out = []
        for t in range(len(ids)):
            window = [y[s] if 0 <= s < len(ids) else np.zeros(BRANCH) for s in range(t - left, t - left + n)]
            out.append(np.maximum(np.concatenate(window) @ w[f"w{layer}_{n}"] + w[f"b{layer}_{n}"], 0))
        return np.stack(out)

    parts = [x]
    for y, n, left in zip(normed, (2, 3, 5), (0, 1, 2), strict=True):
        h = convolve(y, 1, n, left) + y
        parts.append(convolve(h, 2, n, left) + h)
    states = layer_norm(np.concatenate(parts, axis=1), w["ln_g"], w["ln_b"])
    s = (states @ w["cnn_W"] + w["cnn_b"]).sum(0) / np.sqrt(len(ids))
    y1 = np.maximum(s @ w["p1"] + np.maximum(s @ w["d0"], 0) @ w["d1"], 0)
    z = np.tanh(y1 @ w["p3"] + np.maximum(y1 @ w["d2"], 0) @ w["d3"])
    out: Reals = z / np.linalg.norm(z)
    return out


@torch.inference_mode()
@pytest.mark.parametrize("ids", [[1, 0, 2], [1, 40, 17 * 7530 - 1, 5, 99, 2], [1, 2], [7]])
def test_a_sentence_is_what_the_published_weights_make_of_it_token_by_token(
    encoder: SentenceEncoder, weights: dict[str, NDArray[np.generic]], ids: list[int]
) -> None:
    _, features = encoder(torch.tensor([ids]))

    np.testing.assert_allclose(features[0].numpy(), by_loop(weights, ids), atol=1e-5)


@torch.inference_mode()
def test_padding_changes_no_feature_and_its_states_are_zero(encoder: SentenceEncoder) -> None:
    ids = torch.tensor([[1, 40, 50, 2]])
    padded = torch.tensor([[1, 40, 50, 2, -1, -1, -1], [1, 40, 50, 60, 70, 80, 2]])

    states, features = encoder(padded)

    torch.testing.assert_close(features[:1], encoder(ids)[1], atol=1e-6, rtol=1e-5)
    assert states.shape == (2, 7, WIDTH + JOINT)
    assert float(states[0, 4:].abs().max()) == 0.0
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))


@torch.inference_mode()
def test_sentences_much_alike_read_together_are_each_what_it_is_alone(encoder: SentenceEncoder) -> None:
    rng = np.random.default_rng(3)
    rows = [[1, *rng.choice([40, 50, 60], size=rng.integers(1, 12)).tolist(), 2] for _ in range(40)]
    tokens = torch.full((len(rows), max(map(len, rows))), -1)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)

    states, features = encoder(tokens)

    for i, row in enumerate(rows):
        own_states, own_features = encoder(torch.tensor([row]))
        torch.testing.assert_close(states[i, : len(row)], own_states[0], atol=1e-5, rtol=1e-5)
        assert not states[i, len(row) :].any()
        torch.testing.assert_close(features[i], own_features[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(encoder.features(tokens), features)


def test_a_published_file_that_lacks_a_weight_is_a_key_error_that_names_it(
    weights: dict[str, NDArray[np.generic]],
) -> None:
    rest = {name: array for name, array in weights.items() if name != "w2_3"}

    with pytest.raises(KeyError, match="w2_3"):
        SentenceEncoder().load_published(rest)
