"""Captions, recognition and copy over the pictures of a request: through the SDK and on the bare wire."""

import base64
import csv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from indexer.database import Database
from search import client
from search import messages as m
from search.app import close, create_app
from search.batching import Batching
from search.classify import KEPT_SETS, Classifier
from search.client import Client, InvalidRequest, NotFound
from search.config import Config, ServerSection
from search.copywriting import describe, may_be_told
from tests.drawn import COLOURS, SHAPES, draw, encoded
from tests.hostile import HOSTILE, JPEG, Hostile
from tests.refusals import refusal
from tests.test_batching import start
from textmm.calibration import AttributeCalibration
from textmm.classify import probabilities
from textmm.encoder import CaptionDecoding, Encoder

RED, BLUE = draw("circle", "red"), draw("cross", "blue")
LABELS = ["a red circle", "a blue cross", "a yellow square"]
ROUTES: dict[str, dict[str, Any]] = {"captions": {}, "classify": {"labels": LABELS}, "copy": {}}
each_route = pytest.mark.parametrize("route", ROUTES)


@pytest.fixture
def wire(demo_server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo_server) as wire:
        yield wire


@pytest.fixture
def remote(demo_server: str) -> Iterator[Client]:
    with Client(demo_server) as remote:
        yield remote


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_pictures_are_recognised_as_the_encoder_sees_them(remote: Client, encoder: Encoder) -> None:
    answer = remote.classify([encoded(RED), encoded(BLUE)], labels=LABELS, templates=["{}"], k=2)

    scores = encoder.encode_images([RED, BLUE]) @ encoder.encode_texts(LABELS).T
    likely = probabilities(scores, encoder.calibration.temperature)
    best = np.argsort(-likely, axis=1)[:, :2]
    told = [found.labels for found in answer.results]
    assert [[one.label for one in labels] for labels in told] == [[LABELS[i] for i in row] for row in best]
    np.testing.assert_allclose(
        [[one.probability for one in labels] for labels in told],
        np.take_along_axis(likely, best, axis=1),
        atol=1e-4,
    )
    assert [found.labels[0].label for found in answer.results] == LABELS[:2]
    assert answer.results[0].labels[0].score == pytest.approx(scores[0, 0], abs=1e-4)
    assert (answer.model_id, answer.templates) == (encoder.model_id, ["{}"])
    assert answer.temperature == encoder.calibration.temperature


def test_all_probabilities_of_a_picture_sum_to_1_and_the_models_own_templates_are_told(
    remote: Client, encoder: Encoder
) -> None:
    answer = remote.classify([encoded(RED)], labels=[*COLOURS, "pink", "grey"])

    (five,) = remote.classify([encoded(RED)], labels=[*COLOURS, "pink", "grey"], k=6).results
    assert sum(one.probability for one in five.labels) == pytest.approx(1, abs=1e-5)
    assert len(answer.results[0].labels) == 5
    assert answer.templates == list(encoder.calibration.templates)


def test_a_label_set_is_encoded_once_and_the_oldest_is_let_go(encoder: Encoder) -> None:
    classifier = Classifier(encoder, encoder)
    first = classifier.vectors(LABELS, ["{}"])

    again = classifier.vectors(LABELS, ["{}"])
    other = classifier.vectors(LABELS, ["a {}"])
    for i in range(KEPT_SETS):
        classifier.vectors([f"a {i}", f"b {i}"], ["{}"])
    later = classifier.vectors(LABELS, ["{}"])

    assert again is first
    assert other is not first
    assert later is not first
    np.testing.assert_allclose(later, first, atol=1e-6)


@each_route
def test_uploads_base64_and_stored_pictures_are_answered_in_this_order(
    wire: httpx.Client, route: str
) -> None:
    stored = {"collection": "shop", "image_keys": ["red-circle.png", "green-square.png"]}
    body = ROUTES[route] | stored | {"image": base64_of(encoded(BLUE)), "images": [base64_of(encoded(RED))]}
    files = [("image", ("a", encoded(draw("triangle", "yellow")))), ("image", ("b", encoded(BLUE)))]
    form = [("request", (None, m.to_json(body))), *files]

    mixed = wire.post(f"/v1/{route}", files=form).json()

    singles = [draw("triangle", "yellow"), BLUE, BLUE, RED, RED, draw("square", "green")]
    alone = [
        wire.post(f"/v1/{route}", json=ROUTES[route] | {"image": base64_of(encoded(one))}).json()
        for one in singles
    ]
    name = "captions" if route == "captions" else "results"
    assert [_words(one) for one in mixed[name]] == [_words(one[name][0]) for one in alone]


def _words(answer: Any) -> Any:
    """Without the numbers, which differ in the last digits between batches."""
    if isinstance(answer, dict):
        return {name: _words(value) for name, value in answer.items()}
    if isinstance(answer, list):
        return [_words(one) for one in answer]
    return round(answer, 3) if isinstance(answer, float) else answer


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({"temperature": 1.0, "beams": 2}, "goes with one beam"),
        ({"max_length": 999}, "max_length must be above"),
        ({"beams": 65}, "decoding.beams"),
        ({"heat": 1}, "heat"),
    ],
)
def test_a_decoding_that_cannot_be_is_refused(
    remote: Client, wire: httpx.Client, wishes: dict[str, Any], expected: str
) -> None:
    body = {"images": [base64_of(encoded(RED))], "decoding": wishes}

    answer = wire.post("/v1/captions", json=body)

    assert answer.status_code == 400 and expected in answer.text


def test_captions_are_decoded_as_wished_and_a_seed_says_the_same_again(
    remote: Client, encoder: Encoder
) -> None:
    pictures = [encoded(RED), encoded(BLUE)]

    def said(**wishes: Any) -> list[str]:
        return [caption.text for caption in remote.captions(pictures, decoding=wishes).captions]

    how = CaptionDecoding(temperature=3.0, seed=4)
    drawn = [caption.text for caption in encoder.caption_images([RED, BLUE], how=how)]
    assert (
        said(temperature=3.0, seed=4)
        == said(temperature=3.0, seed=4)
        == drawn
        != said(temperature=3.0, seed=5)
    )
    assert remote.caption(pictures[0], decoding={"temperature": 3.0, "seed": 4}).caption.text == drawn[0]
    with pytest.raises(InvalidRequest, match="remembered"):
        remote.caption(collection="shop", image_key="red-circle.png", decoding={"beams": 1})


def test_one_picture_needs_no_list_and_may_be_a_path(remote: Client, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    path.write_bytes(encoded(RED))
    expected = remote.classify([path], labels=LABELS)

    assert remote.classify(path, labels=LABELS) == remote.classify(str(path), labels=LABELS) == expected
    assert remote.classify(path.read_bytes(), labels=LABELS) == expected
    assert remote.captions(path) == remote.captions([str(path)])
    assert remote.copy(path) == remote.copy([path])


def test_alt_text_of_a_folder_names_what_cannot_be_read_and_loses_nothing_else(
    remote: Client, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MOST_AT_ONCE", 2)
    (tmp_path / "below").mkdir()
    names = ["a b.png", "below/c.png", "d.png", "e.png"]
    for name, picture in zip(names, (RED, BLUE, RED, BLUE), strict=True):
        (tmp_path / name).write_bytes(encoded(picture))
    (tmp_path / "d.png").write_bytes(encoded(RED)[:40])
    (tmp_path / "notes.txt").write_text("no picture")

    table, failed = remote.alt_text(tmp_path)
    lines, _ = remote.alt_text(tmp_path, format="html")

    said = [caption.text for caption in encoder.caption_images([RED, BLUE])]
    rows = list(csv.DictReader(table.splitlines()))
    assert [(row["key"], row["alt"]) for row in rows] == list(
        zip(("a b.png", "below/c.png", "e.png"), (*said, said[1]), strict=True)
    )
    assert list(failed) == ["d.png"]
    assert lines.splitlines()[0] == f'<img src="a%20b.png" alt="{said[0]}">'


def test_alt_text_of_a_folder_goes_on_where_the_server_takes_less_or_is_busy(
    config: Config, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(config, server=replace(config.server, max_inputs=3, max_body_bytes=6_000))
    app = create_app(small, encoder=encoder)
    folder = tmp_path / "pictures"
    (folder / "x.png").mkdir(parents=True)  # a folder that is called like a picture
    for number in range(7):
        (folder / f"{number}.png").write_bytes(encoded(RED))
    (folder / "large.png").write_bytes(encoded(RED) + b"0" * 9_000)
    asked = iter([True, False, True])
    busy = client.Overloaded(429, m.Error(code="overloaded", type="x", message="later"), 0.0)

    class Busy(httpx.BaseTransport):
        def __init__(self) -> None:
            self.inner = httpx.WSGITransport(app=app)

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if next(asked, False):
                raise busy
            return self.inner.handle_request(request)

    with Client("http://test", transport=Busy()) as remote:
        table, failed = remote.alt_text(folder)
    close(app)

    assert [row["key"] for row in csv.DictReader(table.splitlines())] == [f"{n}.png" for n in range(7)]
    assert list(failed) == ["large.png"]


def test_alt_text_of_uploads_and_stored_pictures_is_csv_or_html_and_needs_a_name_each(
    wire: httpx.Client,
) -> None:
    body = {
        "images": [base64_of(encoded(RED))],
        "collection": "shop",
        "image_keys": ["red-circle.png"],
    }

    table = wire.post("/v1/alt", json=body)
    page = wire.post("/v1/alt", json=body | {"format": "html", "names": ["/a.png", "b?x=1&y.png"]})
    short = wire.post("/v1/alt", json=body | {"names": ["a.png"]})

    assert table.headers["Content-Type"].startswith("text/csv")
    assert [row["key"] for row in csv.DictReader(table.text.splitlines())] == ["image-1", "red-circle.png"]
    assert page.headers["Content-Type"].startswith("text/html") and 'src="b?x=1&amp;y.png"' in page.text
    assert refusal(short) == (400, "invalid_request", "names")


@each_route
@pytest.mark.parametrize("hostile", HOSTILE, ids=[one.name for one in HOSTILE])
def test_a_picture_that_cannot_be_read_is_named_by_its_place(
    wire: httpx.Client, route: str, hostile: Hostile
) -> None:
    body = ROUTES[route] | {"images": [base64_of(JPEG), base64_of(hostile.data)]}

    answer = wire.post(f"/v1/{route}", json=body)

    expected = {
        "readable": None,
        "unreadable": (422, "image_unreadable", "images[1]"),
        "too_large": (413, "too_large", "images[1]"),
    }[hostile.outcome]
    assert (None if answer.status_code == 200 else refusal(answer)) == expected


@each_route
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (400, "invalid_request", "image")),
        ({"images": []}, (400, "invalid_request", "image")),
        ({"images": ["not base64!"]}, (400, "invalid_request", "images[0]")),
        ({"images": ["https://example.org/a.png"]}, (400, "invalid_request", "images[0]")),
        ({"images": [""]}, (422, "image_unreadable", "images[0]")),
        ({"images": [""] * 257}, (413, "too_large", "images")),
        ({"image": 5}, (400, "invalid_request", "image")),
        ({"colour": "red"}, (400, "invalid_request", "colour")),
        ({"image_keys": ["red-circle.png"]}, (400, "invalid_request", "image_keys")),
        ({"collection": "shop", "image": ""}, (400, "invalid_request", "image_keys")),
        ({"collection": "shop", "image_keys": ["lost.png"]}, (404, "not_found", "image_key")),
        ({"collection": "nowhere", "image_keys": ["a"]}, (404, "not_found", "collection")),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    wire: httpx.Client, route: str, fields: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    assert refusal(wire.post(f"/v1/{route}", json=ROUTES[route] | fields)) == expected


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 400, "labels"),
        ({"labels": []}, 400, "labels"),
        ({"labels": ["one"]}, 400, "labels"),
        ({"labels": ["a", " "]}, 400, "labels[1]"),
        ({"labels": ["a", "b", "a"]}, 400, "labels"),
        ({"labels": ["a", "x" * 201]}, 400, "labels"),
        ({"labels": ["a", "\0"]}, 400, "labels"),
        ({"labels": [str(i) for i in range(1001)]}, 400, "labels"),
        ({"labels": LABELS, "k": 0}, 400, "k"),
        ({"labels": LABELS, "templates": ["{}", "a photo"]}, 400, "templates[1]"),
        ({"labels": LABELS, "templates": ["{0.__class__}"]}, 400, "templates[0]"),
        (
            {
                "labels": [str(i) for i in range(1000)],
                "templates": ["{}", "a {}", "the {}", "one {}", "my {}"],
            },
            413,
            "labels",
        ),
    ],
)
def test_labels_and_templates_that_make_no_sense_are_refused(
    wire: httpx.Client, fields: dict[str, Any], status: int, param: str
) -> None:
    answer = wire.post("/v1/classify", json=fields | {"image": base64_of(JPEG)})

    assert answer.json()["error"]["param"].startswith(param)
    assert answer.status_code == status


@pytest.mark.parametrize("label", ["{}", "{0}", "%s", "🙂🏽", "图片", "x" * 200, "'; DROP TABLE image; --"])
def test_any_words_may_be_a_label(remote: Client, label: str) -> None:
    (found,) = remote.classify([JPEG], labels=[label, "a red circle"]).results

    assert {one.label for one in found.labels} == {label, "a red circle"}


def test_captions_are_those_of_the_encoder(remote: Client, encoder: Encoder) -> None:
    answer = remote.captions([encoded(RED), encoded(BLUE)])

    made = encoder.caption_images([RED, BLUE])
    assert [(one.text, one.generated) for one in answer.captions] == [(one.text, True) for one in made]
    assert [one.score for one in answer.captions] == pytest.approx([one.score for one in made], abs=1e-4)
    with pytest.raises(InvalidRequest, match="style 'poem' is none of this model's styles: photo"):
        remote.captions([JPEG], style="poem")
    for call in (lambda: remote.captions([JPEG], language="zh"), lambda: remote.caption(JPEG, language="zh")):
        with pytest.raises(
            InvalidRequest, match="language 'attributes_zh' is none of this model's styles: photo"
        ):
            call()


def test_copy_of_a_model_with_one_style_is_that_caption_and_marked_as_generated(
    remote: Client, encoder: Encoder
) -> None:
    (made,) = encoder.caption_images([RED])

    (copy,) = remote.copy([encoded(RED)]).results

    title = made.text[0].upper() + made.text[1:]
    assert (copy.title, copy.description, copy.attributes, copy.generated) == (title, f"{title}.", {}, True)
    with pytest.raises(NotFound, match="'nowhere'"):
        remote.copy(collection="nowhere", image_keys=["a"])


@pytest.mark.parametrize(
    ("caption", "told", "expected"),
    [
        ("red shoes for men", {"usage": "Casual"}, "Red shoes for men. Usage: Casual."),
        ("red shoes", {"base_colour": "Red", "gender": "Men"}, "Red shoes. Gender: Men."),
        ("shoes for women", {"gender": "Men"}, "Shoes for women."),
        ("blue shoes", {"base_colour": "Navy Blue", "gender": "Men"}, "Blue shoes. Gender: Men."),
        ("a dog .", {}, "A dog."),
        ("", {"usage": "Casual"}, "Usage: Casual."),
    ],
)
def test_a_description_says_each_thing_once_and_nothing_else(
    caption: str, told: dict[str, str], expected: str
) -> None:
    values = {"gender": ["Men", "Women"], "base_colour": ["Red", "Blue", "Navy Blue"], "usage": ["Casual"]}
    attributes = {name: m.CopyAttribute(value, 0.9) for name, value in told.items()}

    assert describe(caption, attributes, values) == expected


@pytest.mark.parametrize(
    ("captions", "value", "probability", "told"),
    [
        (["shoes", "red shoes for men"], "Red", 0.1, True),  # the captions say the same
        (["navy blue shoes", "shoes"], "Navy Blue", 0.1, True),
        (["shoes", "red shoes"], "Blue", 0.99, False),  # they say something else
        (["red shoes", "blue shoes"], "Red", 0.99, False),
        (["navy blue shoes", "shoes"], "Blue", 0.99, False),  # navy blue is not blue
        (["shoes", "shoes"], "Red", 0.6, True),  # they say nothing of it
        (["shoes", "a bored man"], "Red", 0.59, False),  # red is not in bored
        (["shoes", "reds for men"], "Red", 0.1, True),  # one or many
    ],
)
def test_an_attribute_is_told_where_captions_say_the_same_or_nothing_and_it_is_likely(
    captions: list[str], value: str, probability: float, told: bool
) -> None:
    colours = AttributeCalibration(("Red", "Blue", "Navy Blue"), temperature=0.02, at_least=0.6)
    guess = m.CopyAttribute(value, probability)

    assert may_be_told(guess, captions, colours) == told
    said = any(value.lower() in caption for caption in captions)
    assert may_be_told(guess, captions, replace(colours, at_least=None)) == (told and said)


def test_a_full_queue_is_429_and_says_when_to_come_back(
    config: Config, indexed: Database, encoder: Encoder
) -> None:
    app = create_app(replace(config, server=ServerSection(queue=8)), encoder=encoder)
    batching = app.extensions["engine"].batching

    with (
        ThreadPoolExecutor(1) as pool,
        httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://test") as http,
    ):
        long = start(pool, batching)
        answer = http.post("/v1/classify", json={"labels": LABELS, "image": base64_of(JPEG)})
        long.result()
    close(app)

    assert refusal(answer) == (429, "overloaded", None)
    assert answer.headers["Retry-After"] == "1"


def test_captions_of_many_callers_share_the_queue_and_keep_their_styles_and_order(encoder: Encoder) -> None:
    pictures = [draw(shape, colour) for shape in SHAPES for colour in COLOURS]
    batching = Batching(encoder, queue=1000)

    with ThreadPoolExecutor(8) as pool:
        calls = list(pool.map(lambda one: batching.caption_images([one], style="photo"), pictures))
    long = batching.caption_images(pictures * 3, style="photo")
    with pytest.raises(ValueError, match="style 'poem' is not one of this model's styles"):
        batching.caption_images(pictures[:1], style="poem")
    batching.close()

    texts = [one.text for one in encoder.caption_images(pictures)]
    assert [one.text for (one,) in calls] == texts
    assert [one.text for one in long] == texts * 3
