"""The files of results, as others read them."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from predict.photo import encode, read_comment


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 70), (70, 1), (37, 53), (300, 500)])
def test_a_png_holds_its_pixels_to_the_bit(height, width, channels):
    rng = np.random.default_rng(height * width + channels)
    pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    pixels[: height // 2] = cv2.blur(pixels[: height // 2], (9, 9)).reshape(-1, width, channels) if height > 1 else 7
    for image in (pixels, np.ascontiguousarray(pixels[::-1])[::-1]):  # contiguous, and not
        image = image[..., 0] if channels == 1 else image
        data = encode(image, "png", None)
        read = Image.open(io.BytesIO(data))
        assert (read.format, read.mode) == ("PNG", {1: "L", 3: "RGB", 4: "RGBA"}[channels])
        np.testing.assert_array_equal(np.asarray(read), image)
        again = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        order = {1: slice(None), 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
        np.testing.assert_array_equal(again if channels == 1 else again[..., order], image)
        read = Image.open(io.BytesIO(data))
        read.verify()  # its checksums


@pytest.mark.parametrize("file_format", ["png", "jpeg"])
def test_the_profile_comes_along(file_format):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.full((9, 8, 3), 100, np.uint8)
    for given in (profile, b"profile" * 40, None):  # also one that libpng would refuse
        read = Image.open(io.BytesIO(encode(pixels, file_format, given)))
        assert read.info.get("icc_profile") == given
        assert np.abs(np.asarray(read).astype(int) - pixels).max() <= 2


@pytest.mark.parametrize("file_format", ["png", "jpeg"])
def test_the_comment_comes_along(tmp_path, file_format):
    pixels = np.full((9, 8, 3), 100, np.uint8)
    for given in ('{"a": "\\u00e9"}', ""):
        (tmp_path / "photo").write_bytes(encode(pixels, file_format, None, given))
        assert read_comment(tmp_path / "photo") == given
        assert np.abs(np.asarray(Image.open(tmp_path / "photo")).astype(int) - pixels).max() <= 2
