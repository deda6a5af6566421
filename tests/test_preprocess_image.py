import io
import re
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, features

from preprocess.errors import ImageError
from preprocess.image import SUFFIXES, decode_rgb, encode_jpeg, image_formats, read_head, read_rgb


@pytest.fixture(scope="module")
def picture():
    y, x = np.mgrid[:90, :120]
    return np.stack([x * 2, y * 2, 255 - x - y], axis=-1).astype(np.uint8)


def test_jpeg_decodes_as_in_opencv(picture):
    data = encode_jpeg(picture, 90).tobytes()
    ours = decode_rgb(data)
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(ours.astype(int) - picture).mean() < 2


def test_jpeg_is_written_without_chroma_subsampling(picture):
    import simplejpeg

    assert simplejpeg.decode_jpeg_header(encode_jpeg(picture, 95).tobytes())[2:] == ("YCbCr", "444")


def test_gray_png_and_16_bits_become_rgb(picture, tmp_path):
    gray = picture[:, :, 0]
    for name, pixels in (("g.jpg", gray), ("g.png", gray), ("deep.png", gray.astype(np.uint16) * 257)):
        assert cv2.imwrite(str(tmp_path / name), pixels)
        rgb = read_rgb(tmp_path / name)
        assert rgb.shape == (90, 120, 3)
        assert rgb.dtype == np.uint8
        assert np.abs(rgb.astype(int) - gray[..., None]).max() <= (8 if name.endswith("jpg") else 1)


def test_cmyk_jpeg_is_converted(picture, tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(picture).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(read_rgb(tmp_path / "cmyk.jpg").astype(int) - picture).mean() < 6


def test_exif_orientation_is_not_applied(picture, tmp_path):
    image = pytest.importorskip("PIL.Image")
    photo = image.fromarray(picture)
    exif = photo.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees to look at it
    photo.save(tmp_path / "turned.jpg", exif=exif)
    assert read_rgb(tmp_path / "turned.jpg").shape == (90, 120, 3)


@pytest.mark.parametrize("cut", [0.3, 0.9, 0.999])
def test_a_truncated_jpeg_is_refused(picture, tmp_path, cut):
    data = encode_jpeg(picture, 95).tobytes()
    (tmp_path / "cut.jpg").write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(ImageError, match=r"damaged: .*(Premature end|subsampling)"):
        read_rgb(tmp_path / "cut.jpg")


def test_what_is_no_image_is_refused(tmp_path):
    with pytest.raises(ImageError, match="missing"):
        read_rgb(tmp_path / "none.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        read_rgb(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_bytes(b"<html>not found</html>")
    with pytest.raises(ImageError, match="it is not a JPEG, PNG, WEBP, BMP, TIFF, GIF"):
        read_rgb(tmp_path / "text.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ImageError, match="not an image file"):
        read_rgb(tmp_path / "folder.jpg")


# JPEGs that libjpeg warns of


def encoded(pixels, file_format="JPEG", inks=False, **options):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert("CMYK") if inks else image).save(buffer, file_format, **options)
    return buffer.getvalue()


def noise(height=150, width=200, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def markers(jpeg):
    """Where each marker but the first starts, its code, and whether a scan is before it."""
    found, at, behind_scan = [], 2, False
    while at < len(jpeg):
        found.append((at, jpeg[at + 1], behind_scan))
        behind_scan = jpeg[at + 1] == 0xDA
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if behind_scan:
            at = re.compile(rb"\xff[^\0\xd0-\xd7]").search(jpeg, at).start()
    assert found[-1][1] == 0xD9
    return found


def with_bytes(jpeg, places):
    """The JPEG with bytes put in at places, `{offset: bytes}`."""
    for at in sorted(places, reverse=True):
        jpeg = jpeg[:at] + places[at] + jpeg[at:]
    return jpeg


def warns(jpeg, text):
    """Whether libjpeg warns of a JPEG by this text, so that the strict decoder refuses it."""
    with pytest.raises(ValueError, match=text):
        simplejpeg.decode_jpeg(jpeg, "RGB", strict=True)
    return True


def by_pillow(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


KINDS = {
    "baseline": {},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 4},
    "optimized": {"optimize": True, "quality": 96},
}


@pytest.mark.parametrize("extra", [b"z", b"\0\0", b"any bytes", bytes(range(1, 250)), b"\0" * 5000])
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_belong_to_nothing_change_no_pixel(kind, extra):
    clean = encoded(noise(), **KINDS[kind])
    for at, code, behind_scan in markers(clean):
        data = with_bytes(clean, {at: extra})
        if not behind_scan:
            assert warns(data, f"{len(extra)} extraneous bytes before marker 0x{code:02x}")
        elif len({*extra}) > 1 and kind == "progressive" and code != 0xD9:
            continue  # see the test below
        np.testing.assert_array_equal(decode_rgb(data), by_pillow(clean))
        assert read_head(data) == read_head(clean)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_belong_to_nothing_in_several_places(kind):
    clean = encoded(noise(), **KINDS[kind])
    places = {at: bytes(20 + at % 7) if behind_scan else b"xyz" * (1 + at % 3) for at, _, behind_scan in markers(clean)}
    data = with_bytes(clean, places)
    assert warns(data, "extraneous bytes before marker 0xe0")
    np.testing.assert_array_equal(decode_rgb(data), by_pillow(clean))
    np.testing.assert_array_equal(decode_rgb(data + b"and behind the end"), by_pillow(clean))
    assert read_head(data)[:2] == (150, 200)


def test_a_gray_jpeg_with_bytes_that_belong_to_nothing():
    clean = encoded(noise()[..., 0])
    data = clean[:-2] + bytes(30) + clean[-2:]
    assert warns(data, "before marker 0xd9")
    np.testing.assert_array_equal(decode_rgb(data), by_pillow(clean))


def changed(jpeg, pattern, new):
    """The JPEG with the last group of a pattern replaced."""
    match = re.search(pattern, jpeg, re.DOTALL)
    return jpeg[: match.start(1)] + new + jpeg[match.end(1) :]


ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1"


def harmless():
    """JPEGs with numbers that are not used: what libjpeg warns of, the JPEG without it, and with it."""
    plain = encoded(noise())
    adobe = plain[:2] + ADOBE + plain[20:]  # in the place of JFIF
    inks = encoded(noise(), inks=True)
    profile = encoded(noise(), icc_profile=b"profile" * 20_000)
    yield "unknown JFIF revision number 3.01", plain, changed(plain, rb"JFIF\0(.)", b"\3")
    yield "Unknown Adobe color transform code 5", adobe, changed(adobe, rb"Adobe.{6}(.)", b"\5")
    four = changed(inks, rb"Adobe.{6}(.)", b"\2")
    yield "Unknown Adobe color transform code 1", four, changed(inks, rb"Adobe.{6}(.)", b"\1")
    yield "Unknown Adobe color transform code 7", four, changed(inks, rb"Adobe.{6}(.)", b"\7")
    for spectrum in (b"\0\0\0", b"\0\x3f\x10", b"\1\x3f\0"):
        yield "Invalid SOS parameters", plain, changed(plain, rb"\xff\xda.{9}(...)", spectrum)
    yield "bad ICC marker", profile, changed(profile, rb"ICC_PROFILE\0(.)", b"\7")


@pytest.mark.parametrize(("warning", "clean", "data"), list(harmless()))
def test_numbers_that_are_not_used_change_no_pixel(warning, clean, data):
    assert warns(data, warning)
    np.testing.assert_array_equal(decode_rgb(data), by_pillow(clean))
    both = with_bytes(data, {data.index(b"\xff\xc0"): b"xyz", len(data) - 2: bytes(20)})
    np.testing.assert_array_equal(decode_rgb(both), by_pillow(clean))


def test_warnings_of_what_changes_pixels_stay_errors():
    plain, steps = encoded(noise()), encoded(noise(), progressive=True)
    restarts = encoded(noise(), restart_marker_blocks=4)
    at = restarts.index(b"\xff\xd2")
    scans = [at for at, code, _ in markers(steps) if code == 0xDA]
    cut = restarts[: restarts.index(b"\xff\xd2")] + restarts[restarts.index(b"\xff\xd3") :]
    for data, reason in (
        (plain[:-400] + plain[-2:], "premature end of data segment"),
        (plain[:-2], "Premature end of JPEG file"),
        (with_bytes(restarts, {at: b"some bytes"}), "extraneous bytes before marker 0xd2"),
        (cut, "found marker 0xd3 instead of RST2"),
        (steps[: scans[-1]] + steps[scans[-1] : -2] + steps[scans[-1] :], "Inconsistent progression sequence"),
        (with_bytes(plain[:-400] + plain[-2:], {2: b"xyz"}), "3 extraneous bytes before marker 0xe0"),
    ):
        assert warns(data, reason)
        with pytest.raises(ImageError, match=f"the JPEG is damaged: .*{reason}"):
            decode_rgb(data)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_bytes_that_a_damaged_scan_leaves_over_mostly_stay_errors(options):
    """They are left over by a photo of which the pixels are others."""
    clean = encoded(noise(300, 400), **options)
    start, rng, refused = clean.index(b"\xff\xda") + 14, np.random.default_rng(1), []
    while len(refused) < 60:
        data = bytearray(clean)
        data[rng.integers(start, len(data) - 2)] ^= 1 << rng.integers(8)
        try:
            simplejpeg.decode_jpeg(bytes(data), "RGB", strict=True)
        except ValueError as error:
            if "extraneous" not in str(error):
                continue
            assert (by_pillow(bytes(data)) != by_pillow(clean)).any()
            try:
                decode_rgb(bytes(data))
                refused.append(False)
            except ImageError:
                refused.append(True)
    assert np.mean(refused) > 0.6


def test_a_cmyk_jpeg_is_that_of_pillow_and_read_strictly():
    data = encoded(noise(), inks=True)
    pixels = decode_rgb(data)
    np.testing.assert_array_equal(pixels, by_pillow(data))
    assert pixels.flags.writeable
    with pytest.raises(ImageError, match=r"damaged: .*remature end"):
        decode_rgb(data[:-300] + data[-2:])


# Other formats


def png(pixels, colour, transparent=b""):
    """A PNG of `(H, W, C)` uint8 or uint16 pixels of a colour type, and its tRNS chunk."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    chunks = [chunk(b"IHDR", head), chunk(b"tRNS", transparent) if transparent else b""]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def on_white(pixels_HW3, alpha_HW):
    share = alpha_HW[..., None] / 255
    return pixels_HW3 * share + 255 * (1 - share)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", [4, 6])
def test_a_png_with_alpha_lies_on_white(depth, colour):
    most = np.iinfo(depth).max
    pixels = np.random.default_rng(colour).integers(0, most + 1, (50, 60, 2 if colour == 4 else 4), depth)
    pixels[:20, :, -1], pixels[40:, :, -1] = 0, most
    upper = (pixels >> (8 if depth == np.uint16 else 0)).astype(np.uint8)
    expected = on_white(np.broadcast_to(upper[..., :-1], (50, 60, 3)), upper[..., -1])
    found = decode_rgb(png(pixels, colour))
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1
    assert (found[:20] == 255).all()
    np.testing.assert_array_equal(found[40:], expected[40:])


def test_of_a_png_of_16_bits_the_upper_8_are_taken():
    deep = np.random.default_rng(0).integers(0, 1 << 16, (50, 60, 3), np.uint16)
    np.testing.assert_array_equal(decode_rgb(png(deep, 2)), deep >> 8)
    np.testing.assert_array_equal(decode_rgb(png(deep[..., :1], 0)), np.repeat(deep[..., :1] >> 8, 3, 2))


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_transparent_grey_lies_on_white(depth):
    grey = np.random.default_rng(0).integers(0, 200, (50, 60, 1), depth)
    found = decode_rgb(png(grey, 0, struct.pack(">H", 77)))
    upper = grey[..., 0] >> (8 if depth == np.uint16 else 0)
    np.testing.assert_array_equal(found[..., 1], np.where(grey[..., 0] == 77, 255, upper))
    assert (grey == 77).any()


def clear(file_format, **options):
    """A picture with transparent pixels: its colours, its alpha and its file."""
    alpha = np.zeros((150, 200), np.uint8)
    alpha[:60], alpha[60:100] = 255, 128
    if file_format in ("GIF", "palette"):
        image = Image.fromarray(noise()).quantize(16)
        alpha = np.where(np.asarray(image) == 3, 0, 255)
        buffer = io.BytesIO()
        image.save(buffer, "GIF" if file_format == "GIF" else "PNG", transparency=3)
        return np.asarray(image.convert("RGB")), alpha, buffer.getvalue()
    return noise(), alpha, encoded(np.dstack([noise(), alpha]), file_format, **options)


NEED_AVIF = pytest.mark.skipif("AVIF" not in image_formats(), reason="this Pillow has no decoder of AVIF")


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("palette", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("JPEG2000", {}),
        pytest.param("AVIF", {"quality": 100, "subsampling": "4:4:4"}, marks=NEED_AVIF),
    ],
)
def test_what_is_transparent_lies_on_white(file_format, options):
    pixels, alpha, data = clear(file_format, **options)
    assert np.abs(decode_rgb(data) - on_white(pixels, alpha)).max() <= (6 if file_format == "AVIF" else 1)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("TIFF", {}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {"lossless": True}),
        pytest.param("AVIF", {"quality": 100}, marks=NEED_AVIF),
    ],
)
def test_of_several_pictures_the_first_is_taken(file_format, options):
    still = encoded(noise(), file_format, **options)
    data = encoded(noise(), file_format, save_all=True, append_images=[Image.fromarray(255 - noise())], **options)
    assert len(data) > len(still) * 1.2
    assert np.abs(decode_rgb(data).astype(int) - noise()).mean() < 15  # a palette is coarse


def test_every_suffix_is_that_of_a_format_that_is_read():
    Image.init()
    known = Image.registered_extensions()
    formats = {known[suffix] for suffix in SUFFIXES if suffix in known}
    assert formats <= {*image_formats(), "AVIF", "HEIF"}
    assert formats >= {*image_formats()} - {"HEIF"}
    assert {suffix for suffix in SUFFIXES if suffix not in known} <= {".heic", ".heif", ".avif"}


@pytest.mark.parametrize(
    ("head", "remedy"),
    [
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf", "AVIF image, .*pip install 'pillow>=11.3', or save it as PNG"),
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf", "AVIF image, .*pip install 'pillow>=11.3', or save it as PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r"pip install -e '\.\[heic\]'"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", r"pip install -e '\.\[heic\]'"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "is not a JPEG, PNG, WEBP, BMP, TIFF, GIF, PPM or JPEG2000 image"),
    ],
)
def test_a_format_that_is_missing_here_names_its_remedy(monkeypatch, head, remedy):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(features.modules, "avif", raising=False)  # as in a Pillow before 11.3
    image_formats.cache_clear()
    for read in (read_head, decode_rgb):
        with pytest.raises(ImageError, match=remedy):
            read(head + bytes(60))
    image_formats.cache_clear()
