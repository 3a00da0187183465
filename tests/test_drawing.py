"""Drawing for callers: OpenAI's client, the SDK, the command line; marks, banks, the queue."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from search import messages as m
from search.app import close, create_app
from search.client import ApiError, Client
from search.config import Config, DrawSection
from search.drawing import Drawing
from search.engine import SearchEngine
from search.errors import Overloaded
from search.moderation import Moderation
from tests.conftest import Run
from tests.drawn import COLOURS, draw, encoded
from tests.refusals import refusal
from textmm.encoder import Encoder
from textmm.marks import is_generated, marked_png
from textmm.text_to_image.choosing import CannotDraw

RED = "a red circle"


@pytest.fixture
def remote(demo_server: str) -> Iterator[Client]:
    with Client(demo_server) as remote:
        yield remote


def opened(png: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(png)))


def colour_of(picture: Image.Image) -> str:
    middle = np.asarray(picture.convert("RGB"))[12:20, 12:20].reshape(-1, 3).mean(0)
    return min(COLOURS, key=lambda name: float(np.abs(np.array(COLOURS[name]) - middle).sum()))


# -- doors -----------------------------------------------------------------------------------------------


def test_openais_client_draws_unchanged(demo_server: str) -> None:
    with openai.OpenAI(base_url=f"{demo_server}/v1", api_key="any", max_retries=0) as ai:
        answer = ai.images.generate(prompt="a blue square", model="drawer", n=2, response_format="b64_json")

    assert answer.data is not None and len(answer.data) == 2
    for one in answer.data:
        assert one.b64_json is not None
        picture = opened(one.b64_json)
        assert (picture.size, picture.format, colour_of(picture)) == ((32, 32), "PNG", "blue")
    assert abs(answer.created - time.time()) < 60


def test_the_sdk_draws_the_same_again_by_its_seed_the_best_first(remote: Client) -> None:
    first = remote.draw(RED, n=3, seed=11)
    again = remote.draw(RED, n=3, seed=11)

    assert [one.b64_json for one in first] == [one.b64_json for one in again]
    assert [one.score for one in first] == sorted((one.score for one in first), reverse=True)
    assert len({one.seed for one in first}) == 3 and all(one.generated for one in first)
    assert {one.seed for one in remote.draw(RED)} != {one.seed for one in remote.draw(RED)}


def test_a_picture_is_varied_and_two_are_mixed(remote: Client, demo_server: str) -> None:
    blue = encoded(draw("square", "blue"))
    (kept,) = remote.draw(RED, seed=1, images=[blue], strength=0.02)
    (free,) = remote.draw(RED, seed=1, images=[blue], strength=1.0)
    (mixed,) = remote.draw("a circle", seed=1, images=[blue, encoded(draw("circle", "red"))])

    assert (colour_of(opened(kept.b64_json)), colour_of(opened(free.b64_json))) == ("blue", "red")
    assert opened(mixed.b64_json).size == (32, 32)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (400, "invalid_request", "prompt")),
        ({"prompt": ""}, (400, "invalid_request", "prompt")),
        ({"prompt": RED, "n": 9}, (400, "invalid_request", "n")),
        ({"prompt": RED, "size": "1024x1024"}, (400, "invalid_request", "size")),
        ({"prompt": RED, "model": "dall-e-3"}, (400, "invalid_request", "model")),
        ({"prompt": RED, "response_format": "url"}, (400, "invalid_request", "response_format")),
        ({"prompt": RED, "image": "no base64!"}, (400, "invalid_request", "image")),
        (
            {"prompt": RED, "image": base64.b64encode(b"no picture").decode()},
            (422, "image_unreadable", "image"),
        ),
        ({"prompt": RED, "image": ["aa"] * 3}, (400, "invalid_request", "image")),
        ({"prompt": RED, "seed": -1}, (400, "invalid_request", "seed")),
        ({"prompt": RED, "steps": 3}, (400, "invalid_request", "steps")),
    ],
)
def test_what_cannot_be_drawn_so_is_refused_by_name(
    demo_server: str, fields: dict[str, object], expected: tuple[int, str, str]
) -> None:
    with httpx.Client(base_url=demo_server) as wire:
        assert refusal(wire.post("/v1/images/generations", json=fields)) == expected


def test_the_command_line_writes_files_and_draws_them_again(run: Run, tmp_path: Path, drawer: Path) -> None:
    drawn = run(
        "draw", RED, "-n", "2", "--seed", "3", "--generator", drawer, "--out", tmp_path / "a", "--json"
    )
    rows = [json.loads(line) for line in drawn.out.splitlines()]
    again = run("draw", RED, "-n", "2", "--seed", "3", "--generator", drawer, "--out", tmp_path / "b")

    assert (drawn.code, again.code) == (0, 0)
    assert [Path(row["file"]).name for row in rows] == ["a-red-circle-1.png", "a-red-circle-2.png"]
    for row in rows:
        data = Path(row["file"]).read_bytes()
        assert is_generated(data) and data == (tmp_path / "b" / Path(row["file"]).name).read_bytes()
    varied = run(
        "draw",
        "一个红色圆",
        "-n",
        "1",
        "--image",
        rows[0]["file"],
        "--generator",
        drawer,
        "--out",
        tmp_path / "c",
    )
    assert varied.code == 0 and (tmp_path / "c" / "一个红色圆-1.png").exists()


def test_an_unknown_generator_is_one_line(run: Run, tmp_path: Path) -> None:
    done = run("draw", RED, "--generator", "nobody", "--out", tmp_path)

    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "there is no generator 'nobody'" in done.err


def test_below_the_measured_limit_it_says_that_it_cannot_draw_this(
    run: Run, tmp_path: Path, drawer: Path, config: Config, encoder: Encoder
) -> None:
    strict = tmp_path / "strict"
    strict.mkdir()
    (strict / "model.safetensors").symlink_to(drawer / "model.safetensors")
    said = json.loads((drawer / "config.json").read_text()) | {"least_score": 0.99}
    (strict / "config.json").write_text(json.dumps(said))

    done = run("draw", RED, "--generator", strict, "--out", tmp_path / "out")

    app = create_app(replace(config, draw=DrawSection(generator=str(strict))), encoder=encoder)
    try:
        answer = app.test_client().post("/v1/images/generations", json={"prompt": RED})
    finally:
        close(app)
    assert (done.code, answer.status_code) == (1, 422)
    assert "cannot be drawn" in done.err and answer.get_json()["error"]["code"] == "cannot_draw"
    assert not list((tmp_path / "out").iterdir())


def test_a_server_without_a_generator_says_so(config: Config, encoder: Encoder) -> None:
    app = create_app(replace(config, draw=DrawSection(generator="")), encoder=encoder)
    try:
        client = app.test_client()
        answer, page = client.post("/v1/images/generations", json={"prompt": RED}), client.get("/")
    finally:
        close(app)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "not_ready")
    assert b"data-draw" not in page.data


# -- one at a time ---------------------------------------------------------------------------------------


def test_drawings_wait_for_each_other_and_beyond_the_queue_are_turned_away(
    engine: SearchEngine, drawer: Path
) -> None:
    """Twelve at once where two may wait: the rest is refused, and what is drawn is what each asked for."""
    section = DrawSection(generator=str(drawer), queue=2)
    drawing = Drawing(section, engine.encoder, engine.load_model, engine.uploads, None)
    names = [*COLOURS] * 3
    begin = threading.Barrier(len(names))

    def ask(name: str) -> str:
        begin.wait()
        try:
            return colour_of(
                opened(drawing.draw(m.DrawRequest(prompt=f"a {name} circle", n=2)).data[0].b64_json)
            )
        except Overloaded:
            return "refused"

    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(ask, names))

    refused = found.count("refused")
    assert 1 <= refused <= len(names) - 3
    assert all(colour in (name, "refused") for name, colour in zip(names, found, strict=True))
    assert ask_again(drawing) == "red"  # those turned away left nothing behind


def ask_again(drawing: Drawing) -> str:
    return colour_of(opened(drawing.draw(m.DrawRequest(prompt=RED)).data[0].b64_json))


# -- marks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_the_mark_is_in_the_xmp_where_other_programs_look_and_outlives_another_format(kind: str) -> None:
    png = marked_png(draw("circle", "red"), tool="drawer-1")
    picture = Image.open(io.BytesIO(png))
    packet = picture.info["xmp"].decode().removeprefix("\ufeff")
    said = ElementTree.fromstring(packet[packet.index("<x:xmpmeta") : packet.index("<?xpacket end")])[0][
        0
    ].attrib
    other = io.BytesIO()
    picture.save(other, kind, xmp=picture.info["xmp"])

    assert (
        said["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"]
        == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    )
    assert said["{http://ns.adobe.com/xap/1.0/}CreatorTool"] == "drawer-1"
    assert is_generated(png) and is_generated(other.getvalue())


@pytest.mark.parametrize("data", [b"", b"no picture", encoded(draw("circle", "red")), b"\x89PNG\r\n\x1a\n"])
def test_what_carries_no_mark_is_not_called_generated(data: bytes) -> None:
    assert not is_generated(data)


def test_a_drawn_picture_that_is_indexed_is_flagged_and_left_out_until_it_is_asked_for(
    client: Client,
) -> None:
    before = client.search(RED, collection="shop", k=100)
    client.put_image("shop", "drawn", marked_png(draw("circle", "red"), tool="drawer-1"), title="drawn")

    usual = client.search(RED, collection="shop", k=100, explain=True)
    everything = client.search(RED, collection="shop", k=100, generated=True)
    only = client.search(RED, collection="shop", k=100, filter="generated = true")
    red = client.search(RED, collection="shop", k=100, filter='colour = "red"')

    assert client.get_image("shop", "drawn").attributes == {"generated": True}
    assert [hit.key for hit in usual.hits or []] == [hit.key for hit in before.hits or []]
    assert usual.explain is not None and usual.explain.filter == "not generated = true"
    assert {hit.key for hit in everything.hits or []} == {hit.key for hit in before.hits or []} | {"drawn"}
    assert [hit.key for hit in only.hits or []] == ["drawn"]
    assert len(red.hits or []) == 4


def test_what_its_owner_says_of_it_stands(client: Client) -> None:
    png = marked_png(draw("circle", "red"), tool="drawer-1")
    client.put_image("shop", "mine", png, attributes={"generated": False})
    client.put_collection("typed", attributes={"generated": "datetime"})
    client.put_image("typed", "words", png, attributes={"colour": "red"})

    assert client.get_image("shop", "mine").attributes == {"generated": False}
    assert "mine" in [hit.key for hit in client.search(RED, collection="shop", k=100).hits or []]
    assert client.get_image("typed", "words").attributes == {"colour": "red"}
    assert client.search(RED, collection="typed").hits


def test_what_a_bank_knows_does_not_leave(engine: SearchEngine, client: Client, drawer: Path) -> None:
    usual = DrawSection(generator=str(drawer))
    drawing = Drawing(usual, engine.encoder, engine.load_model, engine.uploads, Moderation(engine))
    request = m.DrawRequest(prompt=RED, seed=5)
    (free,) = drawing.draw(request).data
    client.put_collection("known", bank=True, limits=m.LimitChanges(near_copy=0, similar=1.0))
    client.put_image("known", "one", base64.b64decode(free.b64_json))

    careful = replace(usual, banks=("known",))
    drawing = Drawing(careful, engine.encoder, engine.load_model, engine.uploads, Moderation(engine))

    (second,) = drawing.draw(request).data
    assert second.b64_json != free.b64_json and second.score <= free.score
    client.put_collection("known", limits=m.LimitChanges(similar=-1.0))  # now it knows everything
    with pytest.raises(CannotDraw, match="known to a bank"):
        drawing.draw(request)


def test_the_command_line_looks_into_the_banks_of_the_config_too(
    run: Run, tmp_path: Path, drawer: Path
) -> None:
    settings = tmp_path / "config.toml"
    settings.write_text(settings.read_text() + f'[draw]\ngenerator = "{drawer}"\nbanks = ["nowhere"]\n')

    done = run("draw", RED, "--out", tmp_path / "out")

    assert done.code == 2 and "nowhere" in done.err
    assert not list((tmp_path / "out").iterdir())


def test_a_bank_that_is_not_there_is_an_error_and_nothing_leaves(engine: SearchEngine, drawer: Path) -> None:
    section = DrawSection(generator=str(drawer), banks=("nowhere",))
    drawing = Drawing(section, engine.encoder, engine.load_model, engine.uploads, Moderation(engine))

    with pytest.raises(Exception, match="nowhere"):
        drawing.draw(m.DrawRequest(prompt=RED))


def test_the_sdk_tells_a_refusal(remote: Client) -> None:
    with pytest.raises(ApiError, match="draws 32x32"):
        remote.draw(RED, size="64x64")
