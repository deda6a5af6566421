"""Photos of every kind: what is read of them, and what is said of those that cannot be."""

import contextlib
import io
import os
import random
import struct
import sys
import threading

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from predict.background import Blur, Colour, Picture, compose, parse_background
from predict.config import PredictError
from predict.photo import LONGEST_SIDE, check_sides, count_pixels, decode_photo, encode
from preprocess.errors import ImageError
from preprocess.image import (
    MOST_BYTES,
    MOST_SCANS,
    decode_rgb,
    image_formats,
    quiet_pillow,
    read_head,
    read_rgb,
    turn_upright,
)


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_pillow():
        yield


def scene(height=60, width=84):
    rng = np.random.default_rng(7)
    return cv2.resize(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def on_white(rgb, alpha):
    return np.rint((rgb * (alpha / 255.0)[..., None]) + 255 * (1 - alpha / 255.0)[..., None])


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [
        *(("JPEG", mode) for mode in ("RGB", "L", "1", "CMYK", "YCbCr")),
        *(("WEBP", mode) for mode in ("RGB", "L", "P")),
        *((file_format, mode) for file_format in ("PNG", "BMP", "TIFF") for mode in ("RGB", "L", "P", "1")),
        *(("TIFF", mode) for mode in ("CMYK", "YCbCr")),
    ],
)
def test_opaque_photos_are_what_pillow_makes_of_them(file_format, mode):
    image = Image.fromarray(scene()).convert(mode)
    data = encoded(image, file_format)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    found = decode_photo(data).pixels
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)
    if mode == "RGB":
        assert np.abs(found.astype(int) - scene()).mean() < 8


@pytest.mark.parametrize(
    ("file_format", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})]
)
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_lies_on_white(file_format, options, mode):
    alpha = np.linspace(0, 255, 60 * 84).reshape(60, 84).astype(np.uint8)
    image = Image.fromarray(scene()).convert(mode[:-1])
    rgb = np.asarray(image.convert("RGB")).astype(float)
    image.putalpha(Image.fromarray(alpha))
    found = decode_photo(encoded(image, file_format, **options)).pixels
    assert np.abs(found - on_white(rgb, alpha)).max() <= 1


def test_a_palettes_transparent_colour_lies_on_white():
    image = Image.fromarray(scene()).quantize(16)
    data = encoded(image, "PNG", transparency=3)
    chosen = np.asarray(image) == 3
    assert chosen.any()
    found = decode_photo(data).pixels
    assert (found[chosen] == 255).all()
    np.testing.assert_array_equal(found[~chosen], np.asarray(image.convert("RGB"))[~chosen])


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_of_16_bits_the_upper_8_are_taken(suffix):
    grey = (np.arange(40 * 50).reshape(40, 50) * 32).astype(np.uint16)
    colour = np.stack([grey, grey[::-1], grey // 2], axis=2)
    for deep in (grey, colour) if suffix == ".png" else (grey,):  # of colour Pillow knows no such TIFF
        data = cv2.imencode(suffix, deep)[1].tobytes()
        expected = (deep >> 8).astype(np.uint8)
        expected = np.dstack([expected] * 3) if deep.ndim == 2 else expected[..., ::-1]
        np.testing.assert_array_equal(decode_photo(data).pixels, expected)


@pytest.mark.parametrize("pixels", [np.full((8, 9), 1 << 20, np.int32), np.zeros((8, 9), np.float32)])
def test_numbers_without_a_range_are_refused(pixels):
    with pytest.raises(ImageError, match="of which no range is known"):
        decode_photo(encoded(Image.fromarray(pixels), "TIFF"))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_their_exif_says(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(scene()), file_format, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert expected.shape[:2] == ((84, 60) if orientation > 4 else (60, 84))
    np.testing.assert_array_equal(decode_photo(data).pixels, expected)


def test_a_broken_exif_costs_nothing_but_itself():
    exif = Image.Exif()
    exif[0x0112], exif[0x0110], exif[0x011A] = 6, "Model", 72.0
    whole, draw = exif.tobytes(), random.Random(1)
    image = Image.fromarray(scene())
    assert decode_photo(encoded(image, "JPEG", exif=whole)).pixels.shape == (84, 60, 3)
    for _ in range(200):
        broken = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            broken[draw.randrange(12, len(broken))] = draw.randrange(256)
        assert decode_photo(encoded(image, "JPEG", exif=bytes(broken))).pixels.size == 60 * 84 * 3


def test_of_several_pictures_the_first_is_taken():
    first, second = Image.fromarray(scene()), Image.fromarray(255 - scene())
    for file_format in ("TIFF", "PNG", "MPO"):
        data = encoded(first, file_format, save_all=True, append_images=[second])
        assert np.abs(decode_photo(data).pixels.astype(int) - scene()).mean() < 8


def test_a_colour_profile_is_kept_where_it_still_holds():
    profile = b"not looked into" * 9
    rgb, grey = Image.fromarray(scene()), Image.fromarray(scene()).convert("L")
    assert decode_photo(encoded(rgb, "JPEG", icc_profile=profile)).profile == profile
    assert decode_photo(encoded(grey, "JPEG", icc_profile=profile)).profile is None
    assert decode_photo(encoded(rgb.convert("CMYK"), "JPEG", icc_profile=profile)).profile is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"no image at all", "not a JPEG, PNG, WEBP, BMP"),
        (encoded(Image.fromarray(scene()), "GIF")[:1500], "damaged"),
        (b"%PDF-1.7" + bytes(40), "not a JPEG, PNG, WEBP, BMP, TIFF, GIF"),
        (encoded(Image.fromarray(scene()), "JPEG")[:700], "damaged"),
        (encoded(Image.fromarray(scene()), "PNG")[:700], "damaged"),
        (encoded(Image.fromarray(scene()), "TIFF")[:700], "damaged"),
        (encoded(Image.fromarray(scene()), "WEBP")[:700], "damaged|not a"),
    ],
)
def test_what_is_no_photo_is_said(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode_photo(data)


def test_whatever_the_bytes_there_is_a_photo_or_a_reason():
    draw = random.Random(3)
    kinds = [encoded(Image.fromarray(scene()), kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")]
    for _ in range(300):
        data = bytearray(draw.choice(kinds))
        for _ in range(draw.randint(1, 12)):
            data[draw.randrange(min(len(data), 400))] = draw.randrange(256)
        with contextlib.suppress(ImageError):
            assert decode_photo(bytes(data)).pixels.ndim == 3


@pytest.mark.parametrize(("side", "reason"), [(10_000, "10000 x 10000 pixels, more than"), (60_000, "more than twice")])
def test_bombs_are_not_lit(side, reason, tmp_path):
    data = bytearray(encoded(Image.new("RGB", (8, 8)), "BMP"))
    data[18:26] = struct.pack("<ii", side, side)
    (tmp_path / "bomb.bmp").write_bytes(data)
    with pytest.raises(ImageError, match=reason) as caught:
        decode_photo(bytes(data))
    assert f"Pillow's limit of {Image.MAX_IMAGE_PIXELS:,}" in str(caught.value)
    assert count_pixels(tmp_path / "bomb.bmp") == 0  # or it would be a group by itself


def with_scans(count, side=64):
    """A JPEG that says its last scan as often as that; the picture is the same, and each costs as much to decode."""
    data = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    tables = data.rindex(b"\xff\xc4")
    return data[:-2] + data[tables:-2] * (count - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_of_thousands_of_scans_is_refused():
    """One of 9450 x 9450 pixels with 3000 scans has 260 kB, and took more than a minute."""
    assert decode_photo(with_scans(MOST_SCANS)).pixels.shape == (64, 64, 3)
    for decode in (decode_photo, decode_rgb):
        with pytest.raises(ImageError, match=f"the JPEG has {MOST_SCANS + 1} scans, more than 200; save it anew"):
            decode(with_scans(MOST_SCANS + 1))


def test_scans_are_not_looked_for_in_what_is_behind_a_photo():
    """Telephones write a video there, in whose bytes everything occurs."""
    for progressive in (False, True):
        data = encoded(Image.fromarray(scene()), "JPEG", progressive=progressive)
        np.testing.assert_array_equal(decode_photo(data + b"\xff\xda" * 999).pixels, decode_photo(data).pixels)


def test_a_file_too_large_is_not_read(tmp_path):
    for start in (b"\xff\xd8\0", b"RIFF\0\0\0\0WEBPVP8 ", b"hello"):
        with (tmp_path / "huge.jpg").open("wb") as file:
            file.write(start)
            file.truncate(20 * MOST_BYTES)
        assert count_pixels(tmp_path / "huge.jpg") == 0
        with pytest.raises(ImageError, match="has more than 1,073,741,824 bytes; save it smaller"):
            read_rgb(tmp_path / "huge.jpg")


def test_nobody_waits_for_the_writer_of_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    found = []
    waiting = threading.Thread(target=lambda: found.append(count_pixels(tmp_path / "pipe.jpg")), daemon=True)
    waiting.start()
    waiting.join(30)
    assert found == [0]


@pytest.mark.parametrize("file_format", LONGEST_SIDE)
def test_a_side_is_as_long_as_its_file_can_have(file_format):
    whole, over = (np.zeros((1, LONGEST_SIDE[file_format] + more, 3), np.uint8) for more in (0, 1))
    assert Image.open(io.BytesIO(encode(whole, file_format, None))).size == whole.shape[1::-1]
    check_sides(whole, file_format)
    with pytest.raises((AttributeError, OSError)):  # the encoders' own
        encode(over, file_format, None)
    with pytest.raises(ImageError, match=rf"a side has [\d,]+1 pixels, and that of a {file_format.upper()} at most"):
        check_sides(over, file_format)


def test_a_heic_photo_is_read_where_its_package_is():
    pillow_heif = pytest.importorskip("pillow_heif", reason="no pillow-heif; pip install -e '.[heic]'")
    pillow_heif.register_heif_opener()
    found = decode_photo(encoded(Image.fromarray(scene()), "HEIF", quality=95)).pixels
    assert np.abs(found.astype(int) - scene()).mean() < 8


@pytest.mark.parametrize(
    ("head", "remedy"),
    [
        (b"\0\0\0\x18ftypheic", r"pip install -e '\.\[heic\]'"),
        (b"\0\0\0\x18ftypavif", "AVIF image, .*pip install 'pillow>=11.3'"),
    ],
)
def test_a_photo_names_the_package_that_is_missing(monkeypatch, head, remedy):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(features.modules, "avif", raising=False)
    image_formats.cache_clear()
    with pytest.raises(ImageError, match=remedy):
        decode_photo(head + bytes(40))
    image_formats.cache_clear()


def kinds():
    """One picture in every format and mode, by name; training and `predict` are to see the same."""
    rgb = Image.fromarray(scene())
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray(np.linspace(0, 255, 60 * 84).reshape(60, 84).astype(np.uint8)))
    turned, odd = Image.Exif(), {"save_all": True, "append_images": [Image.fromarray(255 - scene())]}
    turned[0x0112] = 6
    for file_format, modes in {
        "JPEG": ("RGB", "L", "CMYK"),
        "PNG": ("RGB", "L", "P", "1", "RGBA", "LA"),
        "WEBP": ("RGB", "RGBA"),
        "BMP": ("RGB", "L", "P"),
        "TIFF": ("RGB", "L", "CMYK", "RGBA", "LA", "P"),
        "GIF": ("RGB", "L", "P", "RGBA"),
        "PPM": ("RGB", "L", "1"),
        "JPEG2000": ("RGB", "L", "RGBA", "LA"),
        **({"AVIF": ("RGB", "RGBA")} if "AVIF" in image_formats() else {}),
    }.items():
        for mode in modes:
            image = (rgba if mode in ("RGBA", "LA") else rgb).convert(mode)
            yield f"{file_format} {mode}", encoded(image, file_format)
        if file_format in ("GIF", "WEBP", "AVIF", "PNG", "TIFF"):
            yield f"{file_format} of several pictures", encoded(rgb, file_format, **odd)
        if file_format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
            yield f"{file_format} turned", encoded(rgb, file_format, exif=turned)
    deep = np.random.default_rng(0).integers(0, 1 << 16, (60, 84, 4), np.uint16)
    for channels in (1, 3, 4):
        yield f"PNG of 16 bits, {channels}", cv2.imencode(".png", deep[..., :channels])[1].tobytes()
    yield "TIFF of 16 bits", cv2.imencode(".tiff", deep[..., 0])[1].tobytes()
    yield "PPM of 16 bits", cv2.imencode(".ppm", deep[..., :3])[1].tobytes()
    jpeg = encoded(rgb, "JPEG")
    for at in (2, 20, len(jpeg) - 2):
        yield f"JPEG with bytes at {at} that belong to nothing", jpeg[:at] + b"any bytes" + jpeg[at:]


@pytest.mark.parametrize(("kind", "data"), list(kinds()), ids=lambda value: value if isinstance(value, str) else "")
def test_training_sees_what_predict_sees(kind, data):
    head = read_head(data)
    np.testing.assert_array_equal(turn_upright(decode_rgb(data), head.orientation), decode_photo(data).pixels)
    assert head.upright_size == decode_photo(data).pixels.shape[:2] == ((84, 60) if "turned" in kind else (60, 84))


def test_photos_of_coco_are_those_that_training_sees(coco_people):
    for path in sorted((coco_people / "val2017").glob("*.jpg"))[:40]:
        np.testing.assert_array_equal(decode_photo(path.read_bytes()).pixels, read_rgb(path))
        height, width = read_rgb(path).shape[:2]
        assert count_pixels(path) == height * width


# Backgrounds


def test_backgrounds_are_read(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "sea.png")
    assert parse_background("#ff8000") == Colour((255, 128, 0))
    assert parse_background("tomato") == Colour((255, 99, 71))
    assert parse_background("blur") == Blur(2.0)
    assert parse_background("blur:0.5") == Blur(0.5)
    np.testing.assert_array_equal(parse_background(str(tmp_path / "sea.png")).pixels, scene())
    (tmp_path / "bad.png").write_bytes(b"bad")
    for text, reason in (
        ("blur:0", "percentage"),
        ("blur:x", "percentage"),
        ("tomatoe", "neither a colour nor a file"),
        (str(tmp_path / "bad.png"), "cannot be used: it is not a JPEG"),
    ):
        with pytest.raises(PredictError, match=reason):
            parse_background(text)


@pytest.mark.parametrize(("height", "width"), [(60, 84), (300, 100), (31, 200), (1, 1)])
def test_a_picture_covers_the_photo_and_keeps_its_aspect(height, width):
    picture = np.zeros((400, 600, 3), np.uint8)
    picture[190:210, 290:310] = 255  # a square in the middle stays a square in the middle
    behind = Picture(picture).behind(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8))
    assert behind.shape == (height, width, 3)
    if min(height, width) > 50:
        y, x = np.nonzero(behind[..., 0] > 127)
        assert y.mean() == pytest.approx((height - 1) / 2, abs=1)
        assert x.mean() == pytest.approx((width - 1) / 2, abs=1)
        assert np.ptp(y) == pytest.approx(np.ptp(x), abs=1)


def test_a_blurred_background_is_blurred_and_has_no_halo():
    image = np.zeros((120, 160, 3), np.uint8)
    image[:, :, 2] = 200
    alpha = np.zeros((120, 160), np.uint8)
    alpha[40:80, 60:100] = 255
    image[40:80, 60:100] = (255, 0, 0)
    behind = Blur(3.0).behind(image, alpha)
    assert np.abs(behind[alpha == 0].astype(int) - (0, 0, 200)).max() <= 12
    noise = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    blurred = Blur(3.0).behind(noise, np.zeros_like(alpha))
    assert blurred.std() < 0.2 * noise.std()
    assert blurred.mean() == pytest.approx(noise.mean(), abs=2)


def test_composing_is_straight_alpha_to_the_nearest():
    rng = np.random.default_rng(1)
    image, behind = rng.integers(0, 256, (2, 700, 41, 3), dtype=np.uint8)
    alpha = rng.integers(0, 256, (700, 41), dtype=np.uint8)
    alpha[:9] = 0
    share = alpha[..., None] / 255.0
    np.testing.assert_array_equal(compose(image, alpha, behind), np.rint(image * share + behind * (1 - share)))
