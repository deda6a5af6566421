import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.image import fit_box, place_image, place_plane, restore_mask

SIZES = st.integers(1, 5000)
SIDES = st.integers(1, 32).map(lambda k: 32 * k)


@given(SIZES, SIZES, SIDES)
def test_letterbox_keeps_the_aspect_and_centres(height, width, side):
    box = fit_box(height, width, side, "letterbox")
    assert max(box.width, box.height) == side
    assert min(box.width, box.height) >= 1
    scale = side / max(height, width)
    assert abs(box.width - max(1, width * scale)) <= 0.5 + 1e-9
    assert abs(box.height - max(1, height * scale)) <= 0.5 + 1e-9
    for start, length in ((box.x, box.width), (box.y, box.height)):
        assert start >= 0
        assert start + length <= side
        assert side - start - length - start in (0, 1), "the odd pixel is below or to the right"


def test_stretch_fills():
    assert fit_box(10, 1000, 64, "stretch") == (0, 0, 64, 64)


@pytest.mark.parametrize("shape", [(480, 640), (640, 427), (20, 30), (64, 64), (700, 3)])
@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_records_are_what_cv2_gives(shape, fit):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    plane = (cv2.GaussianBlur(rng.random(shape), (0, 0), 3) > 0.5).astype(np.uint8)
    box = fit_box(*shape, 64, fit)
    placed = np.full((64, 64, 3), 99, np.uint8)
    place_image(image, box, placed)
    shrinks = box.width <= shape[1] and box.height <= shape[0]
    size = (box.width, box.height)
    inner = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    np.testing.assert_array_equal(placed[box.slices], inner)
    assert placed.sum() == inner.sum(), "the padding is black"
    for padding in (0, 1):
        bits = np.full((64, 8), 0b1010101, np.uint8)
        count = place_plane(plane, box, bits, padding)
        mask = np.unpackbits(bits, axis=1, bitorder="little")
        inner_plane = cv2.resize(255 * plane, size, interpolation=cv2.INTER_AREA) >= 128
        np.testing.assert_array_equal(mask[box.slices], inner_plane)
        assert count == inner_plane.sum()
        assert mask.sum() == inner_plane.sum() + padding * (64 * 64 - box.width * box.height)


@pytest.mark.parametrize("shape", [(480, 640), (200, 640), (37, 61)])
def test_restore_undoes_the_fit(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    disc = ((y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2 < (0.35 * min(shape)) ** 2).astype(np.uint8)
    box = fit_box(*shape, 256, "letterbox")
    bits = np.empty((256, 32), np.uint8)
    place_plane(disc, box, bits, 0)
    back = restore_mask(np.unpackbits(bits, axis=1, bitorder="little").astype(np.float32), box, *shape) > 0.5
    assert back.shape == shape
    assert (back & (disc == 1)).sum() / (back | (disc == 1)).sum() > 0.97
