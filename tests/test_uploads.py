import base64

import pytest

from search.errors import TooLarge
from search.messages import BadRequest
from search.uploads import Uploads, is_data_uri
from tests.drawn import draw, encoded
from textmm.transforms import ImageTooLarge, ImageUnreadable

DATA = bytes(range(256))
TEXT = base64.b64encode(DATA).decode()


@pytest.fixture
def uploads() -> Uploads:
    return Uploads(max_bytes=1000, max_pixels=64 * 64)


@pytest.mark.parametrize(
    "given",
    [
        DATA,
        TEXT,
        f"data:image/png;base64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"data:image/svg+xml;charset=utf-8;base64,{TEXT}",
        "\n".join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76)),
    ],
)
def test_bytes_base64_and_data_uris_give_the_bytes(uploads: Uploads, given: str | bytes) -> None:
    assert uploads.bytes_of(given) == DATA


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("https://example.org/a.png", "pictures from URLs are not fetched"),
        ("HTTP://example.org", "pictures from URLs are not fetched"),
        ("data:image/png,abcd", "a data URI without ;base64,"),
        ("data:image/png;base64", "a data URI without ;base64,"),
        ("not base64", "neither base64 nor a data URI"),
        ("aaa", "neither base64 nor a data URI"),
        ("aäaa", "neither base64 nor a data URI"),
        (TEXT.replace("+", "-"), "neither base64 nor a data URI"),
    ],
)
def test_anything_else_is_refused_by_the_name_of_its_field(uploads: Uploads, given: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said) as caught:
        uploads.bytes_of(given, "input[2]")

    assert caught.value.param == "input[2]"


@pytest.mark.parametrize("given", [b"x" * 1001, base64.b64encode(b"x" * 1002).decode()])
def test_too_many_bytes_are_refused_with_limit_and_value(uploads: Uploads, given: str | bytes) -> None:
    with pytest.raises(TooLarge, match=r"image has 100\d bytes, the limit is 1000") as caught:
        uploads.bytes_of(given)

    assert caught.value.param == "image"


def test_exactly_the_limit_is_allowed(uploads: Uploads) -> None:
    assert len(uploads.bytes_of(b"x" * 1000)) == 1000
    assert len(uploads.bytes_of(base64.b64encode(b"x" * 1000).decode())) == 1000


def test_pixels_are_bounded_by_the_limit_of_the_server_not_of_the_decoder(uploads: Uploads) -> None:
    assert uploads.decode(encoded(draw("circle", "red", side=64))).size == (64, 64)
    with pytest.raises(ImageTooLarge, match="65 x 65 pixels is over the limit of 4096"):
        uploads.decode(encoded(draw("circle", "red", side=65)))
    with pytest.raises(ImageUnreadable, match="not a picture"):
        uploads.decode(b"no picture")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"data:image/png;base64,{TEXT}", True),
        (f"data:image/jpeg;name=a.jpg;base64,{TEXT}", True),
        ("data:text/plain;base64,aGk=", False),
        ("data:image/png,abcd", False),
        ("data: the new oil", False),
        (TEXT, False),
    ],
)
def test_only_a_data_uri_of_a_picture_counts_as_one(text: str, expected: bool) -> None:
    assert is_data_uri(text) is expected


def test_a_data_uri_with_very_many_parameters_is_judged_in_no_time() -> None:
    assert is_data_uri("data:image/png" + ";a=b" * 50_000) is False
