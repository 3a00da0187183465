import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from tests.drawn import COLOURS, draw
from tests.hostile import (
    HOSTILE,
    NAMES,
    Hostile,
    claiming,
    exif,
    palette_with_transparency,
    saved,
    two_frames,
)
from textmm.config import ImageConfig
from textmm.transforms import (
    MAX_PIXELS,
    ImageTooLarge,
    ImageUnreadable,
    augment,
    decode_image,
    fit,
    media_type,
    thumbnail_jpeg,
    to_tensor,
)

CONFIG = ImageConfig(image_size=32)
RED = COLOURS["red"]
ERRORS = {"unreadable": ImageUnreadable, "too_large": ImageTooLarge}
RGB = tuple[int, int, int]


def middle(image: Image.Image) -> RGB:
    red, green, blue = np.asarray(image)[image.height // 2, image.width // 2].tolist()
    return red, green, blue


def near(one: RGB, other: RGB, within: int) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= within


# Decoding


@pytest.mark.parametrize("hostile", [h for h in HOSTILE if h.outcome == "readable"], ids=lambda h: h.name)
def test_an_odd_picture_is_read_as_rgb(hostile: Hostile) -> None:
    image = decode_image(hostile.data)

    assert image.mode == "RGB"
    assert min(image.size) >= 1


@pytest.mark.parametrize("hostile", [h for h in HOSTILE if h.outcome != "readable"], ids=lambda h: h.name)
def test_what_is_no_picture_is_refused_with_a_reason(hostile: Hostile) -> None:
    with pytest.raises(ERRORS[hostile.outcome], match="a picture"):
        decode_image(hostile.data)


def test_the_table_has_a_name_for_each_and_no_name_twice() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {h.outcome for h in HOSTILE} == {"readable", "unreadable", "too_large"}


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO"])
def test_changed_bytes_give_a_picture_or_an_error_of_ours(name: str) -> None:
    rng = np.random.default_rng(len(name))
    good = saved(Image.fromarray(rng.integers(0, 256, (24, 30, 3), np.uint8)), name)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(300):
        bad = bytearray(good)
        for at in rng.integers(0, min(len(bad), 400), 4):
            bad[at] = rng.integers(256)
        try:
            decode_image(bytes(bad), max_pixels=1_000_000)
            outcomes["read"] += 1
        except (ImageUnreadable, ImageTooLarge):
            outcomes["refused"] += 1

    assert sum(outcomes.values()) == 300
    assert outcomes["refused"] > 0


def test_the_limit_is_on_pixels_and_named_before_any_is_decoded() -> None:
    picture = saved(Image.new("RGB", (20, 10)), "PNG")

    assert decode_image(picture, max_pixels=200).size == (20, 10)
    with pytest.raises(ImageTooLarge, match="20 x 10 pixels is over the limit of 199 pixels"):
        decode_image(picture, max_pixels=199)
    with pytest.raises(ImageTooLarge, match=f"9000 x 8000 pixels is over the limit of {MAX_PIXELS} pixels"):
        decode_image(claiming(9000, 8000))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a picture we can read: it is empty"),
        (b"words", "not a picture we can read: none of JPEG, PNG"),
        (saved(draw("circle", "red"), "JPEG")[:-200], "not a picture we can read: truncated JPEG"),
        (saved(draw("circle", "red"), "PNG")[:120], "not a picture we can read: truncated PNG"),
    ],
)
def test_the_reason_says_what_is_wrong(data: bytes, reason: str) -> None:
    with pytest.raises(ImageUnreadable, match=reason):
        decode_image(data)


# Colours


@pytest.mark.parametrize(
    "name",
    ["CMYK JPEG", "RGB with alpha", "WebP", "BMP", "TIFF", "progressive JPEG", "JPEG with broken EXIF"],
)
def test_a_red_picture_stays_red_in_every_format(name: str) -> None:
    data = next(h.data for h in HOSTILE if h.name == name)

    assert near(middle(decode_image(data)), RED, within=12)


def test_16_bit_grey_is_scaled_and_not_cut_off() -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)

    image = decode_image(saved(Image.fromarray(values), "PNG"))

    assert np.asarray(image)[0].tolist() == [[v, v, v] for v in (0, 1, 128, 255)]


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 128))
    clear.putpixel((2, 0), (255, 0, 0, 255))
    grey = Image.new("LA", (1, 1), (0, 128))
    palette = saved(palette_with_transparency(), "PNG", transparency=1)

    assert np.asarray(decode_image(saved(clear, "PNG")))[0].tolist() == [
        [255, 255, 255],
        [255, 127, 127],
        [255, 0, 0],
    ]
    assert np.asarray(decode_image(saved(grey, "PNG")))[0].tolist() == [[127, 127, 127]]
    assert np.asarray(decode_image(palette))[0, [0, 19]].tolist() == [[255, 255, 255], [255, 0, 0]]


def test_an_animation_counts_as_its_first_frame() -> None:
    assert middle(decode_image(two_frames())) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_turned_by_exif_stands_upright(orientation: int) -> None:
    upright = Image.new("RGB", (40, 24), "white")
    upright.paste("red", (0, 0, 20, 12))  # red above left
    as_stored = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for how in as_stored[orientation]:
        stored = stored.transpose(how)

    image = decode_image(saved(stored, "PNG", exif=exif(orientation)))

    assert image.size == (40, 24)
    assert image.tobytes() == upright.tobytes()


# What a tower sees


def test_squash_shows_the_whole_picture_and_shortest_its_middle() -> None:
    wide = Image.new("RGB", (90, 30), "white")
    wide.paste("red", (30, 0, 60, 30))

    squashed = np.asarray(fit(wide, ImageConfig(image_size=30, resize_mode="squash")))
    middle_only = np.asarray(fit(wide, ImageConfig(image_size=30, resize_mode="shortest")))

    assert squashed.shape == middle_only.shape == (30, 30, 3)
    assert squashed[15, [2, 15, 27]].tolist() == [[255, 255, 255], [255, 0, 0], [255, 255, 255]]
    assert (middle_only == [255, 0, 0]).all()


def test_a_picture_of_the_right_size_is_itself() -> None:
    image = draw("cross", "blue", side=32)

    assert fit(image, CONFIG) is image


def test_a_tensor_holds_the_pixels_less_mean_over_deviation_channel_by_channel() -> None:
    images = [draw("circle", "red", side=32), draw("cross", "blue", side=32)]

    x = to_tensor(images, CONFIG)

    assert x.shape == (2, 3, 32, 32)
    assert x.dtype == torch.float32
    for row, image in zip(x, images, strict=True):
        for channel, (mean, std) in enumerate(zip(CONFIG.mean, CONFIG.std, strict=True)):
            expected = (np.asarray(image, np.float64)[..., channel] / 255 - mean) / std
            np.testing.assert_allclose(row[channel].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("colour", COLOURS)
def test_augmenting_never_changes_a_colour(colour: str) -> None:
    image = Image.new("RGB", (50, 70), COLOURS[colour])

    views = [augment(image, CONFIG, np.random.default_rng(seed)) for seed in range(20)]

    assert {view.size for view in views} == {(32, 32)}
    assert all((np.asarray(view) == COLOURS[colour]).all() for view in views)


def test_augmenting_crops_60_to_100_percent_and_mirrors_half_of_the_time() -> None:
    ramp = np.zeros((300, 400, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.linspace(0, 255, 400), np.linspace(0, 255, 300)[:, None]
    image = Image.fromarray(ramp)
    config = ImageConfig(image_size=64)
    areas, mirrored = [], []
    for seed in range(300):
        view = np.asarray(augment(image, config, np.random.default_rng(seed)), np.float64)
        across, down = view[32, -1, 0] - view[32, 0, 0], view[-1, 32, 1] - view[0, 32, 1]
        areas.append(abs(across) / 255 * down / 255 * (64 / 63) ** 2)
        mirrored.append(across < 0)

    assert min(areas) == pytest.approx(0.6, abs=0.06)
    assert 0.85 < max(areas) <= 1.03
    assert np.mean(mirrored) == pytest.approx(0.5, abs=0.1)


def test_the_same_generator_gives_the_same_view() -> None:
    image = draw("triangle", "green")

    one, again, other = (augment(image, CONFIG, np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert one.tobytes() == again.tobytes() != other.tobytes()


def test_a_thumbnail_is_a_jpeg_that_fits_its_square_and_keeps_the_shape() -> None:
    image = Image.new("RGB", (640, 200), RED)

    small = Image.open(io.BytesIO(thumbnail_jpeg(image, 160)))

    assert (small.format, small.size) == ("JPEG", (160, 50))
    assert near(middle(small), RED, within=4)
    assert image.size == (640, 200)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(draw("circle", "red"), "JPEG"), "image/jpeg"),
        (saved(draw("circle", "red"), "PNG"), "image/png"),
        (saved(draw("circle", "red"), "WEBP"), "image/webp"),
        (two_frames(), "image/gif"),
        (saved(draw("circle", "red"), "BMP"), "image/bmp"),
        (saved(draw("circle", "red"), "TIFF"), "image/tiff"),
        (b"<html>", "application/octet-stream"),
        (b"", "application/octet-stream"),
        (claiming(60_000, 60_000), "application/octet-stream"),
    ],
)
def test_the_media_type_is_that_of_the_bytes(data: bytes, expected: str) -> None:
    assert media_type(data) == expected


def test_a_pixel_more_than_the_limit_of_a_square_is_too_many() -> None:
    side = math.isqrt(MAX_PIXELS)

    with pytest.raises(ImageTooLarge, match="over the limit"):
        decode_image(claiming(side, side + 1))
