"""The area kernels against cv2.resize, bit for bit."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.spec import CacheSpec
from preprocess.annotations.table import load_persons
from preprocess.build.record import native_planes
from preprocess.image import fit_box, read_rgb
from preprocess.resize import shrink_image, shrink_plane

U8 = npt.NDArray[np.uint8]
Shape = tuple[int, int]

# Elsewhere OpenCV's builds may fuse multiplication and addition, which moves a result that lies at a rounding edge.
EXACT = platform.machine().lower() in ("x86_64", "amd64")

fuzz = settings(derandomize=True, database=None, deadline=None, max_examples=300)


def area(source: U8, height: int, width: int) -> U8:
    resized = cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8).reshape(height, width, *source.shape[2:])


def square_around(height: int, width: int, seed: int) -> tuple[int, int, int]:
    """A side, a multiple of 32, and a place in the square for a box of this size."""
    rng = np.random.default_rng(seed)
    side = -(-max(height, width) // 32) * 32
    return side, int(rng.integers(0, side - width + 1)), int(rng.integers(0, side - height + 1))


def assert_image(image: U8, height: int, width: int, seed: int = 0) -> None:
    """The box holds what cv2 gives, and what lay around it before lies there still."""
    side, x, y = square_around(height, width, seed)
    square = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    expected = square.copy()
    expected[y : y + height, x : x + width] = area(image, height, width)
    shrink_image(image, square, x, y, width, height)
    if EXACT:
        np.testing.assert_array_equal(square, expected)
    else:
        np.testing.assert_allclose(square.astype(int), expected.astype(int), atol=1)


def assert_plane(plane: U8, height: int, width: int, seed: int = 0) -> None:
    """As for an image; and the pixels set are counted."""
    side, x, y = square_around(height, width, seed)
    square = np.random.default_rng(seed).integers(0, 2, (side, side), np.uint8)
    bits = np.packbits(square, axis=1, bitorder="little")
    found = shrink_plane(plane, bits, x, y, width, height)
    result = np.unpackbits(bits, axis=1, bitorder="little")
    box = (slice(y, y + height), slice(x, x + width))
    assert found == result[box].sum()
    grey = area(255 * plane, height, width)
    wrong = result[box] != (grey >= 128)
    assert not (wrong if EXACT else wrong & (grey != 127) & (grey != 128)).any()
    result[box] = square[box]
    np.testing.assert_array_equal(result, square, "around the box nothing is written")


def blobs(shape: Shape, scale: float, seed: int) -> U8:
    """A plane with outlines that are smooth over about `scale` pixels."""
    noise = np.random.default_rng(seed).random(shape)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), scale).reshape(shape) > 0.5, np.uint8)


# By hand


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((486, 571), (327, 384)),
        ((640, 427), (512, 342)),
        ((96, 128), (72, 96)),  # 4/3: planes have pixels that are covered by exactly one half
        ((60, 80), (40, 80)),  # one axis as it was
        ((60, 80), (60, 32)),
        ((60, 80), (60, 80)),
        ((60, 80), (30, 40)),  # whole factors
        ((60, 80), (60, 40)),
        ((60, 80), (20, 40)),
        ((60, 80), (15, 20)),
        ((60, 81), (12, 9)),
        ((98, 1200), (1, 600)),  # whole factors, one of which OpenCV does not see, for the rounding of its scale
        ((64, 1001), (64, 500)),  # shares of 2, 1 and 0.999 thousandths, about the least that OpenCV keeps
        ((64, 2001), (64, 1000)),
        ((64, 2003), (64, 1001)),
        ((300, 300), (1, 1)),
        ((1000, 1), (333, 1)),
        ((1, 5000), (1, 7)),
        ((3, 4001), (2, 384)),
        ((2000, 5), (1999, 4)),
    ],
)
def test_shapes(shape: Shape, target: Shape) -> None:
    rng = np.random.default_rng(0)
    assert_image(rng.integers(0, 256, (*shape, 3), np.uint8), *target)
    assert_image(255 * rng.integers(0, 2, (*shape, 3), np.uint8), *target)
    for scale in (0.3, 2.0, 9.0):
        assert_plane(blobs(shape, scale, 0), *target)


@pytest.mark.parametrize("target", [(30, 41), (20, 20), (59, 61)])
def test_one_colour_stays_that_colour(target: Shape) -> None:
    for value in (0, 1, 127, 254, 255):
        square = np.zeros((64, 64, 3), np.uint8)
        shrink_image(np.full((60, 80, 3), value, np.uint8), square, 0, 0, target[1], target[0])
        assert (square[: target[0], : target[1]] == value).all()
    for pixel in (0, 1):
        bits = np.full((64, 8), 0xAA, np.uint8)
        assert shrink_plane(np.full((60, 80), pixel, np.uint8), bits, 0, 0, target[1], target[0]) == (
            pixel * target[0] * target[1]
        )


def test_a_pixel_of_which_one_half_is_covered_is_set() -> None:
    plane = np.zeros((64, 64), np.uint8)
    plane[:, 1::2] = 1
    bits = np.zeros((32, 4), np.uint8)
    assert shrink_plane(plane, bits, 0, 0, 32, 32) == 32 * 32
    plane[0, 1] = 0
    assert shrink_plane(plane, bits, 0, 0, 32, 32) == 32 * 32 - 1


def test_any_layout_of_the_source() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (90, 130, 3), np.uint8)
    frozen = photo.copy()
    frozen.setflags(write=False)
    for image in (photo[:, ::-1], photo[5:, 7:], np.asfortranarray(photo), frozen):
        assert_image(image, 50, 61)
    plane = blobs((90, 130), 3.0, 0)
    for part in (plane[:, ::-1], plane[5:, 7:], plane.T):
        assert_plane(part, 50, 61)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 0, 41, 30), "40 x 30 pixels cannot shrink to 41 x 30"),
        ((0, 0, 40, 31), "cannot shrink to 40 x 31; where an axis grows, use cv2.resize"),
        ((0, 0, 0, 30), "cannot shrink to 0 x 30"),
        ((0, 0, 40, -1), "cannot shrink to 40 x -1"),
        ((25, 0, 40, 30), r"a box of 40 x 30 pixels at \(25, 0\) leaves the 64 x 64 square"),
        ((0, 35, 40, 30), "leaves the 64 x 64 square"),
        ((-1, 0, 40, 30), "leaves the 64 x 64 square"),
        ((0, -1, 40, 30), "leaves the 64 x 64 square"),
    ],
)
def test_boxes_that_cannot_be(box: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shrink_image(np.zeros((30, 40, 3), np.uint8), np.zeros((64, 64, 3), np.uint8), *box)
    with pytest.raises(ValueError, match=message):
        shrink_plane(np.zeros((30, 40), np.uint8), np.zeros((64, 8), np.uint8), *box)


# Real photos


def photos(coco: Path, split: str, limit: int) -> Iterator[tuple[U8, U8, U8]]:
    """Image and both native planes of the first images of a split."""
    table = load_persons(coco / "annotations" / f"person_keypoints_{split}.json")
    for row in range(min(limit, len(table.file_name))):
        yield read_rgb(coco / split / table.file_name[row]), *native_planes(table, row, CacheSpec())


@pytest.mark.parametrize("side", [256, 384, 512])
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_real_photos(coco_mini: Path, coco_people: Path, split: str, side: int) -> None:
    shrunk = 0
    for coco in (coco_mini, coco_people):
        for image, person, ignore in photos(coco, split, 25):
            box = fit_box(*person.shape, side, "letterbox")
            if box.height > person.shape[0] or box.width > person.shape[1]:
                continue
            assert_image(image, box.height, box.width)
            assert_plane(person, box.height, box.width)
            assert_plane(ignore, box.height, box.width)
            shrunk += 1
    assert shrunk > 25


def test_threads_do_not_disturb_each_other() -> None:
    images = [np.random.default_rng(i).integers(0, 256, (120 + i, 150, 3), np.uint8) for i in range(24)]
    planes = [blobs(image.shape[:2], 4.0, i) for i, image in enumerate(images)]
    targets = [(90 + i % 7, 70 + i) for i in range(24)]
    barrier = Barrier(4)

    def shrink_all(start: int) -> None:
        barrier.wait()
        for i in range(start, start + 24):
            assert_image(images[i % 24], *targets[i % 24])
            assert_plane(planes[i % 24], *targets[i % 24])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(shrink_all, range(0, 24, 6)))


# Fuzz


@st.composite
def lengths(draw: st.DrawFn) -> tuple[int, int]:
    """Source and target of an axis: any, a whole factor, or a ratio of small numbers."""
    kind = draw(st.sampled_from(["any", "whole", "ratio"]))
    if kind == "any":
        source = draw(st.integers(1, 200))
        return source, draw(st.integers(1, source))
    target = draw(st.integers(1, 60))
    if kind == "whole":
        return target * draw(st.sampled_from([1, 2, 3, 4, 5, 7, 16])), target
    above, below = draw(st.sampled_from([(4, 3), (3, 2), (5, 2), (5, 3), (7, 4), (9, 8), (11, 3)]))
    return above * target, below * target


@fuzz
@given(lengths(), lengths(), st.sampled_from(["noise", "extremes", "ramp", "steps"]), st.integers(0, 2**32 - 1))
def test_fuzzed_images(rows: tuple[int, int], columns: tuple[int, int], kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (rows[0], columns[0], 3)
    if kind == "noise":
        image = rng.integers(0, 256, shape)
    elif kind == "extremes":
        image = 255 * rng.integers(0, 2, shape)
    else:
        slopes = rng.integers(-6, 7, 3) if kind == "ramp" else 64 * rng.integers(0, 4, 3)
        y, x, channel = np.indices(shape)
        image = slopes[0] * y + slopes[1] * x + slopes[2] * channel
    assert_image(image.astype(np.uint8), rows[1], columns[1], seed)


@fuzz
@given(lengths(), lengths(), st.sampled_from([0.3, 1.0, 4.0, 20.0]), st.integers(0, 2**32 - 1))
def test_fuzzed_planes(rows: tuple[int, int], columns: tuple[int, int], scale: float, seed: int) -> None:
    assert_plane(blobs((rows[0], columns[0]), scale, seed), rows[1], columns[1], seed)


@fuzz
@given(lengths(), lengths(), st.data())
def test_fuzzed_rectangles(rows: tuple[int, int], columns: tuple[int, int], data: st.DataObject) -> None:
    plane = np.zeros((rows[0], columns[0]), np.uint8)
    for _ in range(data.draw(st.integers(1, 3), "rectangles")):
        top, left = data.draw(st.integers(0, rows[0] - 1)), data.draw(st.integers(0, columns[0] - 1))
        plane[top : data.draw(st.integers(top, rows[0])), left : data.draw(st.integers(left, columns[0]))] ^= 1
    assert_plane(plane, rows[1], columns[1])
