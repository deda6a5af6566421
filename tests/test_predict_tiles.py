"""A second look at parts of a photo: what it finds, what it must not spoil, and how much it asks of the network."""

import itertools

import numpy as np
import pytest
import torch

from predict.mask import find_persons, fit_square
from predict.tiles import look_again

SIDE = 96


class Network:
    """Answers by a function from images `(N, 3, S, S)`, 0 to 255, to probabilities `(N, S, S)`."""

    device = "cpu"

    def __init__(self, answer):
        self.answer, self.batches = answer, []

    def __call__(self, image_N3SS):
        self.batches.append(len(image_N3SS))
        return self.answer(image_N3SS.float()).clamp(0.001, 0.999).logit()[:, None]


def look(answer, pixels, tiles, fit="letterbox", batch_size=4):
    """The probabilities without and with tiles, of the photo alone, and the network that was asked."""
    network = Network(answer)
    square = fit_square(pixels, SIDE, fit)
    (whole,) = find_persons(network, [square])
    network.batches.clear()
    probability, box = look_again(network, pixels, (whole, square.box), tiles, batch_size)
    assert probability.dtype == np.float32
    return whole[square.box.slices], probability[box.slices], network


def smooth(height, width):
    """A photo whose colours change slowly."""
    x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    return np.stack([127 + 90 * np.sin(x + 2 * y), 127 + 90 * np.cos(y - x), 60 + 40 * x], 2).astype(np.uint8)


def brightness(image_N3SS):
    return image_N3SS.mean(1) / 255


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
@pytest.mark.parametrize("tiles", [2, 3, 6])
@pytest.mark.parametrize("size", [(480, 640), (901, 500), (500, 500)])
def test_a_network_that_looks_at_colours_gives_the_same(tiles, fit, size):
    pixels = smooth(*size)
    whole, parts, _ = look(brightness, pixels, tiles, fit)
    assert max(parts.shape) == (3 * tiles + 1) * SIDE // 4 > max(whole.shape)
    rows, columns = (np.arange(length) * size[axis] // length for axis, length in enumerate(parts.shape))
    assert np.abs(parts - pixels.mean(2)[np.ix_(rows, columns)] / 255).max() < 0.02


def test_seams_between_parts_are_not_visible():
    """By a network that answers otherwise on the left of its square than on the right."""
    ramp = torch.linspace(0.05, 0.95, SIDE).expand(SIDE, SIDE)
    _, parts, _ = look(lambda image_N3SS: ramp.expand(len(image_N3SS), SIDE, SIDE), smooth(300, 640), 4)
    assert np.abs(np.diff(parts)).max() < 0.06, "parts that are only laid side by side would jump by 0.6"
    assert np.abs(np.diff(parts, axis=0)).max() < 0.01


def test_a_person_whom_only_the_parts_show_is_found():
    pixels = np.full((480, 640, 3), 20, np.uint8)
    pixels[300:304, 500:504] = 250
    whole, parts, _ = look(lambda image_N3SS: (image_N3SS[:, 1] > 127).float(), pixels, 6)
    assert whole.max() < 0.01
    rows, columns = np.nonzero(parts > 0.5)
    scale = 640 / parts.shape[1]
    assert abs(rows.mean() * scale - 302) < 3
    assert abs(columns.mean() * scale - 502) < 3
    assert np.count_nonzero(parts > 0.01) < 0.001 * parts.size


def test_a_large_person_is_not_lost_where_a_part_shows_only_a_piece():
    """By a network that takes what is bright for a person unless it fills the square."""

    def answer(image_N3SS):
        bright_NSS = (image_N3SS[:, 1] > 127).float()
        return bright_NSS * (bright_NSS.mean((1, 2), keepdim=True) < 0.7)

    pixels = np.full((480, 640, 3), 20, np.uint8)
    pixels[90:, 120:520] = 250
    whole, parts, _ = look(answer, pixels, 5)
    assert whole[-10:, 40:50].min() > 0.9
    centre = parts[parts.shape[0] // 2 :, parts.shape[1] * 2 // 5 : parts.shape[1] * 3 // 5]
    assert centre.min() > 0.3
    assert parts[: parts.shape[0] // 8].max() < 0.1


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_parts_go_through_the_network_in_batches(fit, batch_size):
    _, expected, _ = look(brightness, smooth(480, 640), 4, fit)
    _, parts, network = look(brightness, smooth(480, 640), 4, fit, batch_size)
    number = 4 * (3 if fit == "letterbox" else 4)
    assert sum(network.batches) == number
    assert max(network.batches) == min(batch_size, number)
    np.testing.assert_allclose(parts, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("fit", "size"), list(itertools.product(["letterbox", "stretch"], [(1, 5000), (5000, 1), (97, 901)]))
)
def test_photos_of_any_shape(fit, size):
    pixels = np.full((*size, 3), 102, np.uint8)
    _, parts, network = look(brightness, pixels, 16, fit)
    assert sum(network.batches) <= 16 * 16
    assert parts.size <= (49 / 4 * SIDE) ** 2
    np.testing.assert_allclose(parts, 0.4, atol=0.01)


@pytest.mark.parametrize("size", [(1, 1), (40, 60), (96, 96), (3, 119)])
def test_a_small_photo_has_no_parts(size):
    whole, parts, network = look(brightness, np.full((*size, 3), 102, np.uint8), 5)
    assert network.batches == []
    np.testing.assert_array_equal(whole, parts)


def test_a_photo_is_never_enlarged_much():
    shapes = [look(brightness, smooth(300, 400), tiles)[1].shape for tiles in (1, 2, 6, 7, 16)]
    assert shapes == [(72, 96), (126, 168), (342, 456), (396, 528), (396, 528)]
