"""Questions about pictures: the encoder, the route, the SDK and the command, with a model that was never trained."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from search.app import close, create_app
from search.ask import UNKNOWN
from search.client import Client, InvalidRequest
from search.config import Config
from tests.conftest import NO_TRUNKS, Run
from tests.drawn import draw, encoded
from textmm import checkpoint
from textmm.encoder import Answer, Encoder
from textmm.fusion import QuestionTokens
from textmm.model import TextMultiModalModel
from textmm.text import CausalText
from textmm.transforms import to_tensor

RED, BLUE = draw("circle", "red"), draw("cross", "blue")
QUESTIONS = ["what is it?", "what colour is it, would you say?", "它是什么颜色?"]


@pytest.fixture(scope="module")
def asking(asker: Path) -> Encoder:
    return Encoder.load(str(asker), NO_TRUNKS, threads=1)


@pytest.fixture
def remote(config: Config, asking: Encoder) -> Iterator[Client]:
    app = create_app(config, encoder=asking)
    with Client("http://test", transport=httpx.WSGITransport(app=app)) as remote:
        yield remote
    close(app)


def test_an_answer_depends_on_its_own_picture_and_question_alone(asking: Encoder) -> None:
    pictures, texts = [RED, BLUE, RED], QUESTIONS
    together = asking.answer(pictures, texts)
    alone = [asking.answer([image], [text])[0] for image, text in zip(pictures, texts, strict=True)]

    assert [one.text for one in together] == [one.text for one in alone]
    np.testing.assert_allclose([a.confidence for a in together], [a.confidence for a in alone], rtol=1e-4)
    assert all(0 < one.confidence <= 1 for one in together)


def test_choices_are_ranked_by_probability_and_share_all_of_it(asking: Encoder) -> None:
    first, second = asking.rank_answers([RED, BLUE], QUESTIONS[:2], [["red", "blue", "green"], ["yes", "no"]])

    assert {one.text for one in first} == {"red", "blue", "green"} and len(second) == 2
    for ranked in (first, second):
        shares = [one.confidence for one in ranked]
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)


def test_a_free_answer_is_as_probable_as_its_words_one_after_the_other(asking: Encoder) -> None:
    (answer,) = asking.answer([RED], ["what is it?"])
    ((alone,),) = asking.rank_answers([RED], ["what is it?"], [[answer.text]])

    assert alone.confidence == pytest.approx(1) and answer.confidence < 1


def test_a_model_without_questions_says_so(encoder: Encoder) -> None:
    assert not encoder.asks
    with pytest.raises(ValueError, match="was not trained to answer questions"):
        encoder.answer([RED], ["what is it?"])


@pytest.mark.slow
def test_the_route_gives_the_encoders_answers_and_does_not_know_what_is_improbable(
    remote: Client, asking: Encoder
) -> None:
    expected = asking.answer([asking.fit(RED), asking.fit(BLUE)], ["what is it?"] * 2)
    least = asking.calibration.answer_at_least

    found = remote.ask([encoded(RED), encoded(BLUE)], question="what is it?").results

    np.testing.assert_allclose([f.confidence for f in found], [e.confidence for e in expected], atol=1e-4)
    assert all(one.confidence < least for one in expected)  # nothing is sure to a model of chance
    assert [(f.known, f.answer) for f in found] == [(False, UNKNOWN[False])] * 2
    assert remote.ask([encoded(RED)], question="这是什么?").results[0].answer == UNKNOWN[True]

    ranked = remote.ask([encoded(RED)], question="what is it?", choices=["red", "blue"]).results[0]
    assert ranked.known == (ranked.confidence >= least) and ranked.choices[0].confidence == ranked.confidence
    assert sum(one.confidence for one in ranked.choices) == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_what_is_probable_enough_is_said_free_ranked_and_of_stored_pictures_at_once(
    remote: Client, asking: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "calibration", replace(asking.calibration, answer_at_least=0.0))
    remote.put_collection("shop")
    remote.put_image("shop", "blue", encoded(BLUE))
    expected = asking.answer([asking.fit(BLUE)], ["what is it?"])[0].text
    asks = [{"choices": ["red", "blue"]}, {}] * 4

    with ThreadPoolExecutor(8) as pool:  # free and ranked ones share a batch
        answers = list(
            pool.map(
                lambda how: remote.ask(question="what is it?", collection="shop", image_keys=["blue"], **how),
                asks,
            )
        )

    for how, (found,) in zip(asks, (answer.results for answer in answers), strict=True):
        assert found.known and found.answer == (found.choices[0].answer if how else expected)


@pytest.mark.slow
def test_a_choice_that_the_model_would_hardly_say_is_not_given_and_still_ranked(
    remote: Client, asking: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ranked,) = asking.rank_answers([asking.fit(RED)], ["what is it?"], [["red", "blue"]])
    sayable = sum(one.free for one in ranked)
    answers = []
    for least in (sayable * 0.9, min(1.0, sayable * 1.1)):
        fitted = replace(asking.calibration, answer_at_least=0.0, choices_at_least=least)
        monkeypatch.setattr(asking, "calibration", fitted)
        answers += remote.ask(encoded(RED), question="what is it?", choices=["red", "blue"]).results

    fitted = replace(asking.calibration, answer_at_least=0.0, choices_at_least=1.0)
    monkeypatch.setattr(asking, "calibration", fitted)
    assert remote.ask(encoded(RED), question="what is it?").results[0].known  # a free answer is no choice
    assert 0 < sayable < 1
    assert [one.known for one in answers] == [True, False]
    assert answers[1].answer == UNKNOWN[False]
    assert [one.answer for one in answers[1].choices] == [one.text for one in ranked]


@pytest.mark.slow
def test_an_answer_is_in_the_language_that_is_asked_for(
    remote: Client, asking: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "calibration", replace(asking.calibration, answer_at_least=0.0))

    def answers(said: str, language: str | None) -> str:
        made = [Answer(said, 1.0, 1.0)]
        monkeypatch.setattr(asking, "answer", lambda images, questions: made * len(images))
        return remote.ask(encoded(RED), question="what is it?", language=language).results[0].answer

    assert answers("navy blue", "zh") == "藏青色" and answers("yes", "zh") == "是"
    assert answers("藏青色", None) == answers("藏青色", "en") == "navy blue"
    assert answers("a dog, unheard of", "zh") == "狗, unheard of"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (["red"], "holds one answer"),
        (["red", "red"], "holds an answer twice"),
        (["Red", "red"], "holds an answer twice"),
    ],
)
def test_choices_that_are_none_are_refused(remote: Client, choices: list[str], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        remote.ask([encoded(RED)], question="what is it?", choices=choices)


def test_tokens_of_a_question_stand_after_those_of_its_picture_and_do_not_bend_the_space(asker: Path) -> None:
    loaded = checkpoint.load(str(asker), NO_TRUNKS)
    model = loaded.model
    assert isinstance(model, TextMultiModalModel) and model.question is not None
    image = model.encode_image(to_tensor([RED, BLUE], model.config.vision_cfg))
    question = model.text.trunk(loaded.tokenizer(["what is it?", "which colour?"]))

    tokens = model.encode_question(image, question)
    torch.autograd.backward(tokens.sum())

    assert tokens.shape == (2, image.tokens.shape[1] + QuestionTokens.COUNT, image.tokens.shape[2])
    assert torch.equal(tokens[:, : -QuestionTokens.COUNT], image.tokens)
    assert not torch.allclose(tokens[0, -QuestionTokens.COUNT :], tokens[1, -QuestionTokens.COUNT :])
    assert isinstance(model.text, CausalText) and model.text.projection.weight.grad is None
    assert model.question.proj.weight.grad is not None


@pytest.mark.slow
def test_a_model_without_questions_refuses_on_the_wire(demo_server: str) -> None:
    with Client(demo_server) as remote, pytest.raises(InvalidRequest, match="was not trained to answer"):
        remote.ask([encoded(RED)], question="what is it?")


@pytest.mark.slow
def test_the_command_answers_and_its_exit_code_says_whether_it_knows(
    run: Run, asker: Path, tmp_path: Path
) -> None:
    picture, settings = tmp_path / "red.png", tmp_path / "own.toml"
    picture.write_bytes(encoded(RED))
    settings.write_text(f'data = "{tmp_path}"\n[model]\nname = "{asker}"\n')
    asked = ("ask", picture, "what is it?", "--config", settings)

    unknown, chosen = run(*asked), run(*asked, "--choices", "red, blue")

    assert (unknown.code, unknown.out.split(" (")[0]) == (1, UNKNOWN[False])
    assert {line.split("\t")[0] for line in chosen.out.splitlines()[1:]} == {"  red", "  blue"}


def test_answers_are_measured_on_the_attributes_of_a_catalogue(run: Run, asker: Path, tmp_path: Path) -> None:
    table = tmp_path / "products.csv"
    table.write_text("key,path,colour\na,a.png,red\nb,b.png,blue\n")
    for name, picture in (("a", RED), ("b", BLUE)):
        picture.save(tmp_path / f"{name}.png")

    done = run("evaluate", asker, table, "--task", "ask", "--json")
    other = run("evaluate", asker, table, "--task", "ask", "--language", "tlh")
    misplaced = run("evaluate", asker, table, "--task", "retrieval", "--questions", "questions.toml")

    row = json.loads(done.out)
    assert (row["task"], row["images"], row["questions"]) == ("visual_question_answering", 2, 2)
    assert 0 <= row["metrics"]["answer_accuracy"] <= 1
    assert (other.code, "has no questions in 'tlh'; it has en, zh" in other.err) == (2, True)
    assert (misplaced.code, "--questions goes with --task ask" in misplaced.err) == (2, True)
