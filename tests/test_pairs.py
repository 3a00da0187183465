import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.drawn import draw
from textmm.pairs import (
    CaptionDraw,
    Draw,
    Pairs,
    PairSource,
)
from textmm.phrases import CaptionPhrase, Phrases
from textmm.sources import SourceError
from textmm.wording import read_translations

COLOURS, KINDS = ("Red", "Blue", "Navy Blue"), ("Shirt", "Dress")
ENGLISH = Phrases(share=0.7, templates=("{colour} {kind}", "{kind}", "{colour} {kind} for {gender}"))


def write_shop(folder: Path) -> None:
    """12 pictures of two kinds in three colours; every other one says for whom; some titles repeat."""
    rows = []
    for i in range(12):
        colour, kind = COLOURS[i % 3], KINDS[i % 2]
        gender = "Women" if i % 4 < 2 else ""
        rows.append([f"k{i}", f"{i}.png", f"Nice {kind} {i // 6}", colour, kind, gender])
        draw("circle", "red", side=20 + i).save(folder / f"{i}.png")
    with (folder / "shop.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["key", "path", "title", "colour", "kind", "gender"], *rows])


def pairs_of(
    folder: Path, sources: tuple[PairSource, ...], phrases: tuple[Phrases, ...] = (ENGLISH,), *, seed: int = 3
) -> Pairs:
    return Pairs(sources, phrases, data=folder, drawings=folder / "drawn", seed=seed)


SHOP = PairSource(
    source="shop.csv",
    share=1.0,
    caption_share=1.0,
    phrase_share=0.6,
    style="title",
    caption_phrases=(CaptionPhrase(style="attributes", template="{colour} {kind} for {gender}", share=0.5),),
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(shop: Path) -> Pairs:
    return pairs_of(shop, (SHOP,))


def same(one: Draw, other: Draw) -> bool:
    pictures = np.array_equal(one.picture_ids, other.picture_ids)
    return pictures and np.array_equal(one.text_ids, other.text_ids)


def test_a_batch_depends_on_seed_stage_and_step_and_on_nothing_before_it(shop: Path, pairs: Pairs) -> None:
    fresh = pairs_of(shop, (SHOP,))
    for step in range(5):
        pairs.draw(8, stage=0, step=step)

    assert same(pairs.draw(8, stage=1, step=7), fresh.draw(8, stage=1, step=7))
    assert (
        pairs.draw_captions(8, stage=1, step=7).captions == fresh.draw_captions(8, stage=1, step=7).captions
    )
    for stage, step in ((1, 8), (0, 7)):
        assert not same(pairs.draw(8, stage=1, step=7), fresh.draw(8, stage=stage, step=step))
    assert not same(pairs.draw(8, stage=1, step=7), pairs_of(shop, (SHOP,), seed=4).draw(8, stage=1, step=7))


def test_no_picture_comes_twice_while_there_are_enough(pairs: Pairs) -> None:
    counts = Counter(pairs.draw(12, stage=0, step=0).picture_ids.tolist())
    more = pairs.draw(30, stage=0, step=0).picture_ids

    assert counts == Counter(range(12))
    assert len(more) == 30


def test_every_text_of_a_batch_is_the_pictures_own_or_a_phrase_true_of_it(pairs: Pairs) -> None:
    said = set()
    for step in range(60):
        drawn = pairs.draw(12, stage=0, step=step)
        for picture, text in zip(drawn.picture_ids.tolist(), drawn.text_ids.tolist(), strict=True):
            item = pairs.items[picture]
            attributes = {k: str(v).lower() for k, v in item.attributes.items()}
            true = {template.format(**attributes) for template in ENGLISH.templates[:2]}
            if "gender" in attributes:
                true.add(ENGLISH.templates[2].format(**attributes))
            assert pairs.texts[text] in true | set(item.texts)
            said.add("own" if pairs.texts[text] in item.texts else "phrase")

    assert said == {"own", "phrase"}


def test_phrases_take_their_share_of_the_draws(pairs: Pairs) -> None:
    drawn = [pairs.draw(12, stage=0, step=step) for step in range(200)]

    own = [
        pairs.texts[t] in pairs.items[p].texts
        for one in drawn
        for p, t in zip(one.picture_ids.tolist(), one.text_ids.tolist(), strict=True)
    ]

    assert np.mean(own) == pytest.approx(1 - SHOP.phrase_share, abs=0.05)


def positives_by_loop(pairs: Pairs, drawn: Draw) -> list[list[bool]]:
    """Reading the words: a phrase of lower-case attribute values is true of what has those values."""
    values = {
        value.lower(): name for name, all_of in (("colour", COLOURS), ("kind", KINDS)) for value in all_of
    }
    out = []
    rows = list(zip(drawn.picture_ids.tolist(), [pairs.texts[int(i)] for i in drawn.text_ids], strict=True))
    for picture, own in rows:
        row = []
        for other, text in rows:
            has = pairs.items[picture].attributes
            words = text.replace("navy blue", "navy_blue").replace(" for women", "").split()
            named = [word.replace("_", " ") for word in words]
            is_phrase = all(word in values for word in named)
            true = is_phrase and all(str(has[values[word]]).lower() == word for word in named)
            if text.endswith("for women"):
                true = true and has.get("gender") == "Women"
            row.append(picture == other or text == own or true)
        out.append(row)
    return out


@pytest.mark.parametrize("step", range(4))
def test_positives_are_the_same_picture_the_same_text_and_phrases_that_are_true(
    pairs: Pairs, step: int
) -> None:
    drawn = pairs.draw(20, stage=0, step=step)

    positives = pairs.positives(drawn)

    assert positives.tolist() == positives_by_loop(pairs, drawn)
    assert positives.any(axis=1).all()
    assert not positives.all()


def test_an_own_text_and_a_phrase_of_the_same_words_are_no_negatives_of_each_other(tmp_path: Path) -> None:
    draw("circle", "red").save(tmp_path / "red.png")
    (tmp_path / "m.csv").write_text("path,title,kind,colour\nred.png,shirt,,red\nred.png,,Shirt,\n")
    source = PairSource(source="m.csv", share=1.0, phrase_share=0.5)
    pairs = pairs_of(tmp_path, (source,), (Phrases(share=1.0, templates=("{kind}",)),))

    drawn = pairs.draw(2, stage=0, step=0)

    assert {pairs.texts[int(i)] for i in drawn.text_ids} == {"shirt"}
    assert len(set(drawn.text_ids.tolist())) == 2
    assert pairs.positives(drawn).all()


def test_pictures_kept_apart_are_compared_only_with_each_other(shop: Path) -> None:
    apart = PairSource(source="shop.csv", share=1.0, apart=True)
    pairs = pairs_of(shop, (SHOP, apart))
    drawn = pairs.draw(8, stage=0, step=0)

    ignored = pairs.ignored(drawn)

    is_apart = [i >= 12 for i in drawn.picture_ids.tolist()]
    assert is_apart.count(True) == 4
    assert ignored.tolist() == [[a != b for b in is_apart] for a in is_apart]


def test_sources_share_a_batch_in_proportion_and_one_without_a_share_is_not_in_it(shop: Path) -> None:
    sources = tuple(PairSource(source="shop.csv", share=share) for share in (3.0, 1.0, 0.0))

    drawn = pairs_of(shop, sources).draw(16, stage=0, step=0)

    assert Counter(i // 12 for i in drawn.picture_ids.tolist()) == {0: 12, 1: 4}


def by_style(draws: list[CaptionDraw], style: str) -> list[tuple[int, str]]:
    return [
        (picture, caption)
        for drawn in draws
        for picture, caption, its_style in zip(
            drawn.picture_ids.tolist(), drawn.captions, drawn.styles, strict=True
        )
        if its_style == style
    ]


def test_captions_are_own_texts_in_the_style_of_the_source_or_the_template_in_style_attributes(
    pairs: Pairs,
) -> None:
    draws = [pairs.draw_captions(12, stage=0, step=step) for step in range(40)]

    titles, attributes = by_style(draws, "title"), by_style(draws, "attributes")

    assert len(titles) + len(attributes) == 40 * 12
    assert len(attributes) / (40 * 12) == pytest.approx(SHOP.caption_phrases[0].share, abs=0.07)
    assert all(caption in pairs.items[picture].texts for picture, caption in titles)
    for picture, caption in attributes:
        item = pairs.items[picture]
        ending = " for women" if "gender" in item.attributes else ""
        assert caption == f"{item.attributes['colour']} {item.attributes['kind']}{ending}".lower()


def test_the_decoder_may_learn_every_caption_that_can_be_drawn(pairs: Pairs) -> None:
    drawn = {c for step in range(40) for c in pairs.draw_captions(12, stage=0, step=step).captions}

    assert drawn <= set(pairs.caption_texts())


@pytest.mark.parametrize(
    ("synonym_share", "reds"), [(0.0, {"红色"}), (0.5, {"红色", "大红"}), (1.0, {"大红"})]
)
def test_words_of_another_language_come_from_its_table(
    shop: Path, synonym_share: float, reds: set[str]
) -> None:
    table = shop / "words.csv"
    rows = ["Red,红色", "Red,大红", "Blue,蓝色", "Navy Blue,深蓝", "Shirt,衬衫", "Dress,连衣裙"]
    table.write_text("\n".join(["value,translation", *rows]), encoding="utf-8")
    phrases = Phrases(
        share=1.0,
        templates=("{colour}的{kind}",),
        synonyms=str(table),
        values_too=False,
        synonym_share=synonym_share,
    )

    pairs = pairs_of(shop, (SHOP,), (phrases,))

    chinese = [text.split("的") for text in pairs.texts if "的" in text]
    assert read_translations(str(table))["red"] == ["红色", "大红"]
    assert {colour for colour, _ in chinese} == reds | {"蓝色", "深蓝"}
    assert {kind for _, kind in chinese} == {"衬衫", "连衣裙"}


@pytest.mark.parametrize("name", ["en.csv", "zh.csv"])
def test_every_shipped_translation_has_a_value_and_a_word(name: str) -> None:
    table = read_translations(name)

    assert len(table) > 50
    assert all(
        value == value.lower().strip() and all(word.strip() for word in words)
        for value, words in table.items()
    )


def test_drawn_products_are_a_source_and_are_drawn_once(tmp_path: Path) -> None:
    source = PairSource(source="drawn:5", share=1.0)
    pairs = pairs_of(tmp_path, (source,))
    table = tmp_path / "drawn" / "drawn-3-5" / "products.csv"
    before = table.stat().st_mtime_ns

    again = pairs_of(tmp_path, (source,))

    assert [item.key for item in pairs.items] == [item.key for item in again.items]
    assert len(pairs.items) == 5
    assert table.stat().st_mtime_ns == before
    assert pairs.picture(0).mode == "RGB"


def test_items_with_a_problem_are_left_out_and_a_missing_source_is_refused(tmp_path: Path) -> None:
    draw("circle", "red").save(tmp_path / "red.png")
    (tmp_path / "m.csv").write_text("path,title\nred.png,a\n,b\n")

    assert len(pairs_of(tmp_path, (PairSource(source="m.csv", share=1.0),)).items) == 1
    with pytest.raises(SourceError, match=r"gone\.csv: there is no such folder or file"):
        pairs_of(tmp_path, (PairSource(source="gone.csv", share=1.0),))


def test_rows_of_clicks_are_pictures_with_all_their_queries(shop: Path) -> None:
    rows = [
        "image,query,session",
        "1.png,blue shirt,a",
        "2.png,navy dress,b",
        "1.png,shirt for work,c",
        "2.png,,d",
    ]
    (shop / "clicks.csv").write_text("\n".join(rows))
    clicks = PairSource(source="clicks.csv", share=1.0, text_column="query")

    pairs = pairs_of(shop, (clicks,), ())

    assert [item.texts for item in pairs.items] == [("blue shirt", "shirt for work"), ("navy dress",)]


def test_copies_of_a_picture_are_no_negatives_of_each_others_texts(shop: Path) -> None:
    (shop / "copy.png").write_bytes((shop / "1.png").read_bytes())
    (shop / "copies.csv").write_text("path,text\n1.png,one\ncopy.png,two\n2.png,three\n")
    pairs = pairs_of(shop, (PairSource(source="copies.csv", share=1.0),), ())

    positives = pairs.positives(Draw(np.array([0, 1, 2]), np.array([0, 1, 2])))

    assert positives.tolist() == [[True, True, False], [True, True, False], [False, False, True]]


TITLES = (
    *(f"Acme Men {colour} Shirt" for colour in COLOURS),
    *(f"United Colors of Paris Women {colour} Dress" for colour in COLOURS),
    *(f"Red Tape Men {colour} Shoes" for colour in ("Black", "Red", "Brown", "Red")),
    "Men Blue Shirt",
)


def test_captions_of_a_source_say_no_brands_and_its_queries_do(tmp_path: Path) -> None:
    draw("circle", "red").save(tmp_path / "red.png")
    rows = [["key", "path", "title"], *([f"k{i}", "red.png", title] for i, title in enumerate(TITLES))]
    with (tmp_path / "brands.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    source = PairSource(source="brands.csv", share=1.0, caption_share=1.0, style="title", strip_brands=True)
    pairs = pairs_of(tmp_path, (source,))

    assert not any("Acme" in text for text in pairs.caption_texts())
    assert not any("Acme" in text for text in pairs.draw_captions(11, stage=0, step=0).captions)
    assert any("Acme" in text for text in pairs.texts)


def test_a_caption_in_another_language_has_its_words(shop: Path) -> None:
    phrase = CaptionPhrase(style="attributes_zh", template="{colour}{kind}", share=1.0, translations="zh.csv")
    pairs = pairs_of(
        shop, (PairSource(source="shop.csv", share=1.0, caption_share=1.0, caption_phrases=(phrase,)),)
    )

    drawn = pairs.draw_captions(12, stage=0, step=0)

    assert set(drawn.styles) == {"attributes_zh"}
    assert any(said.startswith("红色") for said in drawn.captions)


def test_captions_of_one_style_only(pairs: Pairs) -> None:
    drawn = pairs.draw_captions(12, stage=0, step=0, style="title")

    assert set(drawn.styles) == {"title"} and len(drawn.captions) == len(drawn.picture_ids) > 0
    assert set(pairs.sentences("title")) == set(range(12)) and pairs.sentences("photo") == {}
