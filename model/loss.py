"""What training minimises: sums of the terms in `model.loss_terms`.

Tensor suffixes: N images, 1 the person logit or plane, H and W pixels.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from cache.choices import LossName
from model.loss_terms import Term, cross_entropy, soft_dice, valid_pixels
from model.loss_terms import focal as focal_term


class Loss(Protocol):
    """A loss: logits, and the two planes of a batch (uint8, 0 or 1), to a float32 scalar.

    It is pooled over all valid pixels of the batch, as the metrics are, in fp32 whatever autocast says. Pixels whose
    `ignore_N1HW` is not 0 count for nothing, and their logits (any float dtype) get a gradient of exactly zero, even
    where a logit is not finite. When every pixel is ignored, the loss is 0, with zero gradients.
    """

    def __call__(self, logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> Tensor:
        """Give the loss over the pixels that are not ignored."""
        ...


def bce(logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> Tensor:
    """Binary cross-entropy; see `Loss`."""
    return _sum(logits_N1HW, person_N1HW, ignore_N1HW, (1.0, cross_entropy))


def dice(logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> Tensor:
    """1 - soft Dice; see `Loss`."""
    return _sum(logits_N1HW, person_N1HW, ignore_N1HW, (1.0, soft_dice))


def focal(logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> Tensor:
    """Focal loss with gamma 2 and, unlike the paper, alpha 0.5 (`model.loss_terms` says why); see `Loss`."""
    return _sum(logits_N1HW, person_N1HW, ignore_N1HW, (1.0, focal_term))


def bce_dice(
    logits_N1HW: Tensor,
    person_N1HW: Tensor,
    ignore_N1HW: Tensor,
    *,
    bce_weight: float = 1.0,
    dice_weight: float = 1.0,
) -> Tensor:
    """Binary cross-entropy times `bce_weight`, plus 1 - soft Dice times `dice_weight`; see `Loss`."""
    return _sum(logits_N1HW, person_N1HW, ignore_N1HW, (bce_weight, cross_entropy), (dice_weight, soft_dice))


def focal_dice(
    logits_N1HW: Tensor,
    person_N1HW: Tensor,
    ignore_N1HW: Tensor,
    *,
    focal_weight: float = 20.0,
    dice_weight: float = 1.0,
) -> Tensor:
    """Focal loss times `focal_weight`, plus 1 - soft Dice times `dice_weight`; see `Loss`.

    20 to 1 is the mixture of Kirillov et al. 2023, "Segment anything": a focal loss is small by its nature, and at 1
    to 1 it would be Dice alone.
    """
    return _sum(logits_N1HW, person_N1HW, ignore_N1HW, (focal_weight, focal_term), (dice_weight, soft_dice))


def _sum(logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor, *terms: tuple[float, Term]) -> Tensor:
    """Give the weighted sum of the terms as `Loss` says."""
    with torch.autocast(device_type=logits_N1HW.device.type, enabled=False):
        pixels = valid_pixels(logits_N1HW, person_N1HW, ignore_N1HW)
        return torch.stack([weight * term(*pixels) for weight, term in terms]).sum()


LOSSES: dict[LossName, Loss] = {
    "bce": bce,
    "bce_dice": bce_dice,
    "dice": dice,
    "focal": focal,
    "focal_dice": focal_dice,
}
