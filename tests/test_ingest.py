import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.config import IngestConfig
from indexer.database import Database
from indexer.errors import Conflict
from indexer.files import Blobs
from indexer.hashing import perceptual_hash, sha256
from indexer.ingest import Ingest
from indexer.report import Failure, IngestReport
from indexer.store.collections import Collection, Collections
from indexer.store.images import Images
from tests.drawn import COLOURS, SHAPES, draw, write_pictures
from tests.full_disk import small_disk
from tests.rows import LIMITS, assert_sound, from_source
from textmm.encoder import Encoder
from textmm.sources import Item, SourceError, read_source
from textmm.transforms import ImageTooLarge, ImageUnreadable

ROOT = Path(__file__).parent.parent
NAMES = [f"{colour}-{shape}.png" for shape in SHAPES for colour in COLOURS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The drawn pictures, to change at will."""
    return write_pictures(tmp_path / "pictures").parent


@pytest.fixture
def shop(database: Database) -> Collection:
    return Collections(database).create("shop", is_bank=False, limits=LIMITS)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


@pytest.fixture
def ingest(database: Database, encoder: Encoder, blobs: Blobs) -> Ingest:
    return Ingest(database, encoder, blobs, IngestConfig(batch_size=5))


def run(ingest: Ingest, items: Iterable[Item] | Path, into: Collection) -> IngestReport:
    total = IngestReport()
    found = read_source(str(items)) if isinstance(items, Path) else items
    for report in ingest.run(found, into, source="test"):
        total.add(report)
    return total


def counts(report: IngestReport) -> tuple[int, int, int]:
    return report.added, report.updated, report.unchanged


# -- what goes in ----------------------------------------------------------------------------------------


def test_everything_of_a_source_goes_in_with_its_words(
    ingest: Ingest, database: Database, shop: Collection, folder: Path
) -> None:
    report = run(ingest, folder / "captions.csv", shop)

    assert (counts(report), report.failed) == ((16, 0, 0), [])
    found = Images(database).page(shop.collection_id)
    assert sorted(i.key for i in found) == sorted(NAMES)
    circle = Images(database).get(shop.collection_id, "red-circle.png")
    assert (circle.title, circle.texts) == ("a red circle", ("a red circle",))
    assert dict(circle.attributes) == {"colour": "red", "shape": "circle", "number": 0}
    assert (circle.width, circle.height, circle.source) == (64, 64, "test")
    assert circle.locator == str(folder / "red-circle.png")
    assert circle.sha256 == sha256((folder / "red-circle.png").read_bytes())
    assert_sound(database)


def test_each_picture_has_the_vector_that_the_encoder_gives_it_alone(
    ingest: Ingest, database: Database, shop: Collection, folder: Path, encoder: Encoder
) -> None:
    run(ingest, folder / "captions.csv", shop)

    generation = Collections(database).get("shop").generation
    assert generation is not None
    for name in NAMES:
        with Image.open(folder / name) as picture:
            alone = encoder.encode_images([picture.convert("RGB")])[0]
        record = Images(database).get(shop.collection_id, name)
        stored = Images(database).vector(record.image_id, generation.generation_id)
        assert stored is not None
        np.testing.assert_allclose(stored, alone, atol=1e-3)  # float16


def test_reports_come_a_batch_and_say_where_the_time_went(
    ingest: Ingest, shop: Collection, folder: Path
) -> None:
    reports = list(ingest.run(read_source(str(folder)), shop, source="test"))

    assert [report.added for report in reports] == [5, 5, 5, 1]
    assert all(set(report.stages_s) == {"read", "decode", "encode", "write"} for report in reports)


def test_an_empty_source_is_no_report(ingest: Ingest, shop: Collection) -> None:
    assert list(ingest.run([], shop, source="test")) == []


def test_a_second_run_changes_nothing(
    ingest: Ingest, database: Database, shop: Collection, folder: Path
) -> None:
    run(ingest, folder / "captions.csv", shop)
    seq = Collections(database).get("shop").change_seq

    report = run(ingest, folder / "captions.csv", shop)

    assert counts(report) == (0, 0, 16)
    assert Collections(database).get("shop").change_seq == seq


def test_a_changed_file_replaces_the_picture(
    ingest: Ingest, database: Database, shop: Collection, folder: Path
) -> None:
    run(ingest, folder / "captions.csv", shop)
    before = Images(database).get(shop.collection_id, "red-circle.png")
    draw("cross", "blue", side=80).save(folder / "red-circle.png")

    report = run(ingest, folder / "captions.csv", shop)

    assert counts(report) == (0, 1, 15)
    after = Images(database).get(shop.collection_id, "red-circle.png")
    assert (after.image_id, after.width) == (before.image_id, 80)
    assert after.sha256 == sha256((folder / "red-circle.png").read_bytes()) != before.sha256
    assert_sound(database)


@pytest.mark.parametrize(
    ("old", "new"), [("a red circle,red", "one red circle,red"), ("a red circle,red", "a red circle,crimson")]
)
def test_changed_words_replace_the_picture(
    ingest: Ingest, database: Database, shop: Collection, folder: Path, old: str, new: str
) -> None:
    run(ingest, folder / "captions.csv", shop)
    table = folder / "captions.csv"
    table.write_text(table.read_text().replace(old, new))

    report = run(ingest, table, shop)

    assert counts(report) == (0, 1, 15)
    circle = Images(database).get(shop.collection_id, "red-circle.png")
    assert f"{circle.title},{circle.attributes['colour']}" == new
    assert_sound(database)


def test_a_picture_that_another_source_names_belongs_to_that_one(
    ingest: Ingest, database: Database, shop: Collection, folder: Path
) -> None:
    run(ingest, folder, shop)
    circle = Item("red-circle.png", str(folder / "red-circle.png"))

    (report,) = ingest.run([circle], shop, source="other")

    assert counts(report) == (0, 1, 0)
    assert from_source(Images(database), shop, "other") == {"red-circle.png"}
    assert from_source(Images(database), shop, "test") == set(NAMES) - {"red-circle.png"}


def test_words_that_many_pictures_share_belong_to_each(
    ingest: Ingest, database: Database, shop: Collection, folder: Path
) -> None:
    items = [Item(n, str(folder / n), "a thing", ("a thing", f"called {n}", "drawn")) for n in NAMES]

    run(ingest, items, shop)

    found = Images(database).find(shop.collection_id, NAMES)
    assert {n: r.texts for n, r in found.items()} == {n: ("a thing", f"called {n}", "drawn") for n in NAMES}
    assert_sound(database)


# -- what does not ---------------------------------------------------------------------------------------


def test_broken_files_are_reported_by_name_and_reason_and_the_rest_is_in(
    ingest: Ingest, database: Database, shop: Collection, folder: Path
) -> None:
    os.truncate(folder / "red-circle.png", 100)
    (folder / "blue-cross.png").write_bytes(b"")
    (folder / "green-cross.png").write_text("no picture")
    (folder / "blue-circle.png").unlink()
    (folder / "blue-circle.png").symlink_to("nowhere.png")
    (folder / "red-cross.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    Image.new("1", (9_000, 9_000)).save(folder / "yellow-cross.png")

    report = run(ingest, folder, shop)

    unreadable = "not a picture we can read: "
    reasons = {failure.key: failure.reason for failure in report.failed}
    assert reasons.pop("green-cross.png").startswith(unreadable + "none of JPEG, PNG, ")
    assert reasons == {
        "blue-circle.png": "cannot be read: No such file or directory",
        "blue-cross.png": unreadable + "it is empty",
        "caf\\xe9.png": "the file's name is not UTF-8: rename it",
        "red-circle.png": unreadable + "truncated PNG",
        "yellow-cross.png": "a picture of 9000 x 9000 pixels is over the limit of 64000000 pixels",
    }
    assert report.added == len(Images(database).page(shop.collection_id)) == 10
    assert_sound(database)


def test_pictures_of_every_odd_kind_go_in(
    ingest: Ingest, database: Database, shop: Collection, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    picture = draw("circle", "red")
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        picture.convert("L" if mode == "I;16" else "RGB").convert(mode).save(
            odd / f"{mode.replace(';', '')}.png"
        )
    picture.convert("CMYK").save(odd / "cmyk.jpg")
    picture.save(odd / "animated.gif", save_all=True, append_images=[draw("cross", "blue")])
    picture.resize((1, 1)).save(odd / "one.png")
    picture.resize((2000, 1)).save(odd / "line.png")
    picture.save(odd / "really-a-png.jpg", "PNG")

    report = run(ingest, odd, shop)

    assert (report.added, report.failed) == (11, [])
    assert_sound(database)


def test_a_key_that_occurs_twice_is_reported_and_its_first_picture_stays(
    ingest: Ingest, database: Database, shop: Collection, folder: Path
) -> None:
    first, second = folder / "red-circle.png", folder / "blue-cross.png"
    others = [Item(n, str(folder / n)) for n in NAMES[1:7]]  # so that they come in different batches

    report = run(ingest, [Item("a", str(first)), *others, Item("a", str(second))], shop)

    assert report.failed == [Failure("a", "the key occurs twice in this source")]
    assert Images(database).get(shop.collection_id, "a").locator == str(first)


def test_what_is_no_key_is_reported_with_the_reason(ingest: Ingest, shop: Collection, folder: Path) -> None:
    where = str(folder / "red-circle.png")

    report = run(ingest, [Item(k, where) for k in ("", "a//b", "a\nb", "fine", "k" * 513)], shop)

    assert [f.key for f in report.failed] == ["", "a//b", "a\nb", "k" * 513]
    assert [f.reason for f in report.failed][:2] == [
        "a key has 1 to 512 characters, this one 0",
        "key 'a//b' has an empty, '.' or '..' part between slashes",
    ]
    assert report.added == 1


@pytest.mark.parametrize(
    ("words", "bad"),
    [
        ({"title": "half \ud83d of one"}, r"'\ud83d'"),
        ({"title": "a\0b"}, r"'\x00'"),
        ({"captions": ["fine", "\udcff"]}, r"'\udcff'"),
        ({"colour": "\ud800"}, r"'\ud800'"),
        ({"tags": ["a", "\0"]}, r"'\x00'"),
        ({"col\0our": 3}, r"'\x00'"),
        ({"path": "red-circle\udcff.png", "key": "red-circle.png"}, r"'\udcff'"),
    ],
)
def test_words_that_no_database_could_keep_are_reported_and_the_rest_is_in(
    ingest: Ingest, shop: Collection, folder: Path, words: dict[str, object], bad: str
) -> None:
    manifest = folder / "all.jsonl"
    rows = [{"path": "red-circle.png", **words}, {"path": "blue-cross.png", "title": "é 😀\n\t\u200d"}]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))

    report = run(ingest, manifest, shop)

    reason = f"its words or its path hold {bad}, which is no character of text"
    assert report.failed == [Failure("red-circle.png", reason)]
    assert report.added == 1


def test_a_collection_of_another_model_is_a_conflict_before_anything_is_read(
    ingest: Ingest, database: Database, shop: Collection, folder: Path
) -> None:
    Collections(database).ensure_generation(
        shop.collection_id, model_id="another", embed_dim=8, preprocessing="squash-32"
    )

    with pytest.raises(Conflict, match="holds vectors of another, this process runs"):
        run(ingest, folder, shop)
    with pytest.raises(Conflict, match="holds vectors of another, this process runs"):
        ingest.put(Item("a", ""), (folder / "red-circle.png").read_bytes(), shop)
    assert Images(database).page(shop.collection_id) == []


def test_a_source_that_breaks_off_raises_and_whole_batches_stay(
    ingest: Ingest, database: Database, shop: Collection, folder: Path
) -> None:
    def items() -> Iterator[Item]:
        yield from (Item(f"{i}", str(folder / NAMES[i % 16])) for i in range(60))
        raise SourceError("the rest cannot be read")

    with pytest.raises(SourceError, match="the rest cannot be read"):
        run(ingest, items(), shop)

    assert len(Images(database).page(shop.collection_id)) % 5 == 0
    assert_sound(database)


def test_a_run_that_is_given_up_leaves_whole_batches(
    ingest: Ingest, database: Database, shop: Collection, folder: Path
) -> None:
    reports = ingest.run((Item(f"{i}", str(folder / NAMES[i % 16])) for i in range(100)), shop, source="test")

    first = next(reports)
    reports.close()  # type: ignore[attr-defined]

    there = len(Images(database).page(shop.collection_id))
    assert first.added == 5 and 5 <= there < 100 and there % 5 == 0
    assert_sound(database)


# -- banks, thumbnails, single pictures ------------------------------------------------------------------


def test_pictures_of_a_bank_are_hashed_unless_they_are_too_flat(
    ingest: Ingest, database: Database, folder: Path
) -> None:
    bank = Collections(database).create("bank", is_bank=True, limits=LIMITS)
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8))
    noise.save(folder / "noise.png")
    Image.new("RGB", (90, 120), "teal").save(folder / "flat.png")

    run(ingest, [Item(n, str(folder / n)) for n in ("noise.png", "flat.png")], bank)

    keys, hashes = Images(database).perceptual_hashes(bank.collection_id)
    assert keys == ["noise.png"]
    assert hashes.tobytes() == perceptual_hash(noise)[0]


def test_pictures_of_a_plain_collection_are_not_hashed(
    ingest: Ingest, database: Database, shop: Collection, folder: Path
) -> None:
    run(ingest, folder, shop)

    assert Images(database).perceptual_hashes(shop.collection_id)[0] == []


def test_only_a_picture_larger_than_a_thumbnail_has_one(
    ingest: Ingest, database: Database, shop: Collection, blobs: Blobs, folder: Path
) -> None:
    for name, size in {"small": (320, 320), "wide": (960, 480), "tall": (100, 321)}.items():
        draw("circle", "red").resize(size).save(folder / f"{name}.png")

    run(ingest, [Item(n, str(folder / f"{n}.png")) for n in ("small", "wide", "tall")], shop)

    found = Images(database).find(shop.collection_id, ["small", "wide", "tall"])
    assert found["small"].thumbnail_sha256 is None
    sizes = {}
    for name in ("wide", "tall"):
        digest = found[name].thumbnail_sha256
        assert digest is not None
        with Image.open(io.BytesIO(blobs.get(digest))) as thumbnail:
            sizes[name] = (thumbnail.format, *thumbnail.size)
    assert sizes == {"wide": ("JPEG", 320, 160), "tall": ("JPEG", 100, 320)}
    assert blobs.sweep(Images(database).blobs_in_use(), grace_s=-60.0) == 0


def test_one_picture_that_is_put_is_there_with_its_bytes_and_a_second_put_replaces_it(
    ingest: Ingest, database: Database, shop: Collection, blobs: Blobs, folder: Path
) -> None:
    red, blue = ((folder / f"{colour}-circle.png").read_bytes() for colour in ("red", "blue"))

    first, first_new = ingest.put(Item("a/b", "", "a red circle", ("round",), {"n": 1}), red, shop)
    second, second_new = ingest.put(Item("a/b", "", None, ("blue",), {"n": 2}), blue, shop)

    assert (first_new, second_new) == (True, False)
    assert (first.key, first.texts, dict(first.attributes)) == ("a/b", ("a red circle", "round"), {"n": 1})
    assert (first.locator, first.source, blobs.get(str(first.sha256))) == (None, None, red)
    assert second == Images(database).get(shop.collection_id, "a/b")
    assert (second.image_id, second.texts, blobs.get(str(second.sha256))) == (first.image_id, ("blue",), blue)
    assert_sound(database)


def test_a_picture_that_was_indexed_from_a_file_and_is_put_has_its_own_bytes(
    ingest: Ingest, database: Database, shop: Collection, blobs: Blobs, folder: Path
) -> None:
    run(ingest, folder, shop)
    data = (folder / "blue-cross.png").read_bytes()

    record, new = ingest.put(Item("red-circle.png", ""), data, shop)

    assert (new, record.locator, record.source, blobs.get(str(record.sha256))) == (False, None, None, data)


def test_what_cannot_be_put_is_refused_and_nothing_is_there(
    ingest: Ingest, database: Database, shop: Collection, folder: Path
) -> None:
    data = (folder / "red-circle.png").read_bytes()

    with pytest.raises(ImageUnreadable, match="truncated PNG"):
        ingest.put(Item("a", ""), data[:100], shop)
    with pytest.raises(ImageTooLarge, match="64 x 64 pixels is over the limit of 1000 pixels"):
        ingest.put(Item("a", ""), data, shop, max_pixels=1000)
    with pytest.raises(ValueError, match=r"empty, '\.' or '\.\.' part"):
        ingest.put(Item("../a", ""), data, shop)
    with pytest.raises(ValueError, match="its words or its path hold"):
        ingest.put(Item("a", "", "\0"), data, shop)

    assert Images(database).page(shop.collection_id) == []


def test_a_full_disk_ends_a_run_with_its_error_and_the_next_run_goes_on(
    database: Database, shop: Collection, encoder: Encoder, tmp_path: Path
) -> None:
    """Thumbnails of noise, which fill the disk of the blobs."""
    noise = np.random.default_rng(1).integers(0, 256, (20, 400, 400, 3), np.uint8)
    items = []
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        items.append(Item(f"{i}", str(tmp_path / f"{i}.png")))
    with small_disk(tmp_path / "disk", 30_000):
        ingest = Ingest(database, encoder, Blobs(tmp_path / "disk"), IngestConfig(batch_size=5))
        with pytest.raises(OSError, match=r"No space left|File too large"):
            run(ingest, items, shop)
    assert_sound(database)

    ingest = Ingest(database, encoder, Blobs(tmp_path / "disk"), IngestConfig(batch_size=5))
    report = run(ingest, items, shop)

    assert report.added + report.unchanged == 20
    assert_sound(database)
