from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textmm.answers import Asked, ask, questions_about
from textmm.encoder import Answer, Encoder
from textmm.evaluate import (
    DataSet,
    _in_words,
    _names_rightly,
    attribute_retrieval,
    captions,
    classify,
    load_translations,
    read_data,
    retrieval,
)
from textmm.figures import Confusion, Miss, Misses, RecallCurve, Reliability
from textmm.sources import Item, read_source


@pytest.fixture(scope="module")
def data(encoder: Encoder, pictures: Path) -> DataSet:
    return read_data(encoder, read_source(str(pictures / "captions.csv")))


def copies(data: DataSet, count: int) -> DataSet:
    return DataSet(data.items * count, data.images * count)


def with_attributes(data: DataSet, name: str, values: list[str]) -> DataSet:
    items = [replace(item, attributes={name: v}) for item, v in zip(data.items, values, strict=True)]
    return DataSet(items, data.images)


# Data


def test_pictures_are_fitted_and_stand_beside_their_items(data: DataSet) -> None:
    assert len(data.items) == len(data.images) == 16
    assert {image.size for image in data.images} == {(32, 32)}
    assert data.items[0].attributes == {"colour": "red", "shape": "circle", "number": 0}


def test_a_picture_that_cannot_be_read_is_an_error_that_names_it(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")

    with pytest.raises(ValueError, match=r"bad\.png: not a picture we can read"):
        read_data(encoder, read_source(str(tmp_path)))
    with pytest.raises(ValueError, match=r"gone\.png: .*No such file"):
        read_data(encoder, [Item("gone.png", str(tmp_path / "gone.png"))])
    with pytest.raises(ValueError, match="k: the sample holds no picture"):
        read_data(encoder, [Item("k", "", problem="the sample holds no picture")])
    with pytest.raises(ValueError, match="the data hold no pictures"):
        read_data(encoder, [])


# Retrieval


def test_the_tiny_model_finds_every_drawn_picture_by_its_title_and_back(
    encoder: Encoder, data: DataSet
) -> None:
    result = retrieval(encoder, data)

    assert result.task == "zeroshot_retrieval"
    assert result.metrics == {
        f"{way}_retrieval_{name}": 1.0
        for name in ("recall@1", "recall@5", "recall@10", "median_rank", "ndcg@10")
        for way in ("image", "text")
    }
    assert result.intervals == dict.fromkeys(result.metrics, (1.0, 1.0))
    assert result.counts == {"images": 16, "texts": 16}


def test_every_picture_with_a_text_is_a_right_answer_and_one_without_is_no_query(
    encoder: Encoder, data: DataSet
) -> None:
    bare = [replace(item, title=None) for item in data.items[8:]]
    twice = DataSet([*data.items[:8], *data.items[:8], *bare], [*data.images[:8], *data.images])

    result = retrieval(encoder, twice)

    assert result.counts == {"images": 24, "texts": 8}
    assert result.metrics["text_retrieval_recall@1"] == 1.0
    assert result.metrics["image_retrieval_recall@1"] == 1.0


def test_retrieval_of_the_wrong_titles_fails(encoder: Encoder, data: DataSet) -> None:
    titles = [item.title for item in data.items]
    items = [replace(i, title=t) for i, t in zip(data.items, [*titles[1:], titles[0]], strict=True)]

    result = retrieval(encoder, DataSet(items, data.images))

    assert result.metrics["image_retrieval_recall@1"] == 0.0


def test_retrieval_without_texts_is_refused_with_the_remedy(encoder: Encoder, data: DataSet) -> None:
    bare = DataSet([replace(item, title=None) for item in data.items], data.images)

    with pytest.raises(ValueError, match="the data hold no texts: give --text TEMPLATE"):
        retrieval(encoder, bare)


# Attributes


def test_a_query_made_of_attributes_finds_all_ten_of_its_pictures(encoder: Encoder, data: DataSet) -> None:
    result = attribute_retrieval(encoder, copies(data, 10), "a {colour} {shape}", {})

    assert result.metrics == {"precision@10": 1.0}
    assert result.counts == {"images": 160, "queries": 16}


def test_matching_by_some_attributes_makes_more_pictures_right(encoder: Encoder, data: DataSet) -> None:
    template = "a {colour} {shape}"
    by_loop = []
    rows = encoder.encode_images(data.images)
    for item in data.items:
        scores = rows @ encoder.encode_texts([f"a {item.attributes['colour']} {item.attributes['shape']}"])[0]
        best = np.argsort(-scores)[:10]
        by_loop.append(
            np.mean([data.items[i].attributes["colour"] == item.attributes["colour"] for i in best])
        )

    strict = attribute_retrieval(encoder, data, template, {}, at_least=1)
    loose = attribute_retrieval(encoder, data, template, {}, match=("colour",), at_least=1)

    assert strict.metrics["precision@10"] == pytest.approx(0.1)
    assert loose.metrics["precision@10"] == pytest.approx(float(np.mean(by_loop)))
    assert loose.metrics["precision@10"] > 0.15
    with pytest.raises(ValueError, match="size to match by is not in the template"):
        attribute_retrieval(encoder, data, template, {}, match=("size",), at_least=1)


def test_a_query_with_too_few_pictures_is_none_and_without_any_it_is_refused(
    encoder: Encoder, data: DataSet
) -> None:
    nine, one_more = copies(data, 9), data.items[3]
    enough = DataSet([*nine.items, one_more], [*nine.images, data.images[3]])

    assert attribute_retrieval(encoder, enough, "a {colour} {shape}", {}).counts["queries"] == 1
    with pytest.raises(ValueError, match=r"no query of 'a \{colour\} \{shape\}' has 10 right pictures"):
        attribute_retrieval(encoder, nine, "a {colour} {shape}", {})


def test_a_translated_query_is_asked_in_the_words_of_the_table(encoder: Encoder, data: DataSet) -> None:
    spoken = with_attributes(data, "what", [f"W{i}" for i in range(16)])
    table = {f"w{i}": [item.title or ""] for i, item in enumerate(data.items)}

    result = attribute_retrieval(encoder, copies(spoken, 10), "{what}", table)

    assert result.metrics == {"precision@10": 1.0}
    with pytest.raises(ValueError, match="the translations have no entry for 'W15'"):
        attribute_retrieval(encoder, copies(spoken, 10), "{what}", {k: table[k] for k in list(table)[:15]})


def test_words_of_a_script_without_spaces_are_joined() -> None:
    table = {"red": ["红色"], "shirt": ["衬衫"]}

    assert _in_words("{colour} {kind}", {"colour": "Red", "kind": "Shirt"}, table) == "红色衬衫"
    assert _in_words("{colour} {kind}", {"colour": "Red", "kind": "Shirt"}, {}) == "red shirt"


def test_no_translations_are_an_empty_table_and_shipped_ones_have_their_names() -> None:
    assert load_translations(None) == {}
    assert load_translations("zh.csv")["men"][0] == "男士"


# Classification


def test_the_tiny_model_tells_all_drawn_pictures_apart_by_their_titles(
    encoder: Encoder, data: DataSet
) -> None:
    labelled = with_attributes(data, "what", [item.title or "" for item in data.items])

    result = classify(encoder, labelled, "what", {}, at_least=1)

    error = result.metrics.pop("expected_calibration_error")
    names = ("acc1", "acc5", "mean_per_class_recall", "macro_precision", "macro_f1")
    assert result.metrics == dict.fromkeys(names, 1.0)
    assert 0 < error < 0.5
    assert result.counts == {"images": 16, "labels": 16, "rare": 0}


def test_classification_is_the_nearest_label_of_each_picture_and_recall_is_per_label(
    encoder: Encoder, data: DataSet
) -> None:
    uneven = DataSet([*data.items, *data.items[:5]], [*data.images, *data.images[:5]])
    labels = ["circle", "cross", "square", "triangle"]
    prompts = [encoder.encode_texts([label])[0] for label in labels]
    right: dict[str, list[bool]] = {label: [] for label in labels}
    for item, image in zip(uneven.items, uneven.images, strict=True):
        row = encoder.encode_images([image])[0]
        guess = labels[int(np.argmax([row @ prompt for prompt in prompts]))]
        right[str(item.attributes["shape"])].append(guess == item.attributes["shape"])

    result = classify(encoder, uneven, "shape", {}, at_least=4)

    assert result.metrics["acc1"] == pytest.approx(np.mean([hit for hits in right.values() for hit in hits]))
    assert result.metrics["mean_per_class_recall"] == pytest.approx(
        np.mean([np.mean(h) for h in right.values()])
    )


def test_a_label_with_too_few_pictures_is_left_out_and_two_are_needed(
    encoder: Encoder, data: DataSet
) -> None:
    few = with_attributes(data, "size", ["S"] * 10 + ["M"] * 4 + ["L"] * 2)

    assert classify(encoder, few, "size", {}, at_least=4).counts == {"images": 14, "labels": 2, "rare": 2}
    with pytest.raises(ValueError, match="attribute 'size' has 1 values with 10 pictures; two are needed"):
        classify(encoder, few, "size", {})
    with pytest.raises(ValueError, match="attribute 'weight' has 0 values"):
        classify(encoder, few, "weight", {})


# Captions


def test_captions_of_the_drawn_pictures_are_almost_their_titles(encoder: Encoder, data: DataSet) -> None:
    result = captions(encoder, data, "photo")

    assert result.task == "captioning"
    assert result.metrics["Bleu_4"] > 0.01  # titles of three words hold no 4-gram
    assert result.metrics["CIDEr"] > 5
    assert result.metrics["ROUGE_L"] > 0.5
    assert all(low <= result.metrics[name] <= high for name, (low, high) in result.intervals.items())
    assert result.counts == {"images": 16}


def test_captions_need_a_text_of_every_picture_and_a_style_of_the_model(
    encoder: Encoder, data: DataSet
) -> None:
    bare = DataSet([*data.items[:15], replace(data.items[15], title=None)], data.images)

    with pytest.raises(ValueError, match="some pictures have no text to compare a caption with"):
        captions(encoder, bare, "photo")
    with pytest.raises(ValueError, match="style 'attributes' is not one of"):
        captions(encoder, data, "attributes")


@pytest.mark.parametrize(
    ("said", "truth", "share"),
    [
        (["navy blue shirt", "blue shirt"], ["Navy Blue", "Blue"], 1.0),
        (["navy blue shirt", "blue shirt"], ["Blue", "Navy Blue"], 0.0),  # "navy blue" is not "blue"
        (["blue grey shirt", "blue shirt"], ["Blue Grey", "Blue"], 1.0),
        (["a bluebird"], ["Blue"], 0.0),
        (["a shirt, blue."], ["Blue"], 1.0),
        (["red and blue", "blue"], ["Blue", None], 1.0),  # red is no known value here
        (["a blue shirt", "a shirt"], ["Blue", "Blue"], 0.5),
        (["tops (women)"], ["Tops (Women)"], 1.0),
        (["男士深红色衬衫", "男士红色衬衫"], ["深红色", "红色"], 1.0),
        (["男士深红色衬衫", "男士红色衬衫"], ["红色", "深红色"], 0.0),
    ],
)
def test_a_caption_names_a_value_when_its_longest_known_one_is_right(
    said: list[str], truth: list[str | None], share: float
) -> None:
    assert _names_rightly(said, truth) == share


def test_without_a_single_true_value_there_is_no_figure() -> None:
    assert np.isnan(_names_rightly(["blue"], [None]))


# Answers


def colour_at_the_middle(images: Sequence[Image.Image], questions: Sequence[str]) -> list[Answer]:
    """Sees what is red, surely, and takes all else to be blue, less so."""
    pixels = [image.convert("RGB").resize((3, 3)).getpixel((1, 1)) for image in images]
    red = [isinstance(p, tuple) and p[0] > 150 and p[1] < 120 for p in pixels]
    return [Answer("Red.", 0.9, 0.9) if one else Answer("blue", 0.6, 0.6) for one in red]


def test_answers_are_compared_with_those_that_are_right_in_all_and_by_kind(data: DataSet) -> None:
    questions = [
        Asked(i, "what colour?", (str(item.attributes["colour"]),), "colour")
        for i, item in enumerate(data.items)
    ] + [Asked(0, "what is it?", ("a circle",))]

    result = ask(colour_at_the_middle, data, questions)

    assert result.task == "visual_question_answering"
    assert result.metrics == pytest.approx(
        {
            "answer_accuracy": 8 / 17,
            "answer_accuracy_colour": 0.5,
            "answers_told": 5 / 17,
            "answer_accuracy_told": 4 / 5,
            "expected_calibration_error": (5 * abs(0.9 - 4 / 5) + 12 * abs(0.6 - 4 / 12)) / 17,
        }
    )
    assert result.counts == {"images": 16, "questions": 17}
    low, high = result.intervals["answer_accuracy_colour"]
    assert 0.2 <= low < 0.5 < high <= 0.8
    reliability, misses = result.pictures
    assert isinstance(reliability, Reliability) and isinstance(misses, Misses)
    assert misses.misses[0] == Miss(0, ("a circle",), ("Red.",), "what is it? (0.90)")
    assert len(misses.misses) == 9


def test_without_a_question_or_an_answer_to_each_there_is_no_figure(data: DataSet) -> None:
    with pytest.raises(ValueError, match="there are no questions to ask"):
        ask(colour_at_the_middle, data, [])
    with pytest.raises(ValueError, match="need a list of right answers an answer, got 2 for 1"):
        ask(lambda images, questions: [Answer("red", 1.0, 1.0)], data, [Asked(0, "what?", ("red",))] * 2)


def test_questions_about_attributes_are_asked_of_each_picture_and_half_of_those_for_yes_are_true(
    data: DataSet,
) -> None:
    asked = questions_about(data, rounds=40)

    assert {q.kind for q in asked} == {"colour", "yes_no_colour"}
    for q in asked:
        if not q.kind.startswith("yes_no"):
            assert q.answers == (str(data.items[q.image].attributes[q.kind]).lower(),)
    whether = [q.answers == ("yes",) for q in asked if q.kind.startswith("yes_no")]
    assert np.mean(whether) == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ValueError, match="has no questions in 'tlh'; it has en, zh"):
        questions_about(data, language="tlh")


# What pictures are drawn from


def test_retrieval_keeps_the_curve_both_ways_and_the_queries_that_were_lost(
    encoder: Encoder, data: DataSet
) -> None:
    titles = [item.title for item in data.items]
    items = [replace(i, title=t) for i, t in zip(data.items, [*titles[1:], titles[0]], strict=True)]

    curve, to_image, to_text = retrieval(encoder, DataSet(items, data.images)).pictures

    assert isinstance(curve, RecallCurve)
    assert {way: (len(shares), shares[0], shares[-1]) for way, shares in curve.ways.items()} == {
        "text to image": (16, 0.0, 1.0),
        "image to text": (16, 0.0, 1.0),
    }
    assert isinstance(to_image, Misses)
    assert isinstance(to_text, Misses)
    for miss in to_image.misses:
        assert isinstance(miss.asked, str)
        assert [items[i].title for i in miss.right if isinstance(i, int)] == [miss.asked]
        assert [titles[i] for i in miss.came[:1] if isinstance(i, int)] == [miss.asked]
    for miss in to_text.misses:
        assert isinstance(miss.asked, int)
        assert (miss.right, miss.came[0]) == ((items[miss.asked].title,), titles[miss.asked])


def test_nothing_was_missed_by_a_model_that_finds_all(encoder: Encoder, data: DataSet) -> None:
    _, *sheets = retrieval(encoder, data).pictures

    assert sheets == [Misses("text-to-image", []), Misses("image-to-text", [])]


def test_classification_keeps_who_was_taken_for_whom_and_how_surely(encoder: Encoder, data: DataSet) -> None:
    result = classify(encoder, data, "shape", {}, at_least=4)

    confusion, reliability, misses = result.pictures
    assert isinstance(confusion, Confusion)
    assert isinstance(reliability, Reliability)
    assert isinstance(misses, Misses)
    assert confusion.labels == list(result.per_class) == ["circle", "cross", "square", "triangle"]
    assert confusion.counts.sum(axis=1).tolist() == [4, 4, 4, 4]
    assert confusion.counts.trace() == round(16 * result.metrics["acc1"])
    assert reliability.bins.count.sum() == 16
    assert reliability.bins.right.sum() == confusion.counts.trace()
    assert [of.recall for of in result.per_class.values()] == (confusion.counts.diagonal() / 4).tolist()
    assert len(misses.misses) == min(12, 16 - confusion.counts.trace())
    for miss in misses.misses:
        assert isinstance(miss.asked, int)
        assert miss.right == (data.items[miss.asked].attributes["shape"],) != miss.came
