from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from textmm.config import TextConfig
from textmm.image import TrunkOutput
from textmm.text import CausalText, PretrainedText, text_encoder

CAUSAL = TextConfig(kind="causal", context_length=12, vocab_size=60, width=24, layers=2, heads=3)
PAIR = TextConfig(kind="pair", head_width=32)
START, END, PAD = 1, 59, 0
BERT_WIDTH, SENTENCE_WIDTH = 384, 512

Pair = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def causal() -> CausalText:
    return CausalText(CAUSAL, 16).eval()


@pytest.fixture(scope="module")
def pair() -> Iterator[PretrainedText]:
    """Both trunks with random weights: as wide as the published ones."""
    torch.manual_seed(4)
    model = PretrainedText(PAIR, 16).eval()
    sentence = model.trunks[1]
    sentence.table.random_(0, 256)  # type: ignore[operator]
    sentence.scale.fill_(0.01)  # type: ignore[operator]
    sentence.low.fill_(-1.28)  # type: ignore[operator]
    yield model


@pytest.mark.parametrize(
    ("kind", "widths"),
    [
        ("bert", [BERT_WIDTH]),
        ("sentence", [SENTENCE_WIDTH]),
        ("pair", [BERT_WIDTH, SENTENCE_WIDTH]),
    ],
)
def test_the_kind_of_a_config_picks_the_trunks(kind: str, widths: list[int]) -> None:
    model = text_encoder(TextConfig(kind=kind, head_width=8), 4)

    assert isinstance(model, PretrainedText)
    assert model.widths == widths
    assert isinstance(text_encoder(CAUSAL, 4), CausalText)


@torch.inference_mode()
def test_a_causal_tower_gives_normalised_features_and_a_state_a_token(causal: CausalText) -> None:
    features, tokens = causal((torch.tensor([[START, 5, 6, END], [START, 7, END, PAD]]),))

    assert features.shape == (2, 16)
    assert tokens.shape == (2, 4, 24)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))


@torch.inference_mode()
def test_a_later_token_changes_no_earlier_state(causal: CausalText) -> None:
    one = causal.trunk((torch.tensor([[START, 5, 6, 7, END]]),)).memory
    other = causal.trunk((torch.tensor([[START, 5, 6, 30, END]]),)).memory

    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert not torch.allclose(one[:, 3:], other[:, 3:])


@torch.inference_mode()
def test_padding_after_the_end_token_changes_nothing(causal: CausalText) -> None:
    text = [START, 5, 6, END]

    alone = causal((torch.tensor([text]),)).features
    padded = causal((torch.tensor([[*text, PAD, PAD, PAD]]),)).features

    torch.testing.assert_close(alone, padded)


@torch.inference_mode()
def test_a_text_is_pooled_at_its_end_token(causal: CausalText) -> None:
    ids = torch.tensor([[START, 5, END, PAD], [START, 5, 6, END]])

    out = causal.trunk((ids,))

    assert torch.equal(out.pooled, torch.stack([out.memory[0, 2], out.memory[1, 3]]))


def mixed() -> Pair:
    """Four texts for both trunks; the second and the last say nothing to BERT."""
    return (
        torch.tensor([[101, 2000, 2001, 102], [0, 0, 0, 0], [101, 3000, 102, 0], [0, 0, 0, 0]]),
        torch.tensor([[1, 50, 2, -1, -1], [1, 60, 61, 62, 2], [1, 70, 2, -1, -1], [1, 80, 81, 2, -1]]),
    )


def alone(tokens: Pair, row: int) -> Pair:
    """One text without the padding that its neighbours asked for."""
    bert, sentence = tokens[0][row], tokens[1][row]
    return bert[bert > 0][None], sentence[sentence >= 0][None]


@torch.inference_mode()
def test_a_mixed_batch_equals_its_texts_one_by_one(pair: PretrainedText) -> None:
    tokens = mixed()

    together = pair(tokens).features
    one_by_one = torch.cat([pair(alone(tokens, row)).features for row in range(4)])

    torch.testing.assert_close(together, one_by_one, atol=1e-5, rtol=1e-4)
    assert float((together[0] - together[2]).norm()) > 1e-3


@torch.inference_mode()
def test_a_text_without_tokens_for_a_trunk_has_zeros_there_and_is_said_to_be_absent(
    pair: PretrainedText,
) -> None:
    out = pair.trunk(mixed())

    assert out.present.tolist() == [[True, True], [False, True], [True, True], [False, True]]
    assert out.pooled.shape == (4, BERT_WIDTH + SENTENCE_WIDTH)
    bert, sentence = out.pooled[:, :BERT_WIDTH], out.pooled[:, BERT_WIDTH:]
    norms = torch.stack([bert.norm(dim=1), sentence.norm(dim=1)])
    torch.testing.assert_close(norms, torch.tensor([[1.0, 0, 1, 0], [1, 1, 1, 1]]))


@torch.inference_mode()
def test_what_an_absent_part_holds_does_not_matter_and_the_rest_is_scaled_up(pair: PretrainedText) -> None:
    out = pair.trunk(mixed())
    scribbled = out.pooled.clone()
    scribbled[1, :BERT_WIDTH] = 3.0
    x = pair.projection.standardise(out.pooled[1:2])
    x[:, :BERT_WIDTH] = 0
    expected = pair.projection(x * ((BERT_WIDTH + SENTENCE_WIDTH) / SENTENCE_WIDTH) ** 0.5)

    features = pair.project(out._replace(pooled=scribbled))

    torch.testing.assert_close(features[1:2], expected)
    torch.testing.assert_close(features, pair.project(out))


@torch.inference_mode()
def test_a_pair_skims_a_text_with_its_sentence_trunk_alone(pair: PretrainedText) -> None:
    bert, sentence = mixed()
    runs: list[int] = []
    hook = pair.trunks[0].register_forward_hook(lambda *_: runs.append(1))

    skimmed = pair.skim((bert, sentence))
    read_by_bert_too = len(runs)
    hook.remove()

    torch.testing.assert_close(skimmed, pair((torch.zeros_like(bert), sentence)).features)
    assert read_by_bert_too == 0
    assert float((skimmed - pair((bert, sentence)).features).norm()) > 1e-3


@torch.inference_mode()
def test_a_tower_of_one_trunk_skims_as_it_reads(causal: CausalText) -> None:
    tokens = (torch.tensor([[START, 5, 6, END], [START, 7, END, PAD]]),)

    torch.testing.assert_close(causal.skim(tokens), causal(tokens).features)


def test_training_leaves_out_each_part_of_a_quarter_of_the_texts_but_never_both() -> None:
    model = PretrainedText(PAIR, 16).train()
    show_which_parts_are_there(model)
    rows = 4000
    whole = TrunkOutput(torch.ones(rows, 896), torch.zeros(rows, 1, 1), torch.ones(rows, 2, dtype=torch.bool))
    torch.manual_seed(5)

    parts = model.project(whole)[:, :2] != 0

    assert bool(parts.any(1).all())
    assert float((~parts[:, 0]).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float((~parts[:, 1]).float().mean()) == pytest.approx(0.25, abs=0.03)


@torch.no_grad()
def show_which_parts_are_there(model: PretrainedText) -> None:
    """A head that hands on the first number of each part."""
    head = model.projection
    for parameter in (head.linear.weight, head.linear.bias, head.proj.weight, head.proj.bias):
        parameter.zero_()
    head.linear.weight[0, 0] = head.linear.weight[1, BERT_WIDTH] = 1.0
    head.in_dropout.shares = 0.0
