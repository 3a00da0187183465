import pytest

from indexer.conditions import FilterError
from indexer.errors import Conflict, NotFound
from search.errors import (
    HTTP_CODES,
    STATUS,
    InputTooLarge,
    InputUnreadable,
    NotReady,
    Overloaded,
    TooLarge,
    error_type,
    param_of,
)
from search.messages import BadRequest
from textmm.pretrained import WeightsMissing
from textmm.transforms import ImageTooLarge, ImageUnreadable

DOCUMENTED = {
    "invalid_request": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "too_large": 413,
    "unsupported_media_type": 415,
    "image_unreadable": 422,
    "cannot_draw": 422,
    "overloaded": 429,
    "not_ready": 503,
}


def test_a_code_has_the_status_that_is_documented() -> None:
    ours = {code: status for status, code in STATUS.values()}
    flasks = {code: status for status, code in HTTP_CODES.items()}

    assert ours | flasks == DOCUMENTED
    assert flasks | ours == DOCUMENTED


def test_a_plain_value_error_is_our_bug_and_stands_in_no_row() -> None:
    assert [kind for kind in STATUS if issubclass(ValueError, kind)] == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "invalid_request_error"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_an_errors_type_is_openais_word_for_its_status(status: int, kind: str) -> None:
    assert error_type(status) == kind


@pytest.mark.parametrize(
    ("error", "param"),
    [
        (BadRequest("no", "k"), "k"),
        (BadRequest("no"), None),
        (NotFound("image", "mug"), "image_key"),
        (NotFound("collection", "shop"), "collection"),
        (NotFound("model", "big"), "model"),
        (FilterError("no"), "filter"),
        (TooLarge("no", "input"), "input"),
        (TooLarge("no"), None),
        (ImageUnreadable("no"), "image"),
        (ImageTooLarge("no"), "image"),
        (InputUnreadable(ImageUnreadable("no"), "input[3]"), "input[3]"),
        (InputTooLarge(ImageTooLarge("no"), "input[3]"), "input[3]"),
        (Conflict("no"), None),
        (Overloaded("no"), None),
        (NotReady("no"), None),
        (WeightsMissing("no"), None),
    ],
)
def test_an_error_knows_the_field_it_is_about(error: Exception, param: str | None) -> None:
    assert param_of(error) == param
