import pytest

from indexer.database import Database
from indexer.store.captions import Captions
from indexer.store.collections import Collections
from indexer.store.images import Images
from search.client import Client, InvalidRequest
from search.messages import Caption, Hit
from tests.drawn import COLOURS, SHAPES, draw, encoded
from textmm.encoder import Encoder


def hits_with_captions(client: Client, k: int = 16) -> dict[str, Hit]:
    response = client.search("a picture", collection="shop", k=k, captions=True)
    return {hit.key: hit for hit in response.hits or []}


def remembered(database: Database, encoder: Encoder) -> dict[str, tuple[str, float]]:
    """Key -> (text, score) of what the caption table holds."""
    images = Images(database).page(Collections(database).get("shop").collection_id)
    found = Captions(database).find([i.image_id for i in images], model_id=encoder.model_id, style="photo")
    return {i.key: found[i.image_id] for i in images if i.image_id in found}


def test_hits_carry_the_captions_that_the_encoder_makes(client: Client, encoder: Encoder) -> None:
    names = [(f"{colour}-{shape}.png", draw(shape, colour)) for shape in SHAPES for colour in COLOURS]
    made = encoder.caption_images([picture for _, picture in names])

    found = {key: hit.caption for key, hit in hits_with_captions(client).items()}

    assert {key: caption and caption.text for key, caption in found.items()} == {
        key: caption.text for (key, _), caption in zip(names, made, strict=True)
    }


def test_captions_are_made_only_when_they_are_asked_for(
    client: Client, indexed: Database, encoder: Encoder
) -> None:
    hits = client.search("a picture", collection="shop").hits or []

    assert {hit.caption for hit in hits} == {None}
    assert remembered(indexed, encoder) == {}


def test_captions_are_remembered_and_told_again(client: Client, indexed: Database, encoder: Encoder) -> None:
    three = hits_with_captions(client, k=3)
    kept = remembered(indexed, encoder)
    with indexed.write() as connection:
        connection.exec_driver_sql("UPDATE caption SET text = 'as it was remembered', score = 0.25")

    again = hits_with_captions(client, k=3)
    alone = client.caption(collection="shop", image_key=next(iter(three))).caption

    told = {key: (hit.caption.text, hit.caption.score) for key, hit in three.items() if hit.caption}
    assert told == {key: (text, round(score, 6)) for key, (text, score) in kept.items()}
    assert len(told) == 3
    assert [hit.caption for hit in again.values()] == [Caption("as it was remembered", 0.25)] * 3
    assert alone == Caption("as it was remembered", 0.25)


def test_a_replaced_picture_loses_its_caption(client: Client, indexed: Database, encoder: Encoder) -> None:
    hits_with_captions(client)
    client.put_image("shop", "red-circle.png", encoded(draw("cross", "blue")))

    forgotten = sorted(remembered(indexed, encoder))
    fresh = hits_with_captions(client)["red-circle.png"].caption

    assert len(forgotten) == 15
    assert "red-circle.png" not in forgotten
    assert fresh is not None
    assert fresh.text == encoder.caption_images([draw("cross", "blue")])[0].text


def test_a_style_that_the_model_does_not_have_is_refused_with_those_it_has(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="caption_style 'poem' is none of this model's styles: photo"):
        client.search("x", collection="shop", captions=True, caption_style="poem")


def test_a_collection_whose_usual_style_this_model_lacks_is_captioned_in_style_photo(
    client: Client, indexed: Database, encoder: Encoder
) -> None:
    shop = Collections(indexed).get("shop")
    Collections(indexed).set(shop.collection_id, limits=shop.limits, caption_style="attributes")

    hits = hits_with_captions(client)
    fresh = client.search(image=encoded(draw("circle", "red")), collection="shop", target="texts").caption

    assert all(hit.caption for hit in hits.values())
    assert fresh
    assert fresh.text == encoder.caption_images([draw("circle", "red")])[0].text
