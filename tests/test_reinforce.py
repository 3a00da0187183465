import numpy as np
import pytest
import torch

from textmm.caption_metrics import cider_d
from textmm.config import DecoderConfig
from textmm.fusion import TextDecoder
from textmm.reinforce import CiderReward, reinforced_loss, sample_words

SENTENCES = {
    3: ("a dog runs on the grass", "a brown dog is running"),
    5: ("two men sit on a bench", "men on a bench in a park"),
    9: ("a girl jumps into the water", "the girl swims"),
}
PAD, START, END = 0, 1, 9


def decoder() -> TextDecoder:
    torch.manual_seed(0)
    made = TextDecoder(DecoderConfig(width=16, layers=1, heads=2, vocab_size=10, context_length=12), 8)
    torch.nn.init.normal_(made.word.weight, std=1.0)
    return made.eval()


def test_the_reward_orders_captions_as_cider_does() -> None:
    reward = CiderReward(SENTENCES)
    said = ["a dog runs on the grass", "a dog runs", "a brown dog", "two men sit on a bench", "the the the"]

    ours = [reward(3, one) for one in said]
    rest = [list(SENTENCES[5]), list(SENTENCES[9])]
    theirs = [
        3 * cider_d([one, "x", "y"], [list(SENTENCES[3]), *rest]) for one in said
    ]  # of the other two captions nothing is right

    assert np.argsort(ours).tolist() == np.argsort(theirs, kind="stable").tolist()
    assert min(ours[:3]) > ours[3]


def test_a_caption_that_stops_in_the_middle_is_worth_less() -> None:
    reward = CiderReward({**SENTENCES, 3: ("a dog runs on the grass",)})

    assert reward(3, "a dog runs on the grass") == pytest.approx(10.0)
    assert reward(3, "a dog runs on the") < 8


def test_samples_are_drawn_as_often_as_the_decoder_expects_them() -> None:
    model, image = decoder(), torch.randn(1, 3, 8)
    never = [PAD, START, 2]
    words = sample_words(model, image, samples=4000, start=START, end=END, pad=PAD, length=3, never=never)
    logits = model(torch.tensor([[START]]), image)[0, -1].detach()
    logits[never] = -torch.inf

    seen = torch.bincount(words[:, 1], minlength=10) / len(words)

    assert torch.allclose(seen, torch.softmax(logits, 0), atol=0.03)
    assert words[:, 0].eq(START).all() and not torch.isin(words[:, 1], torch.tensor(never)).any()


def test_after_its_end_a_sample_is_padding() -> None:
    words = sample_words(
        decoder(),
        torch.randn(2, 3, 8),
        samples=50,
        start=START,
        end=END,
        pad=PAD,
        length=12,
        never=[PAD, START],
    )

    for row in words.tolist():
        ended = row.index(END) if END in row else len(row)
        assert all(word != PAD for word in row[:ended]) and all(word == PAD for word in row[ended + 1 :])


def test_a_better_sample_becomes_likelier_and_a_worse_one_less_likely() -> None:
    model, image = decoder(), torch.randn(2, 3, 8)
    said = [[START, word, word + 1, END] for word in (3, 4, 5, 6, 7, 3)]
    words = torch.tensor(said)
    rewards = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    tokens = image.repeat_interleave(3, 0)

    def log_p() -> torch.Tensor:
        log = torch.log_softmax(model(words, tokens)[:, :-1], -1).gather(2, words[:, 1:, None])[..., 0]
        return (log).sum(1).detach()

    before = log_p()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        reinforced_loss(model(words, tokens), words, rewards, pad=PAD).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    gained = log_p() - before

    assert gained[0] > max(gained[1], gained[2]) and gained[5] > max(gained[3], gained[4])


def test_rewards_that_are_all_alike_teach_nothing() -> None:
    model, image = decoder(), torch.randn(2, 3, 8)
    words = sample_words(model, image, samples=3, start=START, end=END, pad=PAD, length=6, never=[PAD, START])

    loss = reinforced_loss(
        model(words, image.repeat_interleave(3, 0)), words, torch.full((2, 3), 2.0), pad=PAD
    )

    assert loss.item() == 0.0
