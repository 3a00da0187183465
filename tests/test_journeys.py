"""The ways of architecture.md section 3, from the outside doors alone: command line, HTTP, SDK."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from search import messages as m
from search.app import close, create_app
from search.client import Client, NotFound
from search.config import Config
from tests.conftest import Run
from tests.deadline import wait_for
from tests.drawn import draw, encoded
from textmm.drawings import drawn_products

RECIPE = """
model = "tiny"
threads = 1

[[sources]]
source = "captions.csv"
share = 1.0
caption_share = 1.0

[[stages]]
name = "joint"
steps = 60
batch_size = 16
learning_rate = 3e-3
caption_loss_weight = 1.0
scale_start = 10.0
"""

Serving = Callable[[], AbstractContextManager[Client]]


@pytest.fixture
def serving(run: Run, tmp_path: Path) -> Serving:
    """The service over the command line's data folder, as a client."""

    @contextmanager
    def serving() -> Iterator[Client]:
        app = create_app(Config.load(tmp_path / "config.toml"))
        with Client("http://test", transport=httpx.WSGITransport(app=app)) as client:
            yield client
        close(app)

    return serving


def found(client: Client, text: str, **fields: Any) -> list[str]:
    return [hit.key for hit in client.search(text, collection="shop", **fields).hits or []]


def test_a_folder_is_indexed_and_asked_by_words_by_picture_and_by_what_is_stored(
    run: Run, serving: Serving, pictures: Path
) -> None:
    run("index", pictures / "captions.csv", "--collection", "shop")

    with serving() as client:
        by_words = found(client, "a red circle", k=3)
        by_picture = client.search(image=pictures / "red-circle.png", collection="shop", k=3).hits or []
        like_it = client.search(image_key="red-circle.png", collection="shop", k=3).hits or []
        filtered = found(client, "a red circle", filter={"shape": "circle"}, captions=True)
        bytes_of_it = client.content("shop", "red-circle.png")
    by_command = json.loads(run("search", "a red circle", "--collection", "shop", "-k", "3", "--json").out)

    assert by_words[0] == by_picture[0].key == "red-circle.png"
    assert "red-circle.png" not in {hit.key for hit in like_it}
    assert sorted(filtered) == ["blue-circle.png", "green-circle.png", "red-circle.png", "yellow-circle.png"]
    assert bytes_of_it == (pictures / "red-circle.png").read_bytes()
    assert [hit["key"] for hit in by_command["hits"]] == by_words


def test_a_picture_is_put_replaced_and_deleted_while_the_service_runs(run: Run, serving: Serving) -> None:
    with serving() as client:
        client.put_collection("shop")
        client.put_image("shop", "folder/mug 1", encoded(draw("circle", "red")), attributes={"price": 3})
        put = found(client, "a red circle", filter={"price": 3})
        client.put_image("shop", "folder/mug 1", encoded(draw("cross", "blue")), attributes={"price": 4})
        replaced = found(client, "a red circle", filter={"price": 4})
        client.delete_image("shop", "folder/mug 1")
        deleted = found(client, "a red circle")
        with pytest.raises(NotFound, match="folder/mug 1"):
            client.content("shop", "folder/mug 1")

    assert (put, replaced, deleted) == (["folder/mug 1"], ["folder/mug 1"], [])


def test_what_the_command_line_changes_reaches_a_running_service(
    run: Run, serving: Serving, pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(pictures, folder)
    run("index", folder, "--collection", "shop")

    with serving() as client:
        before = len(found(client, "x", k=100))
        run("delete", "shop", "red-circle.png")
        deleted = len(found(client, "x", k=100))
        (folder / "new.png").write_bytes(encoded(draw("square", "green")))
        run("index", folder, "--collection", "shop")
        wait_for(lambda: "new.png" in found(client, "x", k=100))
        after = len(found(client, "x", k=100))

    assert (before, deleted, after) == (16, 15, 17)  # the deleted file was still in the folder


def test_what_the_service_stored_is_there_for_the_command_line_and_after_a_restart(
    run: Run, serving: Serving
) -> None:
    with serving() as client:
        client.put_collection("shop")
        client.put_image("shop", "a", encoded(draw("circle", "red")), title="a red circle")
    row = json.loads(run("status", "shop", "--json").out)
    searched = json.loads(run("search", "a red circle", "--collection", "shop", "--json").out)
    with serving() as client:
        again = found(client, "a red circle")

    assert (row["images"], row["texts"]) == (1, 1)
    assert [hit["key"] for hit in searched["hits"]] == again == ["a"]


def test_a_bank_is_filled_by_command_and_asked_over_http_for_a_copy(
    run: Run, serving: Serving, tmp_path: Path
) -> None:
    bank = tmp_path / "bank"
    bank.mkdir()
    products = [product.image for product in drawn_products(3, seed=5)]
    for i, picture in enumerate(products[:2]):
        (bank / f"{i}.png").write_bytes(encoded(picture))
    run("index", bank, "--collection", "known", "--bank")
    copy = encoded(products[0], "JPEG", quality=60)

    with serving() as client:
        kinds: list[m.Kind] = ["exact", "near_copy"]
        same = client.look_up(bank / "0.png", kinds=kinds).matches
        copied = client.look_up(copy, kinds=kinds).matches
        other = client.look_up(encoded(products[2]), kinds=kinds).matches

    assert [(match.key, match.kind) for match in same] == [("0.png", "exact"), ("0.png", "near_copy")]
    assert [(match.key, match.kind) for match in copied] == [("0.png", "near_copy")]
    assert other == []


@pytest.mark.slow
def test_a_model_is_trained_measured_and_served(
    run: Run, serving: Serving, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "trained"
    (tmp_path / "recipe.toml").write_text(RECIPE)
    run("train", tmp_path / "recipe.toml", "--sources", pictures, "--out", out)
    data = pictures / "captions.csv"
    measured = json.loads(run("evaluate", out, data, "--task", "retrieval", "--json").out)
    (tmp_path / "config.toml").write_text(f'data = "{tmp_path / "data"}"\n[model]\nname = "{out}"\n')
    run("index", data, "--collection", "shop")

    with serving() as client:
        (served,) = client.models()
        hits = client.search("a red circle", collection="shop", k=16, captions=True).hits or []

    assert measured["metrics"]["image_retrieval_recall@5"] >= 0.8
    assert served.id == measured["model"]
    assert len(hits) == 16
    assert all(hit.caption for hit in hits)


def test_vectors_of_another_model_are_never_mixed_in(
    run: Run, serving: Serving, pictures: Path, tmp_path: Path
) -> None:
    run("index", pictures, "--collection", "shop")
    recipe = RECIPE.replace("steps = 60", "steps = 1")
    (tmp_path / "recipe.toml").write_text(recipe)
    run("train", tmp_path / "recipe.toml", "--sources", pictures, "--out", tmp_path / "other")
    (tmp_path / "config.toml").write_text(
        f'data = "{tmp_path / "data"}"\n[model]\nname = "{tmp_path / "other"}"\n'
    )

    indexed = run("index", pictures, "--collection", "shop")
    searched = run("search", "x", "--collection", "shop")

    assert (indexed.code, searched.code) == (2, 2)
    assert "textmm: collection 'shop' holds vectors of tiny-" in indexed.err
    assert "index it again or serve its model" in searched.err
