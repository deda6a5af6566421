"""The guided filter against its definition."""

import math

import cv2
import numpy as np
import pytest

import predict.mask
from predict.mask import fit_lines, refine


def by_definition(guide, mask, radius, eps):
    """Equations 19 to 21 of the paper, a window at a time, in 64 bits."""
    height, width = mask.shape
    guide, mask = guide.astype(float), mask.astype(float)
    slopes, offsets = np.zeros((height, width, 3)), np.zeros((height, width))

    def window(y, x):
        return slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)

    for y in range(height):
        for x in range(width):
            colours, values = guide[window(y, x)].reshape(-1, 3), mask[window(y, x)].reshape(-1)
            variance = np.cov(colours.T, bias=True) + eps * np.eye(3)
            slopes[y, x] = np.linalg.solve(
                variance, (colours * values[:, None]).mean(0) - colours.mean(0) * values.mean()
            )
            offsets[y, x] = values.mean() - slopes[y, x] @ colours.mean(0)
    filtered = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            at = window(y, x)
            filtered[y, x] = slopes[at].reshape(-1, 3).mean(0) @ guide[y, x] + offsets[at].mean()
    return filtered


def scene(height, width, seed=0):
    """A photo with noise, a disk in it, and a soft mask of the disk that lies beside it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    far = np.hypot(y - height / 2, x - width / 2)
    disk = far < min(height, width) / 4
    image = np.where(disk[..., None], (200, 90, 40), (60, 110, 160)) + rng.normal(0, 4, (height, width, 3))
    shifted = np.roll(disk, 3, axis=1).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8), cv2.GaussianBlur(shifted, (0, 0), 3), disk


@pytest.mark.parametrize(("radius", "eps"), [(1, 1e-3), (3, 1e-4), (4, 1e-2), (40, 1e-4)])
def test_it_is_what_the_paper_defines(radius, eps):
    image, mask, _ = scene(27, 34)
    guide = image.astype(np.float32) / 255
    expected = by_definition(guide, mask, radius, eps)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(filtered(guide, mask, radius, eps), expected, atol=2e-4)


def filtered(guide, mask, radius, eps):
    slopes, offset = fit_lines(cv2.split(guide), mask, radius, eps)
    return sum(slope * colour for slope, colour in zip(slopes, cv2.split(guide), strict=True)) + offset


def test_where_the_network_is_in_doubt_it_is_the_filter_and_where_it_is_sure_nothing():
    image, mask, _ = scene(101, 83)
    expected = filtered(image.astype(np.float32) / 255, mask, 3, 1e-4).clip(0, 1)
    doubt = 1 - (2 * mask - 1) ** 2
    refined = refine(mask, image, radius=3 / math.hypot(101, 83))
    np.testing.assert_allclose(refined, (1 - doubt) * mask + doubt * expected, atol=1e-4)
    sure = (mask < 1e-6) | (mask > 1 - 1e-6)
    assert sure.mean() > 0.5
    np.testing.assert_allclose(refined[sure], mask[sure], atol=1e-5)


@pytest.mark.parametrize("strip", [16, 37, 1000])
@pytest.mark.parametrize("radius", [3, 30])
def test_a_smaller_photo_gives_nearly_the_same(radius, strip, monkeypatch):
    image, mask, disk = scene(203, 166)
    radius /= math.hypot(203, 166)
    monkeypatch.setattr(predict.mask, "WINDOW", 1000)
    whole = refine(mask, image, radius=radius)
    monkeypatch.setattr(predict.mask, "WINDOW", 8)
    monkeypatch.setattr(predict.mask, "STRIP", strip)
    fast = refine(mask, image, radius=radius)
    assert np.abs(fast - whole).mean() < 0.002
    assert np.count_nonzero((fast > 0.5) != (whole > 0.5)) <= 0.1 * np.count_nonzero((mask > 0.5) != disk)


def test_edges_move_to_the_photos_and_the_rest_stays():
    image, mask, disk = scene(200, 240)
    refined = refine(mask, image, radius=0.02)
    wrong = [np.count_nonzero((one > 0.5) != disk) for one in (mask, refined)]
    assert wrong[1] < 0.5 * wrong[0]
    edge = (np.abs(mask - 0.5) < 0.499).astype(np.uint8)
    reach = 2 * round(0.02 * math.hypot(200, 240)) + 1
    far = cv2.dilate(edge, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) == 0
    assert far.mean() > 0.2
    assert np.abs(refined - mask)[far].max() < 1 / 255
    assert refined.min() >= 0
    assert refined.max() <= 1


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_mask_without_an_edge_is_left_alone(value):
    image, mask, _ = scene(60, 50)
    mask[:] = value
    assert np.array_equal(refine(mask, image), mask)


def test_a_photo_of_one_colour_gives_numbers():
    _, mask, _ = scene(60, 50)
    refined = refine(mask, np.full((60, 50, 3), 255, np.uint8))
    assert np.isfinite(refined).all()
