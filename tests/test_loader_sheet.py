import numpy as np
import pytest
import torch

from loader.batch import Batch
from loader.sheet import BACKGROUND, GAP, LABEL_HEIGHT, PERSON, WIDEST, contact_sheet


def make_batch(count=6, side=64, valid=None, person=None, ignore=None):
    """Flat pictures, each of its own gray: 10, 20, 30, ..."""
    gray = (10 * torch.arange(1, count + 1, dtype=torch.uint8)).view(-1, 1, 1, 1)
    image = gray.expand(count, 3, side, side).contiguous(memory_format=torch.channels_last)
    plane = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    person = plane if person is None else person
    ignore = plane if ignore is None else ignore
    valid = count if valid is None else valid
    return Batch(image=image, person=person, ignore=ignore, samples=np.arange(100, 100 + count), valid=valid, epoch=0)


def tile(sheet, number, columns, side):
    row, column = divmod(number, columns)
    y, x = GAP + row * (side + LABEL_HEIGHT + GAP), GAP + column * (side + GAP)
    return sheet[y : y + side, x : x + side]


def test_pictures_stand_in_reading_order_and_untouched_without_planes():
    sheet = contact_sheet(make_batch(6), columns=3)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (GAP + 2 * (64 + LABEL_HEIGHT + GAP), GAP + 3 * (64 + GAP), 3)
    for number in range(6):
        assert (tile(sheet, number, 3, 64) == 10 * (number + 1)).all()
    assert (sheet[:GAP] == BACKGROUND).all()
    assert (sheet[:, :GAP] == BACKGROUND).all()


def test_colours_are_rgb_in_the_order_of_the_batch():
    batch = make_batch(1)
    batch.image[0, 0] = 200
    assert (contact_sheet(batch)[GAP + 5, GAP + 5] == [200, 10, 10]).all()


def test_a_person_is_tinted_and_outlined_and_the_rest_is_not():
    person = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    person[1, 0, 16:48, 16:48] = 1
    sheet = contact_sheet(make_batch(2, person=person), columns=2)
    assert (tile(sheet, 0, 2, 64) == 10).all()
    drawn = tile(sheet, 1, 2, 64)
    assert (drawn[:14] == 20).all()
    assert (drawn[:, :14] == 20).all()
    inside = drawn[24:40, 24:40].reshape(-1, 3)
    assert (inside == inside[0]).all()
    red, green, blue = inside[0].astype(int) - 20
    assert red > blue > 0 > green, "towards the colour of persons"
    outline = drawn[16, 30].astype(int)
    assert np.abs(outline - PERSON).sum() < np.abs(inside[0].astype(int) - PERSON).sum() / 3


def test_ignored_pixels_are_hatched_gray():
    ignore = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    ignore[0, 0, :20] = 1
    batch = make_batch(1, ignore=ignore)
    batch.image[0, 1] = 250
    drawn = tile(contact_sheet(batch), 0, 1, 64)
    assert (drawn[20:] == [10, 250, 10]).all()
    colours = np.unique(drawn[:20].reshape(-1, 3), axis=0)
    assert len(colours) == 2, "two stripes"
    assert (np.ptp(colours, axis=1) < 100).all(), "much grayer than the picture"


def test_samples_that_only_fill_up_are_left_out():
    sheet = contact_sheet(make_batch(6, valid=2), columns=6)
    assert sheet.shape[1] == GAP + 6 * (64 + GAP)
    assert (tile(sheet, 1, 6, 64) == 20).all()
    assert (tile(sheet, 2, 6, 64) == BACKGROUND).all()


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (8, 4), (16, 4), (24, 6), (32, 8)])
def test_columns_leave_few_places_empty(count, columns):
    assert contact_sheet(make_batch(count, side=32)).shape[1] == GAP + columns * (32 + GAP)


def test_the_widest_sheet():
    assert WIDEST - 6 < contact_sheet(make_batch(6, side=512), columns=6).shape[1] <= WIDEST


def test_a_label_under_each_picture():
    sheet = contact_sheet(make_batch(2), columns=2)
    for column in range(2):
        x = GAP + column * (64 + GAP)
        assert sheet[GAP + 64 : GAP + 64 + LABEL_HEIGHT, x : x + 64].min() < 120
    assert (sheet[:, GAP + 64 : GAP + 64 + GAP] == BACKGROUND).all(), "it stays under its picture"


def test_a_batch_without_samples_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        contact_sheet(make_batch(2, valid=0))
