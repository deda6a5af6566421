"""What training minimises.

Tensor suffixes: N images, 1 the person logit or plane, H and W pixels.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

# Pixels added to both sides of the Dice fraction: no 0/0 where nobody is, and no effect where somebody is.
DICE_SMOOTHING = 1.0


class Loss(Protocol):
    """A loss: logits, and the two planes of a batch (uint8, 0 or 1), to a float32 scalar."""

    def __call__(self, logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> Tensor:
        """Give the mean loss over the pixels that are not ignored."""
        ...


def bce_dice(
    logits_N1HW: Tensor,
    person_N1HW: Tensor,
    ignore_N1HW: Tensor,
    *,
    bce_weight: float = 1.0,
    dice_weight: float = 1.0,
) -> Tensor:
    """Binary cross-entropy plus soft Dice (Milletari et al. 2016, "V-Net"), in fp32 whatever autocast says.

    Both are pooled over all valid pixels of the batch, as the metrics are. Dice for each sample on its own would let
    an image without a person (where one false pixel moves the loss from 0 to nearly 1) outweigh all others.

    Args:
        logits_N1HW: any float dtype.
        person_N1HW: 1 where a person is, else 0.
        ignore_N1HW: pixels other than 0 count in neither term, and their logits get a gradient of exactly zero, even
            where a logit is not finite.
        bce_weight: factor of the cross-entropy.
        dice_weight: factor of `1 - Dice`.

    Returns:
        A float32 scalar; 0 with zero gradients when every pixel is ignored.
    """
    assert logits_N1HW.shape == person_N1HW.shape == ignore_N1HW.shape, "logits and planes must not broadcast"
    with torch.autocast(device_type=logits_N1HW.device.type, enabled=False):
        valid_N1HW = ignore_N1HW == 0
        # Filling the logit, not the loss, keeps the gradient zero where 0 * inf would make it NaN.
        logits_N1HW = logits_N1HW.float().masked_fill(~valid_N1HW, 0.0)
        weight_N1HW = valid_N1HW.float()
        person_N1HW = person_N1HW.float() * weight_N1HW

        # The stable form, max(x, 0) - x * y + log(1 + exp(-|x|)), holds for logits of any size.
        bce_sum = F.binary_cross_entropy_with_logits(logits_N1HW, person_N1HW, weight_N1HW, reduction="sum")
        bce = bce_sum / weight_N1HW.sum().clamp(min=1.0)

        probability_N1HW = logits_N1HW.sigmoid() * weight_N1HW
        overlap = (probability_N1HW * person_N1HW).sum()
        total = probability_N1HW.sum() + person_N1HW.sum()
        dice = (2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)
        return bce_weight * bce + dice_weight * (1 - dice)


LOSSES: dict[str, Loss] = {"bce_dice": bce_dice}
