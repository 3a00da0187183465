from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from indexer.database import Database
from indexer.hashing import MIN_QUALITY, perceptual_hash
from indexer.store.collections import Collections
from search import messages as m
from search.client import Client, InvalidRequest, NotFound
from tests.drawn import draw, encoded
from tests.refusals import refusal
from textmm.drawings import drawn_products
from textmm.encoder import Encoder
from textmm.transforms import decode_image

PRODUCTS = [product.image for product in drawn_products(6, seed=5)]
"""Pictures with enough detail for a perceptual hash; the drawn shapes have not."""
FIRST = encoded(PRODUCTS[0])
RESAVED = encoded(PRODUCTS[0], "JPEG", quality=60)
SMALLER = encoded(PRODUCTS[0].resize([round(side * 0.7) for side in PRODUCTS[0].size]))
OTHER = encoded(PRODUCTS[4])
NEVER = m.LimitChanges(near_copy=31, similar=1)


@pytest.fixture
def bank(client: Client) -> Iterator[Client]:
    """Bank `known` with four products; none of them counts as similar but to itself."""
    client.put_collection("known", bank=True, limits=NEVER)
    for i, picture in enumerate(PRODUCTS[:4]):
        client.put_image("known", f"product-{i}", encoded(picture))
    yield client


def found(client: Client, picture: bytes, **how: Any) -> list[tuple[str, str, str]]:
    return [(match.bank, match.key, match.kind) for match in client.look_up(picture, **how).matches]


def distance(one: bytes, other: bytes) -> int:
    """Bits in which the perceptual hashes of two files differ."""
    first, second = (int.from_bytes(perceptual_hash(decode_image(data))[0]) for data in (one, other))
    return (first ^ second).bit_count()


def test_the_products_are_rich_enough_for_a_hash() -> None:
    hashes = [perceptual_hash(picture.convert("RGB")) for picture in PRODUCTS]

    assert min(quality for _, quality in hashes) >= MIN_QUALITY


def test_the_same_bytes_are_an_exact_match_and_their_own_near_copy(bank: Client) -> None:
    assert bank.look_up(FIRST, kinds=["exact", "near_copy"]).matches == [
        m.Match(bank="known", key="product-0", kind="exact", distance=0, signal="sha256"),
        m.Match(bank="known", key="product-0", kind="near_copy", distance=0, limit=31, signal="pdq"),
    ]


@pytest.mark.parametrize("copy", [RESAVED, SMALLER])
def test_a_resaved_or_shrunk_copy_is_a_near_copy_at_the_distance_of_their_hashes(
    bank: Client, copy: bytes
) -> None:
    apart = distance(FIRST, copy)

    matches = bank.look_up(copy, kinds=["exact", "near_copy"]).matches

    assert apart <= 31
    assert matches == [
        m.Match(bank="known", key="product-0", kind="near_copy", distance=apart, limit=31, signal="pdq")
    ]


def test_a_different_picture_matches_nothing(bank: Client) -> None:
    assert found(bank, OTHER) == []


def test_the_answer_has_the_documented_shape_and_no_verdict(
    bank: Client, http: httpx.Client, encoder: Encoder
) -> None:
    bank.put_collection("known", bank=True, limits=m.LimitChanges(near_copy=31, similar=-1))

    answer = http.post(
        "/v1/moderation/lookup", files={"image": FIRST, "request": (None, '{"banks": ["known"]}')}
    )

    body = answer.json()
    matches = body["matches"]
    assert sorted(body) == ["matches", "model_id"]
    assert body["model_id"] == encoder.model_id
    assert matches[:2] == [
        {"bank": "known", "key": "product-0", "kind": "exact", "distance": 0, "signal": "sha256"},
        {
            "bank": "known",
            "key": "product-0",
            "kind": "near_copy",
            "distance": 0,
            "limit": 31,
            "signal": "pdq",
        },
    ]
    assert [sorted(match) for match in matches[2:]] == [["bank", "key", "kind", "limit", "score"]] * 4
    assert matches[2] == {
        "bank": "known",
        "key": "product-0",
        "kind": "similar",
        "score": pytest.approx(1.0, abs=2e-3),
        "limit": -1.0,
    }
    assert [
        word for word in ("allow", "deny", "block", "verdict", "safe") if word in answer.text.lower()
    ] == []


def test_similar_is_every_item_within_the_banks_limit_closest_first(bank: Client, encoder: Encoder) -> None:
    scores = encoder.encode_images(PRODUCTS[:4]) @ encoder.encode_images([PRODUCTS[4]])[0]
    ranked = sorted(((float(s), f"product-{i}") for i, s in enumerate(scores)), reverse=True)
    limit = (ranked[1][0] + ranked[2][0]) / 2  # lets two of the four in

    bank.put_collection("known", bank=True, limits=m.LimitChanges(similar=limit))
    matches = bank.look_up(OTHER, kinds=["similar"]).matches

    assert [match.key for match in matches] == [key for _, key in ranked[:2]]
    assert [match.score for match in matches] == [pytest.approx(s, abs=2e-3) for s, _ in ranked[:2]]


def test_a_large_bank_gives_all_its_similar_items_not_the_first_few(client: Client) -> None:
    client.put_collection("known", bank=True, limits=m.LimitChanges(similar=-1))
    small = encoded(draw("circle", "red", side=32))
    for i in range(70):
        client.put_image("known", f"item-{i:02}", small)

    keys = [match.key for match in client.look_up(small, kinds=["similar"]).matches]

    assert sorted(keys) == [f"item-{i:02}" for i in range(70)]


def test_another_limit_of_the_bank_gives_another_answer(bank: Client) -> None:
    (copy,) = bank.look_up(RESAVED, kinds=["near_copy"]).matches
    assert copy.distance

    bank.put_collection("known", bank=True, limits=m.LimitChanges(near_copy=copy.distance - 1, similar=1))
    stricter = found(bank, RESAVED, kinds=["near_copy"])
    bank.put_collection("known", bank=True, limits=m.LimitChanges(near_copy=copy.distance, similar=1))
    just = found(bank, RESAVED, kinds=["near_copy"])

    assert (stricter, just) == ([], [("known", "product-0", "near_copy")])


def test_near_copies_come_closest_first(bank: Client) -> None:
    bank.put_collection("known", bank=True, limits=m.LimitChanges(near_copy=256, similar=1))

    matches = bank.look_up(OTHER, kinds=["near_copy"]).matches

    expected = sorted((distance(OTHER, encoded(one)), f"product-{i}") for i, one in enumerate(PRODUCTS[:4]))
    assert [(match.distance, match.key) for match in matches] == expected


def test_banks_and_kinds_narrow_the_question(bank: Client) -> None:
    bank.put_collection("also", bank=True, limits=NEVER)
    bank.put_image("also", "copy", FIRST)

    assert found(bank, FIRST, kinds=["exact"]) == [("also", "copy", "exact"), ("known", "product-0", "exact")]
    assert found(bank, FIRST, kinds=["exact"], banks=["known"]) == [("known", "product-0", "exact")]
    assert found(bank, FIRST, kinds=["exact"], banks=["known", "also", "known"]) == [
        ("known", "product-0", "exact"),
        ("also", "copy", "exact"),
    ]
    assert found(bank, FIRST, kinds=["exact"], banks=[]) == []
    assert found(bank, FIRST, kinds=[]) == []


def test_without_any_bank_there_is_no_match(client: Client, encoder: Encoder) -> None:
    assert client.look_up(FIRST) == m.LookupResponse([], encoder.model_id)


def test_an_empty_bank_matches_nothing(client: Client) -> None:
    client.put_collection("known", bank=True)

    assert found(client, FIRST) == []


def test_a_picture_too_plain_for_a_hash_is_no_near_copy_of_anything(bank: Client) -> None:
    plain = encoded(Image.new("RGB", (64, 64), (200, 200, 200)))
    bank.put_image("known", "plain", plain)
    bank.put_collection("known", bank=True, limits=m.LimitChanges(near_copy=256, similar=1))

    assert found(bank, plain, kinds=["exact", "near_copy"]) == [("known", "plain", "exact")]
    assert "plain" not in {key for _, key, _ in found(bank, FIRST, kinds=["near_copy"])}


def test_an_item_is_known_as_soon_as_its_put_has_returned_and_gone_after_its_deletion(bank: Client) -> None:
    kinds: list[m.Kind] = ["exact", "near_copy"]
    before = found(bank, OTHER, kinds=kinds)
    bank.put_image("known", "new", OTHER)
    there = found(bank, OTHER, kinds=kinds)
    bank.delete_image("known", "new")
    after = found(bank, OTHER, kinds=kinds)

    assert (before, after) == ([], [])
    assert there == [("known", "new", "exact"), ("known", "new", "near_copy")]


def test_a_replaced_item_is_known_by_its_new_picture_only(bank: Client) -> None:
    bank.put_image("known", "product-0", OTHER)

    assert found(bank, FIRST, kinds=["exact", "near_copy"]) == []
    assert found(bank, OTHER, kinds=["exact"]) == [("known", "product-0", "exact")]


def test_a_plain_collection_and_an_unknown_one_are_refused_as_banks(bank: Client) -> None:
    with pytest.raises(InvalidRequest, match="'shop' is no bank") as plain:
        bank.look_up(FIRST, banks=["known", "shop"])
    with pytest.raises(NotFound, match="'nowhere'") as unknown:
        bank.look_up(FIRST, banks=["nowhere"])

    assert (plain.value.param, unknown.value.param) == ("banks", "collection")


def test_a_bank_of_another_model_is_still_asked_for_copies_but_not_for_similar_ones(
    bank: Client, http: httpx.Client, indexed: Database
) -> None:
    with indexed.write() as connection:
        connection.exec_driver_sql("UPDATE generation SET model_id = 'old-00000000'")
    assert Collections(indexed).get("known").generation is not None

    similar = http.post("/v1/moderation/lookup", files={"image": FIRST})

    assert refusal(similar) == (409, "conflict", None)
    assert found(bank, FIRST, kinds=["exact"]) == [("known", "product-0", "exact")]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "invalid_request", "image")),
        ({"image": "aaaa"}, (422, "image_unreadable", "image")),
        ({"image": "https://example.org/a.png"}, (400, "invalid_request", "image")),
        ({"image": "aaaa", "bank": "known"}, (400, "invalid_request", "bank")),
        ({"image": "aaaa", "banks": "known"}, (400, "invalid_request", "banks")),
        ({"image": "aaaa", "kinds": ["same"]}, (400, "invalid_request", "kinds[0]")),
        ({"image": "aaaa", "limit": 3}, (400, "invalid_request", "limit")),
    ],
)
def test_a_bad_lookup_is_refused(
    http: httpx.Client, body: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    assert refusal(http.post("/v1/moderation/lookup", json=body)) == expected
