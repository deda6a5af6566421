import numpy as np
import pytest

from loader.augment import LEVELS, AugmentConfig, draw_parameters

SAMPLES = np.arange(2000)


def test_parameters_depend_on_seed_epoch_and_sample_only():
    config = LEVELS["heavy"]
    whole = draw_parameters(config, 128, seed=1, epoch=2, samples=SAMPLES)
    picked = np.array([1999, 3, 3, 700])
    part = draw_parameters(config, 128, seed=1, epoch=2, samples=picked)
    for all_of, some in zip(whole, part, strict=True):
        np.testing.assert_array_equal(some, all_of[picked])
    for other in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}):
        assert (draw_parameters(config, 128, samples=SAMPLES, **other).matrix != whole.matrix).any(axis=(1, 2)).all()


def test_none_is_the_identity():
    matrix, colour = draw_parameters(LEVELS["none"], 64, seed=0, epoch=0, samples=SAMPLES[:5])
    np.testing.assert_allclose(matrix, np.broadcast_to(np.eye(2, 3), (5, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(colour, np.broadcast_to(np.eye(3, 4), (5, 3, 4)), atol=1e-6)
    assert LEVELS["none"].identity
    assert not LEVELS["light"].identity


def test_draws_fill_their_ranges_evenly():
    config = AugmentConfig(flip=0.5, zoom=(0.5, 2.0), rotate=30.0)
    matrix, _ = draw_parameters(config, 100, seed=0, epoch=0, samples=SAMPLES)
    linear = matrix[:, :, :2].astype(np.float64)
    determinant = np.linalg.det(linear)
    zoom = 1 / np.sqrt(np.abs(determinant))
    assert zoom.min() == pytest.approx(0.5, rel=0.01)
    assert zoom.max() == pytest.approx(2.0, rel=0.01)
    assert (determinant < 0).mean() == pytest.approx(0.5, abs=0.04), "half are mirrored"
    angle = np.degrees(np.arctan2(-linear[:, 0, 1], linear[:, 1, 1]))
    assert np.abs(angle).max() == pytest.approx(30, abs=0.2)
    counts, _ = np.histogram(angle, 10, (-30, 30))
    assert counts.min() > 140, "200 expected in each tenth"


def test_without_rotation_the_window_stays_within_the_picture():
    config = AugmentConfig(flip=0.5, zoom=(1.0, 3.0))
    matrix, _ = draw_parameters(config, 96, seed=0, epoch=0, samples=SAMPLES)
    corners = np.array([[0, 0, 1], [96, 96, 1], [0, 96, 1], [96, 0, 1]], np.float32)
    where = np.einsum("nij,kj->nki", matrix, corners)
    assert where.min() >= -1e-3
    assert where.max() <= 96 + 1e-3
    assert where.reshape(-1, 2).std(0).min() > 30, "and is not always at the same place"


def test_colour_is_brightness_then_contrast_then_saturation():
    config = AugmentConfig(brightness=0.3, contrast=0.3, saturation=0.5)
    _, colour = draw_parameters(config, 64, seed=0, epoch=0, samples=SAMPLES[:200])
    rgb = np.random.default_rng(0).uniform(0, 255, 3)
    luma = np.array([0.299, 0.587, 0.114])
    seen = []
    for map_ in colour.astype(np.float64):
        gray = map_[:, :3] @ np.ones(3)
        np.testing.assert_allclose(gray, gray[0], atol=1e-5)  # gray stays gray
        gain = gray[0]
        contrast = 1 - map_[0, 3] / 127.5
        brightness = gain / contrast
        before = (rgb * brightness - 127.5) * contrast + 127.5
        after = map_[:, :3] @ rgb + map_[:, 3]
        np.testing.assert_allclose(luma @ after, luma @ before, rtol=1e-4)  # saturation keeps luma
        saturation = (after - luma @ after) / (before - luma @ before)
        np.testing.assert_allclose(saturation, saturation[0], rtol=1e-3)
        seen.append((brightness, contrast, saturation[0]))
    low, high = np.min(seen, 0), np.max(seen, 0)
    np.testing.assert_allclose(low, [0.7, 0.7, 0.5], atol=0.02)
    np.testing.assert_allclose(high, [1.3, 1.3, 1.5], atol=0.02)


@pytest.mark.parametrize(
    "fields", [{"flip": 1.5}, {"zoom": (2.0, 1.0)}, {"zoom": (0.0, 1.0)}, {"rotate": -1}, {"contrast": 1.0}]
)
def test_impossible_settings_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        AugmentConfig(**fields)
