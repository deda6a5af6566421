"""How good a segmentation is, pooled over all pixels; and how well its outline is placed: the boundary F-score.

The boundary F-score is after Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?", in the
form of Perazzi et al. 2016 (DAVIS): the outlines' pixels are matched by distance alone, any number of them to one.
Unlike DAVIS, which averages over frames, the pixels are pooled over all images, as those of the other scores are.

Tensor suffixes: N images, 1 the person logit or plane, H and W pixels, R and S those with a margin around the image, 4
the counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Share of the image's diagonal within which boundaries match, as in DAVIS's evaluation.
TOLERANCE = 0.008

# The bits of a pixel, so that one operation serves several planes.
PREDICTED, PERSON, VALID, INSIDE = 1, 2, 4, 8


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Fractions from 0 to 1 over all counted pixels, "person" being the positive class.

    Where a fraction is 0/0: without any counted pixel all are 0, so that an empty validation never looks best. With
    pixels, but no person in them and none predicted, all are 1. Otherwise precision (nothing predicted) or recall
    (nobody there) is 0.
    """

    iou: float
    dice: float  # also known as F1
    accuracy: float
    precision: float
    recall: float

    @classmethod
    def from_counts(cls, tp: int, fp: int, fn: int, tn: int) -> Scores:
        """Give the scores of these numbers of pixels."""
        seen = tp + fp + fn + tn
        perfect = float(seen > 0 and tp + fp + fn == 0)
        return cls(
            iou=tp / (tp + fp + fn) if tp + fp + fn else perfect,
            dice=2 * tp / (2 * tp + fp + fn) if tp + fp + fn else perfect,
            accuracy=(tp + tn) / seen if seen else 0.0,
            precision=tp / (tp + fp) if tp + fp else perfect,
            recall=tp / (tp + fn) if tp + fn else perfect,
        )


def count_pixels(logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> Tensor:
    """Give `counts_4` (tp, fp, fn, tn; int64, on the logits' device), without waiting for the device.

    A pixel is predicted a person when its logit is above 0, that is its probability above a half (NaN is not).
    Pixels whose `ignore_N1HW` is not 0 are left out. The planes are uint8, 0 or 1.
    """
    assert logits_N1HW.shape == person_N1HW.shape == ignore_N1HW.shape, "logits and planes must not broadcast"
    valid_N1HW = ignore_N1HW == 0
    predicted_N1HW = (logits_N1HW > 0) & valid_N1HW
    person_valid_N1HW = (person_N1HW != 0) & valid_N1HW
    tp = (predicted_N1HW & person_valid_N1HW).sum()
    fp = predicted_N1HW.sum() - tp
    fn = person_valid_N1HW.sum() - tp
    return torch.stack((tp, fp, fn, valid_N1HW.sum() - tp - fp - fn))


@dataclass(frozen=True, kw_only=True)
class BoundaryScores:
    """Fractions from 0 to 1.

    Where a fraction is 0/0: without any boundary, neither predicted nor true, all are 1. Otherwise precision (none
    predicted) or recall (none there) is 0.
    """

    f: float  # harmonic mean of precision and recall
    precision: float  # share of the predicted boundary that lies within the tolerance of the true one
    recall: float  # share of the true boundary that lies within the tolerance of the predicted one

    @classmethod
    def from_counts(cls, predicted: int, matched_predicted: int, true: int, matched_true: int) -> BoundaryScores:
        """Give the scores of these numbers of boundary pixels, the order being that of `count_boundary`."""
        perfect = float(predicted + true == 0)
        precision = matched_predicted / predicted if predicted else perfect
        recall = matched_true / true if true else perfect
        both = precision + recall
        return cls(f=2 * precision * recall / both if both else 0.0, precision=precision, recall=recall)


def boundary_tolerance(height: int, width: int) -> int:
    """Give the distance in pixels, at least 1, within which boundaries match in images of this size."""
    return max(1, math.ceil(TOLERANCE * math.hypot(height, width)))


def count_boundary(predicted_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor, tolerance: int) -> Tensor:
    """Give `boundary_4` (int64, on the planes' device), without waiting for the device.

    It counts the predicted boundary pixels, those of them within `tolerance` of a true one, the true boundary pixels,
    those of them within `tolerance` of a predicted one; distances are Euclidean, between the centres of pixels.

    A boundary pixel lies in the mask and has, above, below, left or right of it, one that does not. What is beyond the
    image counts as if it continued the mask, so a person cut off by the border has no boundary there. A pixel that is
    ignored, or has an ignored one on one of its four sides, is no boundary of either mask: there the mask's edge is
    that of a crowd region or of the padding.

    Args:
        predicted_N1HW: bool or uint8, 1 where a person is predicted.
        person_N1HW: uint8, 1 where a person is.
        ignore_N1HW: uint8, not 0 where a pixel does not count.
        tolerance: in pixels, 0 or more.
    """
    assert predicted_N1HW.shape == person_N1HW.shape == ignore_N1HW.shape, "planes must not broadcast"
    bits_N1HW = (
        (predicted_N1HW != 0).to(torch.uint8)
        | ((person_N1HW != 0).to(torch.uint8) << 1)
        | ((ignore_N1HW == 0).to(torch.uint8) << 2)
    )
    edges_N1RS = _edges(bits_N1HW, margin=tolerance)
    edges_N1HW = edges_N1RS[..., tolerance : tolerance + bits_N1HW.shape[2], tolerance : tolerance + bits_N1HW.shape[3]]
    near_N1HW = _dilate(edges_N1RS, radius=tolerance)
    # Each mask's boundary where the other's is near: the two bits change places.
    matched_N1HW = edges_N1HW & ((near_N1HW << 1) | (near_N1HW >> 1))
    counted = [pixels_N1HW & mask for mask in (PREDICTED, PERSON) for pixels_N1HW in (edges_N1HW, matched_N1HW)]
    return torch.stack([torch.count_nonzero(pixels_N1HW) for pixels_N1HW in counted])


def _edges(bits_N1HW: Tensor, margin: int) -> Tensor:
    """Keep the masks' bits of boundary pixels only; around the image comes a margin without any."""
    # Padded once and for all: a compiled graph computes what comes before a padding anew for every neighbour. Beyond
    # the image all bits are set, so that they decide nothing, but INSIDE.
    bits_N1RS = F.pad(bits_N1HW | INSIDE, [margin + 1] * 4, value=PREDICTED | PERSON | VALID)
    here, rows, columns = bits_N1RS[..., 1:-1, 1:-1], bits_N1RS[..., 1:-1], bits_N1RS[..., 1:-1, :]
    shared = here & rows[..., :-2, :] & rows[..., 2:, :] & columns[..., :-2] & columns[..., 2:]
    counts = (here >> 3) & (shared >> 2)  # 1 inside the image, where the pixel and all its neighbours are valid
    return (here & ~shared & (PREDICTED | PERSON)) * counts


def _dilate(edges_N1RS: Tensor, radius: int) -> Tensor:
    """Set each bit (uint8) within `radius` of a pixel that has it, and drop the margin, which is as wide.

    The disk is a stack of rows, the longest in the middle. So runs of pixels grow from one to the disk's diameter, and
    at each length are shifted up and down: some 4 operations on whole images for each pixel of the radius. At side 384
    this takes a fortieth of the time of a convolution with the disk.
    """
    height, width = edges_N1RS.shape[2] - 2 * radius, edges_N1RS.shape[3] - 2 * radius
    run = edges_N1RS.narrow(3, radius, width)
    near_N1HW = torch.zeros_like(run.narrow(2, radius, height))
    reach = 0
    for up in range(radius, -1, -1):
        while (reach + 1) ** 2 + up**2 <= radius**2:
            reach += 1
            run = run | edges_N1RS.narrow(3, radius - reach, width) | edges_N1RS.narrow(3, radius + reach, width)
        near_N1HW = near_N1HW | run.narrow(2, radius - up, height) | run.narrow(2, radius + up, height)
    return near_N1HW
