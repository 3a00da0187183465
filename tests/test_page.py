"""The page, driven in a real browser over a real server."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest

from search.client import Client
from tests.drawn import draw

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ODD_KEY = "衣服/50% #1?.png"
XSS = "<script>document.title='pwned'</script><b>bold</b>"
TRANSFER = """
async (address) => {
    const bytes = await (await fetch(address)).blob();
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
    return transfer;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        reason = "there is no chromium on this machine"
        pytest.fail(f"{reason}, and CI has to have one") if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, demo_server: str) -> Iterator[Page]:
    """A fresh page that has collection `shop` open; it may not throw."""
    context = browser.new_context(base_url=demo_server, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    thrown: list[str] = []
    page.on("pageerror", lambda error: thrown.append(str(error)))
    page.goto("/?collection=shop")
    yield page
    context.close()
    assert thrown == []


@pytest.fixture
def odd(demo_server: str, pictures: Path) -> Iterator[str]:
    """A collection of one picture whose key and title are made to break a page."""
    with httpx.Client(base_url=demo_server) as http:
        http.put("/v1/collections/odd", json={}).raise_for_status()
        put = http.put(
            f"/v1/collections/odd/images/{quote(ODD_KEY)}",
            files={"image": (pictures / "red-circle.png").read_bytes()},
            data={"request": json.dumps({"title": XSS, "attributes": {"size:eu": 42}})},
        )
        assert put.status_code == 201, put.text
        yield "odd"
        http.delete("/v1/collections/odd").raise_for_status()


def searched(server: str, **query: object) -> dict[str, Any]:
    """What the API answers to the query that the page is asked."""
    answer = httpx.post(f"{server}/v1/search", json={"collection": "shop"} | query).raise_for_status()
    return answer.json()  # type: ignore[no-any-return]


def keys(page: Page) -> list[str]:
    return page.locator(".hit").evaluate_all("hits => hits.map(hit => hit.dataset.key)")  # type: ignore[no-any-return]


def overflow(page: Page) -> int:
    """Pixels that the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_the_start_page_shows_the_collection_and_queries_made_from_it(page: Page) -> None:
    page.locator("[aria-label=Examples] a").first.click()
    page.wait_for_url("**q=**")

    assert page.locator("h1").inner_text() == page.locator("#q").input_value()
    assert len(keys(page)) == 16


def test_results_are_narrowed_down_by_a_value_and_its_count_is_kept(page: Page) -> None:
    from playwright.sync_api import expect

    page.goto("/?collection=shop&q=a+red+circle")
    page.click("summary")
    page.click('.narrow a[aria-label="Only colour blue, 4 pictures"]')
    page.wait_for_url("**f=colour**")

    expect(page.locator(".count")).to_have_text("4 pictures")
    expect(page.locator(".chips .chip")).to_have_text(["colour blue×"])
    expect(page.locator(".narrow dt")).to_have_text(["shape"])
    assert sorted(keys(page)) == [
        "blue-circle.png",
        "blue-cross.png",
        "blue-square.png",
        "blue-triangle.png",
    ]


def test_words_typed_after_a_slash_find_what_the_api_finds(page: Page, demo_server: str) -> None:
    page.locator(".brand").focus()
    page.keyboard.press("/")
    page.keyboard.type("a red circle")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=a+red+circle**")

    asked = searched(demo_server, text="a red circle", k=24)
    assert keys(page) == [hit["key"] for hit in asked["hits"]]
    assert page.locator(".hit .title").all_inner_texts() == [hit["title"] for hit in asked["hits"]]
    assert (page.locator(".score").first.get_attribute("title") or "").startswith("Cosine similarity")


def test_the_page_searches_without_scripts(browser: Browser, demo_server: str, pictures: Path) -> None:
    context = browser.new_context(base_url=demo_server, java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto("/?collection=shop&q=a+blue+cross&f=colour:blue&k=3")
    by_words = keys(page)
    page.locator("input[type=file]").set_input_files(pictures / "green-square.png")
    page.locator("text=Search by the chosen picture").click()
    page.wait_for_selector(".asked")

    asked = searched(demo_server, text="a blue cross", filter={"colour": "blue"}, k=3)
    assert by_words == [hit["key"] for hit in asked["hits"]]
    assert keys(page)[0] == "blue-square.png"
    context.close()


def test_a_chosen_picture_shows_its_neighbours_and_what_it_says(
    page: Page, demo_server: str, pictures: Path
) -> None:
    page.locator("input[type=file]").set_input_files(pictures / "red-circle.png")
    page.wait_for_selector(".asked")

    assert keys(page)[0] == "red-circle.png"
    assert page.locator(".says .caption .tag").inner_text() == "generated"
    uri = "data:image/png;base64," + base64.b64encode((pictures / "red-circle.png").read_bytes()).decode()
    asked = searched(demo_server, image=uri, target="texts", k=6)
    assert page.locator(".texts a").all_inner_texts() == [text["text"] for text in asked["texts"]]
    assert page.locator(".asked img").evaluate("image => image.naturalWidth") == 64


def test_a_large_picture_is_shrunk_before_it_is_sent(page: Page, tmp_path: Path) -> None:
    draw("circle", "red", side=3000).save(tmp_path / "large.png")
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith("shop")):
        page.locator("input[type=file]").set_input_files(tmp_path / "large.png")
    page.wait_for_selector(".asked")

    side = page.evaluate("async () => (await createImageBitmap(picture)).width")
    assert side == 1024
    assert keys(page)[0] == "red-circle.png"


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(page: Page, event: str) -> None:
    transfer = page.evaluate_handle(TRANSFER, "/v1/collections/shop/contents/blue-cross.png")
    field = "dataTransfer" if event == "drop" else "clipboardData"
    kind = "DragEvent" if event == "drop" else "ClipboardEvent"
    page.evaluate(
        f"transfer => document.body.dispatchEvent(new {kind}('{event}',"
        f" {{{field}: transfer, bubbles: true, cancelable: true}}))",
        transfer,
    )
    page.wait_for_selector(".asked")

    assert keys(page)[0] == "blue-cross.png"


def test_back_leaves_a_search_by_picture(page: Page, pictures: Path) -> None:
    page.goto("/?collection=shop&q=a+red+circle")
    page.locator("input[type=file]").set_input_files(pictures / "blue-cross.png")
    page.wait_for_selector(".asked")
    page.go_back()
    page.wait_for_selector(".asked", state="detached")

    assert page.locator("h1").inner_text() == "a red circle"


def test_more_like_this_shows_the_others_and_not_itself(page: Page) -> None:
    page.locator("[data-key='red-circle.png'] .like").click()
    page.wait_for_selector(".asked")

    assert page.locator(".asked h2").inner_text() == "a red circle"
    assert len(keys(page)) == 15
    assert "red-circle.png" not in keys(page)


def test_keys_walk_the_hits_open_one_and_close_it(page: Page) -> None:
    page.goto("/?collection=shop&q=a+red+circle")
    page.locator("#q").press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    opened = page.locator("dialog h2").inner_text()
    shown = page.locator("dialog").is_visible()
    page.keyboard.press("Escape")

    assert shown
    assert opened == page.locator(".hit .title").nth(1).inner_text()
    assert not page.locator("dialog").is_visible()
    assert page.evaluate("document.activeElement.closest('.hit').id") == "hit-2"


def test_an_attribute_of_a_hit_narrows_the_search_until_its_chip_is_removed(page: Page) -> None:
    page.goto("/?collection=shop&q=a+circle")
    page.locator("[data-key='green-circle.png'] .open").click()
    page.locator("dialog dd a", has_text=re.compile("^green$")).click()
    page.wait_for_url("**f=colour**")
    narrowed = sorted(keys(page))
    page.locator("a.chip[aria-label='Remove colour:green']").click()
    page.wait_for_url(lambda address: "f=" not in address)

    assert narrowed == ["green-circle.png", "green-cross.png", "green-square.png", "green-triangle.png"]
    assert len(keys(page)) == 16


def test_a_picture_stays_the_query_while_it_is_narrowed_to_a_number(page: Page, pictures: Path) -> None:
    page.locator("input[type=file]").set_input_files(pictures / "red-circle.png")
    page.wait_for_selector(".asked")
    page.locator("[data-key='green-circle.png'] .open").click()
    page.locator("dialog dd a", has_text=re.compile("^1$")).click()
    page.wait_for_selector("a.chip[aria-label='Remove number:1']")

    assert page.locator(".asked").is_visible()
    assert keys(page) == ["green-circle.png"]


def test_captions_come_after_the_hits(page: Page, demo_server: str) -> None:
    from playwright.sync_api import expect

    page.goto("/?collection=shop&q=a+red+circle")
    expect(page.locator(".hit .caption:not(.waiting, :empty)")).to_have_count(16)

    hits = searched(demo_server, text="a red circle", k=16, captions=True)["hits"]
    captions = [hit["caption"]["text"] for hit in hits]
    assert page.locator(".hit .caption").all_inner_texts() == captions
    assert page.locator(".hit img").evaluate_all("images => images.map(image => image.alt)") == captions


def test_a_text_file_given_as_a_picture_is_refused_in_words(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not a picture")
    with page.expect_response(lambda response: response.request.method == "POST") as answered:
        page.locator("input[type=file]").set_input_files(tmp_path / "notes.png")
    page.wait_for_selector("[role=alert]")

    assert answered.value.status == 422
    assert "Not a picture we can read" in page.locator("[role=alert]").inner_text()
    assert page.locator("#q").is_visible()


def test_an_unknown_collection_is_a_404_that_offers_the_start_page(page: Page) -> None:
    response = page.goto("/?collection=nope")

    assert response is not None
    assert response.status == 404
    assert "There is no collection 'nope'" in page.locator("[role=alert]").inner_text()
    assert page.get_by_role("link", name="Start page", exact=True).is_visible()


def test_an_empty_collection_says_how_to_fill_it(page: Page, demo_server: str) -> None:
    httpx.put(f"{demo_server}/v1/collections/bare", json={}).raise_for_status()
    page.goto("/?collection=bare")
    said = page.locator(".notice").inner_text()
    httpx.delete(f"{demo_server}/v1/collections/bare").raise_for_status()

    assert "holds no pictures yet" in said
    assert "textmm index ~/Pictures --collection bare" in said


def test_markup_in_a_title_is_text_and_odd_keys_and_names_work_in_links(page: Page, odd: str) -> None:
    page.goto(f"/?collection={odd}&q=circle")
    page.locator(".hit .open").click()
    title = page.locator("dialog h2").inner_text()
    page.locator("dialog img").evaluate("image => image.decode()")
    page.locator("dialog dd a", has_text="42").click()
    page.wait_for_url("**f=size**")
    narrowed = keys(page)
    page.locator(".hit .like").click()
    page.wait_for_selector(".asked")

    assert title == XSS
    assert narrowed == [ODD_KEY]
    assert page.locator(".asked img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    assert page.locator(".says h2").inner_text() == XSS
    assert "pwned" not in page.title().partition("<script>")[0]


@pytest.fixture
def songs(demo_server: str) -> Iterator[str]:
    """A collection of vectors without pictures."""
    with Client(demo_server) as client:
        client.put_collection("songs", model="external", dim=2)
        for i in range(6):
            genre = "rock" if i % 2 else "jazz"
            client.put_image(
                "songs", f"song/{i}", vector=[1, i], title=f"Song {i}", attributes={"genre": genre}
            )
        yield "songs"
        client.delete_collection("songs")


def test_vectors_without_pictures_are_shown_calmly_and_lead_to_more_like_them(page: Page, songs: str) -> None:
    broken: list[str] = []
    page.on("response", lambda answer: broken.append(answer.url) if answer.status >= 400 else None)
    page.goto(f"/?collection={songs}")
    start = (
        page.locator(".count").inner_text(),
        page.locator(".hit img").count(),
        page.locator(".without").count(),
    )
    page.locator("[data-key='song/3'] .open").click()
    facts = page.locator("dialog dt").all_inner_texts()
    page.locator("dialog .button", has_text="More like this").click()
    page.wait_for_selector(".asked")
    alike = keys(page)
    page.click("summary")
    page.click('.narrow a[aria-label^="Only genre jazz"]')
    page.wait_for_url("**f=genre**")

    assert start == ("6 vectors", 0, 6)
    assert facts == ["genre", "Key"]
    assert alike == ["song/4", "song/5", "song/2", "song/1", "song/0"]
    assert keys(page) == ["song/4", "song/2", "song/0"]
    assert broken == []


def test_a_filter_alone_shows_the_vectors_that_pass_and_words_are_refused_in_words(
    page: Page, songs: str
) -> None:
    page.goto(f"/?collection={songs}&f=genre:rock")
    passing = sorted(keys(page))
    page.goto(f"/?collection={songs}&q=rock")

    assert passing == ["song/1", "song/3", "song/5"]
    assert "text cannot be compared with: search by vector" in page.locator("[role=alert]").inner_text()


COUNT_DRAWN = """
window.counts = [];
new MutationObserver(() => counts.push(document.querySelectorAll("#drawn button img").length))
  .observe(document.body, { childList: true, subtree: true });
"""


@pytest.mark.parametrize("width", [360, 1280])
def test_what_is_not_there_is_drawn_a_picture_at_a_time_and_searched_with(page: Page, width: int) -> None:
    from playwright.sync_api import expect

    page.set_viewport_size({"width": width, "height": 740})
    page.locator("#q").fill("a yellow square")
    page.evaluate(COUNT_DRAWN)
    page.click("text=Draw it")
    expect(page.locator("#drawn button img")).to_have_count(4, timeout=60_000)
    counts = page.evaluate("counts")
    drawn = page.locator("#drawn button img").evaluate_all("images => images.map((image) => image.src)")
    wide = overflow(page)
    page.locator("#drawn button").first.click()
    page.wait_for_selector(".asked")

    assert list(dict.fromkeys(counts)) == [0, 1, 2, 3, 4]  # none waits for the others
    assert len(set(drawn)) == 4 and wide == 0
    assert keys(page)[0].startswith("yellow-")
    expect(page.locator("#drawn")).to_have_count(0)


def test_drawing_without_words_asks_for_them(page: Page) -> None:
    from playwright.sync_api import expect

    page.click("text=Draw it")

    expect(page.locator("#q")).to_be_focused()
    assert page.locator("#drawn").count() == 0


def test_that_many_drawings_wait_is_told_in_words(page: Page, demo_server: str) -> None:
    from playwright.sync_api import expect

    over = threading.Event()

    def keep_asking() -> None:
        with httpx.Client(base_url=demo_server, timeout=60) as http:
            while not over.is_set():
                http.post("/v1/images/generations", json={"prompt": "a red cross", "n": 8})

    others = [threading.Thread(target=keep_asking) for _ in range(7)]  # one draws, three wait
    for one in others:
        one.start()
    try:
        page.locator("#q").fill("a red cross")
        told = page.locator("#drawn .hint")
        for _ in range(20):  # now and then this one comes just when a place is free, and is drawn
            page.click("text=Draw it")
            page.locator("#drawn .hint, #drawn li").first.wait_for(timeout=20_000)
            if told.count():
                break
        expect(told).to_have_text("Many drawings are under way: try again in a moment.")
        assert page.locator("#drawn li").count() < 4
    finally:
        over.set()
        for one in others:
            one.join()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(page: Page, pictures: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    wider = [overflow(page)]
    page.goto("/?collection=shop&q=a+red+circle&f=colour:red")
    wider.append(overflow(page))
    page.locator(".hit .open").first.click()
    wider.append(overflow(page))
    page.keyboard.press("Escape")
    page.locator("input[type=file]").set_input_files(pictures / "red-circle.png")
    page.wait_for_selector(".asked")
    wider.append(overflow(page))

    assert wider == [0, 0, 0, 0]


def test_static_files_last_and_the_page_lets_nothing_foreign_in(demo_server: str) -> None:
    with httpx.Client(base_url=demo_server) as http:
        page = http.get("/")
        found = re.search(r'href="(/static/style\.css\?v=\w+)"', page.text)
        assert found is not None
        style = http.get(found[1])

    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert style.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert "http" not in style.text
