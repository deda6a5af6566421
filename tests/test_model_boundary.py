"""Tensor suffixes: N images, 1 plane, H and W pixels, 4 the counts."""

from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.metrics import BoundaryScores, boundary_tolerance, count_boundary

fuzz = settings(derandomize=True, database=None, deadline=None, max_examples=150)


def planes_of(count: int, height: int, width: int, seed: int, smooth: int, ignored: float) -> tuple[Tensor, ...]:
    """Predicted, person and ignore planes: blobs, the larger the more `smooth`; prediction and truth are akin."""
    random = np.random.default_rng(seed)

    def blobs(noise_NHW: np.ndarray, share: float) -> Tensor:
        soft_NHW = np.stack([cv2.blur(noise_HW, (smooth, smooth)) for noise_HW in noise_NHW])
        return torch.from_numpy(soft_NHW < np.quantile(soft_NHW, share)).to(torch.uint8)[:, None]

    noise_NHW = random.random((count, height, width))
    other_NHW = noise_NHW + 0.3 * random.random((count, height, width))
    return blobs(other_NHW, 0.45), blobs(noise_NHW, 0.45), blobs(random.random((count, height, width)), ignored)


@st.composite
def planes(draw: st.DrawFn, most: int = 30) -> tuple[Tensor, ...]:
    return planes_of(
        count=draw(st.integers(1, 3)),
        height=draw(st.integers(1, most)),
        width=draw(st.integers(1, most)),
        seed=draw(st.integers(0, 2**32)),
        smooth=draw(st.sampled_from([1, 3, 7])),
        ignored=draw(st.sampled_from([0.0, 0.02, 0.2, 0.9, 1.0])),
    )


def opencv_counts(predicted_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor, tolerance: int) -> list[int]:
    """By OpenCV's erosion and dilation, image for image. Both leave what is beyond the image out."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    steps = np.arange(-tolerance, tolerance + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= tolerance**2).astype(np.uint8)
    counts = np.zeros(4, np.int64)
    for image in zip(predicted_N1HW.numpy(), person_N1HW.numpy(), ignore_N1HW.numpy(), strict=True):
        predicted, person, ignore = (np.ascontiguousarray(plane_1HW[0]) for plane_1HW in image)
        blocked = cv2.dilate(ignore, cross) != 0
        edges = [((mask - cv2.erode(mask, cross)) * ~blocked).astype(np.uint8) for mask in (predicted, person)]
        near = [cv2.dilate(edge, disk) for edge in edges]
        for at, other in ((0, 1), (1, 0)):
            counts[2 * at] += np.count_nonzero(edges[at])
            counts[2 * at + 1] += np.count_nonzero(edges[at] & near[other])
    return counts.tolist()


def defined_counts(predicted_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor, tolerance: int) -> list[int]:
    """By the definition, pixel for pixel and pair for pair."""
    counts = np.zeros(4, np.int64)
    for image in zip(predicted_N1HW.numpy(), person_N1HW.numpy(), ignore_N1HW.numpy(), strict=True):
        *masks, ignore = (plane_1HW[0] for plane_1HW in image)
        height, width = ignore.shape
        edges: list[list[tuple[int, int]]] = [[], []]
        for y, x in np.ndindex(height, width):
            around = [(y, x), (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            around = [(row, column) for row, column in around if 0 <= row < height and 0 <= column < width]
            for mask, edge in zip(masks, edges, strict=True):
                if mask[y, x] and not all(mask[at] for at in around) and not any(ignore[at] for at in around):
                    edge.append((y, x))
        for ours, theirs, at in ((*edges, 0), (*edges[::-1], 2)):
            counts[at] += len(ours)
            counts[at + 1] += sum(
                any((y - row) ** 2 + (x - column) ** 2 <= tolerance**2 for row, column in theirs) for y, x in ours
            )
    return counts.tolist()


@fuzz
@given(planes(), st.integers(0, 12))
def test_counts_equal_those_of_opencv(batch, tolerance):
    boundary_4 = count_boundary(*batch, tolerance)
    assert boundary_4.dtype == torch.int64
    assert boundary_4.tolist() == opencv_counts(*batch, tolerance)


@settings(fuzz, max_examples=40)
@given(planes(most=10), st.integers(0, 5))
def test_counts_equal_the_definition(batch, tolerance):
    assert count_boundary(*batch, tolerance).tolist() == defined_counts(*batch, tolerance)


@settings(fuzz, max_examples=40)
@given(planes(), st.integers(0, 6))
def test_counts_turn_with_the_image_and_swap_with_the_masks(batch, tolerance):
    predicted_N1HW, person_N1HW, ignore_N1HW = batch
    counts = count_boundary(*batch, tolerance).tolist()
    assert count_boundary(*(plane.mT for plane in batch), tolerance).tolist() == counts
    assert count_boundary(*(plane.flip(2, 3) for plane in batch), tolerance).tolist() == counts
    swapped = count_boundary(person_N1HW, predicted_N1HW, ignore_N1HW, tolerance).tolist()
    assert swapped == [*counts[2:], *counts[:2]]
    assert count_boundary(predicted_N1HW.bool(), person_N1HW, 7 * ignore_N1HW, tolerance).tolist() == counts


def square(side: int, top: int, left: int, size: int) -> Tensor:
    plane_N1HW = torch.zeros((1, 1, side, side), dtype=torch.uint8)
    plane_N1HW[:, :, top : top + size, left : left + size] = 1
    return plane_N1HW


def test_a_mask_matches_itself():
    mask_N1HW = square(20, 5, 6, 8)
    assert count_boundary(mask_N1HW, mask_N1HW, 0 * mask_N1HW, 0).tolist() == [28, 28, 28, 28]


def test_a_shifted_mask_matches_from_the_tolerance_on():
    """The left and right sides are 3 apart; of the others, all but the corners' surroundings lie on each other."""
    left_N1HW, right_N1HW = square(40, 10, 10, 16), square(40, 10, 13, 16)
    none_N1HW = 0 * left_N1HW
    for tolerance, matched in ((0, 26), (1, 2 * (13 + 1 + 1)), (2, 2 * (13 + 2 + 2)), (3, 60)):
        assert count_boundary(left_N1HW, right_N1HW, none_N1HW, tolerance).tolist() == [60, matched, 60, matched]


def test_the_images_border_is_no_boundary():
    everywhere_N1HW = torch.ones((2, 1, 9, 7), dtype=torch.uint8)
    assert count_boundary(everywhere_N1HW, everywhere_N1HW, 0 * everywhere_N1HW, 2).tolist() == [0, 0, 0, 0]
    corner_N1HW = square(8, 0, 0, 3)
    assert count_boundary(corner_N1HW, corner_N1HW, 0 * corner_N1HW, 0).tolist() == [5, 5, 5, 5]


def test_the_edge_of_an_ignored_region_is_no_boundary():
    """As beside a crowd or a letterbox's padding: the mask ends there because the truth is not known further on."""
    ignore_N1HW = square(16, 4, 0, 16)  # from row 4 down
    person_N1HW = square(16, 0, 4, 8) * (1 - ignore_N1HW)  # ends at row 4
    sides = 2 * 3  # rows 0 to 2: row 3 has an ignored neighbour
    assert count_boundary(person_N1HW, person_N1HW, ignore_N1HW, 1).tolist() == [sides] * 4
    beyond_N1HW = person_N1HW | square(16, 4, 4, 8)
    assert count_boundary(beyond_N1HW, person_N1HW, ignore_N1HW, 1).tolist() == [sides] * 4


def test_images_do_not_match_each_other():
    mask_N1HW = square(12, 3, 3, 5)
    empty_N1HW = 0 * mask_N1HW
    batch = torch.cat((mask_N1HW, empty_N1HW)), torch.cat((empty_N1HW, mask_N1HW))
    assert count_boundary(*batch, torch.cat((empty_N1HW, empty_N1HW)), 12).tolist() == [16, 0, 16, 0]


@pytest.mark.parametrize(
    ("height", "width", "tolerance"),
    [(384, 384, 5), (256, 256, 3), (512, 512, 6), (480, 854, 8), (32, 32, 1), (1, 1, 1)],
)
def test_tolerance_is_that_of_davis(height, width, tolerance):
    assert boundary_tolerance(height, width) == tolerance


@pytest.mark.parametrize(
    ("counts", "f", "precision", "recall"),
    [
        ((0, 0, 0, 0), 1, 1, 1),  # no boundary, none predicted
        ((5, 0, 0, 0), 0, 0, 0),  # no boundary
        ((0, 0, 5, 0), 0, 0, 0),  # none predicted
        ((5, 0, 5, 0), 0, 0, 0),
        ((5, 5, 8, 8), 1, 1, 1),
        ((4, 3, 8, 2), 2 * 0.75 * 0.25 / (0.75 + 0.25), 0.75, 0.25),
    ],
)
def test_scores_of_counts(counts, f, precision, recall):
    expected = BoundaryScores(f=f, precision=precision, recall=recall)
    assert asdict(BoundaryScores.from_counts(*counts)) == pytest.approx(asdict(expected))


def test_refuses_to_broadcast():
    predicted_N1HW, person_N1HW, ignore_N1HW = planes_of(2, 8, 8, seed=0, smooth=3, ignored=0.1)
    with pytest.raises(AssertionError, match="broadcast"):
        count_boundary(predicted_N1HW, person_N1HW, ignore_N1HW[:1], 1)


def test_never_reads_the_device_and_compiles():
    """Meta tensors have no values: whatever would read one on the host raises."""
    batch = planes_of(2, 24, 32, seed=0, smooth=3, ignored=0.1)
    assert count_boundary(*(plane.to("meta") for plane in batch), 3).shape == (4,)
    torch.compiler.reset()
    compiled = torch.compile(count_boundary, backend="aot_eager", fullgraph=True, dynamic=False)
    assert torch.equal(compiled(*batch, 3), count_boundary(*batch, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_counts_the_same_on_the_gpu():
    batch = planes_of(4, 96, 96, seed=0, smooth=7, ignored=0.1)
    boundary_4 = count_boundary(*(plane.cuda() for plane in batch), 3)
    assert boundary_4.device.type == "cuda"
    assert boundary_4.tolist() == count_boundary(*batch, 3).tolist()
