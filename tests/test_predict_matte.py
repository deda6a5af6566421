"""The guided filter against its definition; alphas and colours against a truth."""

import cv2
import numpy as np
import pytest

from predict.background import estimate_foreground
from predict.mask import fit_lines, matte


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


def test_an_alpha_is_nearer_to_the_truth_than_the_probability():
    image, soft, disk = scene(200, 240)
    truth = cv2.GaussianBlur(disk.astype(np.float32), (0, 0), 0.7)
    alpha = matte(soft, image, 0.5)
    assert np.abs(alpha - truth).sum() < 0.4 * np.abs(soft - truth).sum()
    wrong, was = (
        sum(np.square(np.gradient(one)[k] - np.gradient(truth)[k]).sum() for k in (0, 1)) for one in (alpha, soft)
    )
    assert wrong < 0.6 * was
    far = (soft < 1e-3) | (soft > 1 - 1e-3)
    assert far.mean() > 0.5
    assert np.abs(alpha - (soft > 0.5))[far].max() < 0.02


def test_the_threshold_moves_the_edge():
    _, soft, _ = scene(200, 240)
    grey = np.full((200, 240, 3), 128, np.uint8)
    area = [matte(soft, grey, threshold).mean() for threshold in (0.2, 0.5, 0.8)]
    assert area[0] > 1.02 * area[1] > 1.04 * area[2]


def test_colours_along_the_edge_are_the_foregrounds():
    alpha = cv2.GaussianBlur((np.hypot(*np.mgrid[-80:80, -90:90]) < 40).astype(np.float32), (0, 0), 1)
    front, back = np.array((200, 40, 30)), np.array((20, 60, 220))
    image = np.rint(alpha[..., None] * front + (1 - alpha[..., None]) * back).astype(np.uint8)
    colours = estimate_foreground(image, np.rint(255 * alpha).astype(np.uint8))
    edge = (alpha > 0.1) & (alpha < 0.9)
    off = [np.abs(one[edge] - front).mean() for one in (colours.astype(float), image.astype(float))]
    assert off[0] < 0.6 * off[1]
    assert np.array_equal(colours[alpha > 0.999], image[alpha > 0.999])


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_mask_without_an_edge_is_wholly_clear_or_opaque(value):
    image, mask, _ = scene(60, 50)
    mask[:] = value
    assert set(np.unique(matte(mask, image, 0.5))) == {float(value > 0.5)}


def test_a_photo_of_one_colour_gives_numbers():
    _, mask, _ = scene(60, 50)
    assert np.isfinite(matte(mask, np.full((60, 50, 3), 255, np.uint8), 0.5)).all()


def test_small_persons_stay():
    truth = np.zeros((480, 640), np.uint8)
    for x in range(60, 640, 130):  # 6 pixels wide; without a limit the window would be 49 pixels wide
        cv2.rectangle(truth, (x, 200), (x + 5, 219), 1, -1)
    texture = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 120, (480, 640, 3)), (0, 0), 2)
    image = np.where(truth[..., None], (150, 110, 90), (110, 130, 150)) + texture
    probability = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 2)
    person = matte(probability, image.clip(0, 255).astype(np.uint8), 0.3) > 0.5
    assert (person & (truth > 0)).sum() > 0.9 * (person | (truth > 0)).sum()
