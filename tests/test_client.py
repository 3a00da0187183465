import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from indexer.database import Database
from search import client
from search import messages as m
from search.client import (
    ApiError,
    Client,
    ClientError,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServerFailed,
)
from tests.drawn import draw, encoded
from textmm import sources
from textmm.encoder import Encoder

RED = encoded(draw("circle", "red"))

ODD_KEYS = [
    "folder/below/it.png",
    "with space.png",
    "100%.png",
    "100%25.png",
    "%2F.png",
    "a#b.png",
    "a?b=c&d.png",
    "a+b.png",
    "größe.png",
    "图片/红.png",
    "🙂🏽.png",
    "a\\b.png",
    "a;b,c=d.png",
    "..a/b..",
    "'\"<script>.png",
    "x" * 512,
]


@pytest.fixture
def remote(demo_server: str) -> Iterator[Client]:
    """Over a real connection, with a collection of its own that is gone afterwards."""
    with Client(demo_server) as client:
        client.put_collection("odd")
        yield client
        client.delete_collection("odd")


@pytest.fixture
def proxy() -> Iterator[str]:
    """A server that is not ours: /v1/search is a proxy's failure, all else a page of HTML."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(200, b"<html>welcome</html>")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._say(429, b"slow down", ("Retry-After", "7"))

        def do_DELETE(self) -> None:
            self._say(502, b"")

        def _say(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            for name, value in (("Content-Length", str(len(body))), *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_example_of_the_docstring_prints_hits(
    demo_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(demo_server) as client:
        for hit in client.search("a red circle", collection="shop").hits or []:
            print(hit.key, hit.score)  # noqa: T201

    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 10
    assert printed[0].startswith("red-circle.png 0.")


@pytest.mark.parametrize("key", ODD_KEYS)
def test_any_key_survives_the_way_there_and_back(remote: Client, key: str) -> None:
    put = remote.put_image("odd", key, RED, title="odd")

    (hit,) = remote.search("odd", collection="odd").hits or []
    assert put.key == remote.get_image("odd", key).key == hit.key == key
    assert [image.key for image in remote.images("odd")] == [key]
    assert remote.content("odd", key) == remote.thumbnail("odd", key) == RED
    assert remote.caption(collection="odd", image_key=key).caption.text
    remote.delete_image("odd", key)
    assert list(remote.images("odd")) == []


@pytest.mark.parametrize("key", ODD_KEYS)
def test_the_addresses_in_a_hit_lead_to_its_bytes(remote: Client, demo_server: str, key: str) -> None:
    remote.put_image("odd", key, RED)
    (hit,) = remote.search("odd", collection="odd").hits or []

    content = httpx.get(f"{demo_server}{hit.content_url}")
    thumbnail = httpx.get(f"{demo_server}{hit.thumbnail_url}")

    assert (content.content, thumbnail.content) == (RED, RED)


@pytest.mark.parametrize("key", ["", ".", ".."])
def test_a_key_that_would_make_another_address_is_not_sent(remote: Client, key: str) -> None:
    with pytest.raises(m.BadRequest, match="key must not be"):
        remote.delete_image("odd", key)
    with pytest.raises(m.BadRequest, match="collection must not be"):
        remote.delete_image(key, "a")
    with pytest.raises(m.BadRequest, match="collection must not be"):
        remote.delete_collection(key)

    assert [c.name for c in remote.collections()] == ["odd", "shop"]


@pytest.mark.parametrize("key", ["/a", "a/", "a//b", "a/../b", "./a", "a\nb", "x" * 513])
def test_a_key_against_the_rules_is_refused_by_the_server(remote: Client, key: str) -> None:
    with pytest.raises(InvalidRequest, match=r"\(400 invalid_request\)") as caught:
        remote.put_image("odd", key, RED)

    assert caught.value.param == "key"
    assert list(remote.images("odd")) == []


def test_pictures_are_bytes_or_paths(client: Client, pictures: Path) -> None:
    path = pictures / "red-circle.png"

    answers = [client.search(image=given, collection="shop", k=3).hits for given in (RED, path, str(path))]

    assert answers[0] == answers[1] == answers[2]


def test_an_upload_without_words_and_a_caption_need_no_more_than_the_picture(
    client: Client, encoder: Encoder
) -> None:
    assert client.put_image("shop", "new", RED).texts == []
    assert client.caption(RED).model_id == encoder.model_id
    assert client.look_up(RED).matches == []


def test_images_yields_all_pages(client: Client) -> None:
    every = [image.key for image in client.images("shop")]

    assert every == sorted(every)
    assert len(every) == 16
    assert [image.key for image in client.images("shop", page=1)] == every
    assert [image.key for image in client.images("shop", page=5)] == every
    assert [image.key for image in client.images("shop", page=16)] == every


def test_embed_gives_a_vector_for_each_input(client: Client, encoder: Encoder) -> None:
    vectors = client.embed(["a mug", "a red circle"], model="tiny")
    short = client.embed("a mug", model=encoder.model_id, dimensions=4)

    assert vectors == [
        pytest.approx(row, abs=1e-6) for row in encoder.encode_texts(["a mug", "a red circle"])
    ]
    assert [len(vector) for vector in short] == [4]
    assert [model.id for model in client.models()] == [encoder.model_id]


def test_collections_are_made_read_changed_and_deleted(client: Client) -> None:
    made = client.put_collection("known", bank=True)
    changed = client.put_collection("known", bank=True, limits=m.LimitChanges(near_copy=5))

    assert (made.limits.near_copy, changed.limits.near_copy) == (31, 5)
    assert client.get_collection("known") == changed
    client.delete_collection("known")
    assert [collection.name for collection in client.collections()] == ["shop"]


def test_an_error_of_the_server_becomes_an_exception_that_carries_all_it_said(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="no image here has the attribute 'a'") as caught:
        client.search("x", collection="shop", filter={"a": "b"})

    error = caught.value
    assert isinstance(error, ApiError | ClientError)
    assert (error.status, error.code, error.param, error.retry_after_s) == (
        400,
        "invalid_request",
        "filter",
        None,
    )
    assert error.request_id


def test_each_kind_of_error_has_its_class(client: Client, indexed: Database) -> None:
    with pytest.raises(NotFound, match=r"no image 'no' \(404 not_found\)"):
        client.get_image("shop", "no")
    with pytest.raises(Conflict, match="409 conflict"):
        client.put_collection("shop", bank=True)
    with pytest.raises(InvalidRequest, match="422 image_unreadable"):
        client.put_image("shop", "a", b"no picture")
    with pytest.raises(InvalidRequest, match="413 too_large"):
        client.put_image("shop", "a", b"x" * 20_000_001)
    with indexed.write() as connection:
        connection.exec_driver_sql("DROP TABLE text")
    with pytest.raises(ServerFailed, match="500 internal"):
        client.get_image("shop", "red-circle.png")


def test_a_field_that_cannot_be_right_is_refused_before_it_is_sent() -> None:
    with Client("http://127.0.0.1:9") as client:  # nobody there: it would be ConnectionFailed
        with pytest.raises(m.BadRequest, match="k: expected `int` >= 1"):
            client.search("x", collection="shop", k=0)
        with pytest.raises(m.BadRequest, match="unknown field colour"):
            client.search("x", collection="shop", colour="red")
        with pytest.raises(m.BadRequest, match="'same'"):
            client.look_up(RED, kinds=["same"])  # type: ignore[list-item]


def test_nobody_there_is_connection_failed() -> None:
    with Client("http://127.0.0.1:9") as client:
        assert client.is_ready() is False
        with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:9"):
            client.collections()


def test_an_answer_that_is_not_ours_is_a_client_error_too(proxy: str) -> None:
    with Client(proxy) as client:
        with pytest.raises(ClientError, match="the answer is not textmm's"):
            client.collections()
        with pytest.raises(ClientError, match="the answer is not textmm's"):
            list(client.images("shop"))
        with pytest.raises(ServerFailed, match=r"Bad Gateway \(502 unknown\)"):
            client.delete_collection("shop")


def test_overloaded_says_how_long_to_wait(proxy: str) -> None:
    with Client(proxy) as client, pytest.raises(Overloaded, match="slow down") as caught:
        client.search("x", collection="shop")

    assert caught.value.retry_after_s == 7.0


def test_is_ready_is_what_readyz_says(client: Client, indexed: Database) -> None:
    before = client.is_ready()
    with indexed.write() as connection:
        connection.exec_driver_sql("ALTER TABLE embedding RENAME TO lost")

    assert (before, client.is_ready()) == (True, False)


def test_the_client_knows_pictures_by_the_names_that_sources_know_them_by() -> None:
    assert client.PICTURES == sources.PICTURES
