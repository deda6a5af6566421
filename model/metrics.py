"""How good a segmentation is, pooled over pixels.

Tensor suffixes: N images, 1 the person logit or plane, H and W pixels, 4 the counts (tp, fp, fn, tn).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Fractions from 0 to 1 over all counted pixels, "person" being the positive class.

    Where a fraction is 0/0: without any counted pixel all are 0, so that an empty validation never looks best. With
    pixels, but no person in them and none predicted, all are 1. Otherwise precision (nothing predicted) or recall
    (nobody there) is 0.
    """

    iou: float
    dice: float
    """Also known as F1."""
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
