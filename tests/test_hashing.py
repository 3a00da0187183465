import io
from collections.abc import Iterator

import numpy as np
import pdqhash
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from indexer.hashing import (
    LARGEST_HASHED_SIDE,
    MIN_QUALITY,
    NEAR_COPY_LIMIT,
    hamming_distances,
    perceptual_hash,
    sha256,
)

ODD_SIZES = [(1, 1), (4, 300), (5, 5), (6, 5), (63, 65), (64, 64), (65, 64), (127, 128), (129, 257), (700, 7)]


def test_identical_bytes_have_one_sha256_and_changed_ones_another() -> None:
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert sha256(bytes([1, 2, 3])) == sha256(bytes([1, 2, 3]))
    assert sha256(b"abc") != sha256(b"abd")


@pytest.mark.parametrize("kind", ["noise", "shapes", "gradient", "clouds"])
def test_perceptual_hash_is_that_of_pdqhash_on_pictures_of_any_size(kind: str) -> None:
    rng = np.random.default_rng(7)
    sizes = [*ODD_SIZES, *map(tuple, rng.integers(5, 320, (90, 2)).tolist())]
    pictures = [draw(kind, size, rng) for size in sizes]

    assert [perceptual_hash(picture) for picture in pictures] == [by_pdqhash(picture) for picture in pictures]


def test_perceptual_hash_is_that_of_pdqhash_at_the_largest_size_that_is_not_shrunk() -> None:
    picture = draw("shapes", (LARGEST_HASHED_SIDE, 601), np.random.default_rng(8))

    assert perceptual_hash(picture) == by_pdqhash(picture)


def test_hex_form_is_that_of_threatexchange() -> None:
    picture = draw("shapes", (224, 224), np.random.default_rng(9))
    bits, _ = pdqhash.compute(np.asarray(picture))

    assert perceptual_hash(picture)[0].hex() == f"{int(''.join(map(str, bits)), 2):064x}"


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_a_picture_of_another_mode_hashes_as_its_rgb_pixels(mode: str) -> None:
    picture = draw("shapes", (120, 90), np.random.default_rng(10)).convert("L").convert(mode)

    assert perceptual_hash(picture) == by_pdqhash(picture.convert("RGB"))


@pytest.mark.parametrize("size", [(1500, 1100), (4000, 3000), (5000, 300), (200, 2500)])
def test_shrinking_a_huge_picture_first_keeps_it_well_within_a_near_copy_of_its_own_hash(
    size: tuple[int, int],
) -> None:
    picture = draw("shapes", size, np.random.default_rng(11))

    assert distance(perceptual_hash(picture)[0], by_pdqhash(picture)[0]) <= NEAR_COPY_LIMIT // 2


def test_a_copy_of_a_huge_picture_at_a_third_of_its_size_is_a_near_copy() -> None:
    picture = draw("shapes", (2400, 1800), np.random.default_rng(12))
    copy = picture.resize((800, 600))

    assert distance(perceptual_hash(picture)[0], perceptual_hash(copy)[0]) <= NEAR_COPY_LIMIT


def test_a_picture_saved_again_as_jpeg_is_a_near_copy(collection: list[Image.Image]) -> None:
    copies = [saved_as_jpeg(picture, quality=60) for picture in collection]

    assert max(distances_between(collection, copies)) <= NEAR_COPY_LIMIT


def test_a_picture_at_70_percent_of_its_size_is_a_near_copy(collection: list[Image.Image]) -> None:
    copies = [picture.resize((picture.width * 7 // 10, picture.height * 7 // 10)) for picture in collection]

    assert max(distances_between(collection, copies)) <= NEAR_COPY_LIMIT


def test_a_different_picture_is_far(collection: list[Image.Image]) -> None:
    others = [*collection[1:], collection[0]]

    assert min(distances_between(collection, others)) > 2 * NEAR_COPY_LIMIT


def test_a_flat_picture_is_below_the_quality_that_counts_and_a_detailed_one_is_not(
    collection: list[Image.Image],
) -> None:
    assert perceptual_hash(Image.new("RGB", (200, 100), "teal"))[1] == 0
    assert min(perceptual_hash(picture)[1] for picture in collection) >= MIN_QUALITY


def test_a_picture_too_small_to_hash_gives_zeros_of_quality_0() -> None:
    assert perceptual_hash(draw("noise", (4, 400), np.random.default_rng(13))) == (bytes(32), 0)


def test_hamming_distances_are_the_counts_of_differing_bits() -> None:
    rng = np.random.default_rng(14)
    hashes = rng.integers(0, 256, (50, 32), np.uint8)
    wanted = hashes[3].tobytes()

    assert hamming_distances(wanted, hashes).tolist() == [distance(wanted, row.tobytes()) for row in hashes]


def test_hamming_distances_of_columns_cut_out_of_a_wider_table_are_right() -> None:
    table = np.random.default_rng(15).integers(0, 256, (9, 40), np.uint8)
    hashes = table[::2, 4:36]

    assert hamming_distances(bytes(32), hashes).tolist() == [
        distance(bytes(32), row.tobytes()) for row in hashes
    ]


def test_hamming_distances_to_no_hashes_are_none() -> None:
    assert hamming_distances(bytes(32), np.empty((0, 32), np.uint8)).shape == (0,)


@pytest.mark.parametrize(
    ("wanted", "hashes", "message"),
    [
        (bytes(31), np.zeros((2, 32), np.uint8), "has 32 bytes, got 31"),
        (bytes(32), np.zeros((2, 31), np.uint8), r"got uint8 \[2, 31\]"),
        (bytes(32), np.zeros(32, np.uint8), r"got uint8 \[32\]"),
        (bytes(32), np.zeros((2, 32), np.int64), r"got int64 \[2, 32\]"),
    ],
)
def test_hamming_distances_refuse_what_is_no_hash(
    wanted: bytes, hashes: NDArray[np.uint8], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        hamming_distances(wanted, hashes)


@pytest.fixture(scope="module")
def collection() -> list[Image.Image]:
    rng = np.random.default_rng(16)
    return [
        draw("shapes", (width, height), rng) for width, height in rng.integers(200, 500, (40, 2)).tolist()
    ]


def by_pdqhash(picture: Image.Image) -> tuple[bytes, int]:
    bits, quality = pdqhash.compute(np.asarray(picture))
    return np.packbits(bits).tobytes(), quality


def distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def distances_between(ones: list[Image.Image], others: list[Image.Image]) -> Iterator[int]:
    for one, other in zip(ones, others, strict=True):
        yield distance(perceptual_hash(one)[0], perceptual_hash(other)[0])


def saved_as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


def draw(kind: str, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    width, height = size
    noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    if kind == "noise":
        return noise
    if kind == "clouds":
        return noise.filter(ImageFilter.GaussianBlur(5))
    if kind == "gradient":
        return Image.linear_gradient("L").rotate(int(rng.integers(360))).resize(size).convert("RGB")
    picture = Image.new("RGB", size, colour(rng))
    pen = ImageDraw.Draw(picture)
    for _ in range(15):
        left, right = sorted(rng.integers(0, width, 2).tolist())
        top, bottom = sorted(rng.integers(0, height, 2).tolist())
        pen.ellipse((left, top, right, bottom), fill=colour(rng))
        pen.rectangle((top % width, left % height, width, height), outline=colour(rng), width=1 + width // 30)
    return picture


def colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue
