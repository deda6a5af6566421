"""The losses of training: weighted sums of terms, each 0 for a perfect prediction.

Tensor suffixes: N images, 1 the person logit or plane, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from cache.choices import LossName

# Pixels added to both sides of the Dice fraction: no 0/0 where nobody is, and no effect where somebody is.
DICE_SMOOTHING = 1.0

# The power of a pixel's error in the focal loss, by which nearly right pixels count less. Lin et al. found this value
# best.
FOCAL_GAMMA = 2.0

Term = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A scalar of the three tensors that `valid_pixels` gives, pooled over the valid pixels of a batch.

Without any valid pixel a term is 0, and so are its gradients.
"""


class Loss(Protocol):
    """A loss: logits, and the two planes of a batch (uint8, 0 or 1), to a float32 scalar.

    It is pooled over all valid pixels of the batch, as the metrics are, in fp32 whatever autocast says. Pixels whose
    `ignore_N1HW` is not 0 count for nothing, and their logits (any float dtype) get a gradient of exactly zero, even
    where a logit is not finite. When every pixel is ignored, the loss is 0, with zero gradients.
    """

    def __call__(self, logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> Tensor:
        """Give the loss over the pixels that are not ignored."""
        ...


def valid_pixels(logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give float32 `logits_N1HW`, `person_N1HW` and `weight_N1HW` (1 where a pixel counts), 0 where it does not."""
    assert logits_N1HW.shape == person_N1HW.shape == ignore_N1HW.shape, "logits and planes must not broadcast"
    valid_N1HW = ignore_N1HW == 0
    weight_N1HW = valid_N1HW.float()
    # Filling the logit, not the loss, keeps the gradient zero where 0 * inf would make it NaN.
    return logits_N1HW.float().masked_fill(~valid_N1HW, 0.0), person_N1HW.float() * weight_N1HW, weight_N1HW


def cross_entropy(logits_N1HW: Tensor, person_N1HW: Tensor, weight_N1HW: Tensor) -> Tensor:
    """Give the mean binary cross-entropy."""
    # The stable form, max(x, 0) - x * y + log(1 + exp(-|x|)), holds for logits of any size.
    bce_sum = F.binary_cross_entropy_with_logits(logits_N1HW, person_N1HW, weight_N1HW, reduction="sum")
    return bce_sum / weight_N1HW.sum().clamp(min=1.0)


def soft_dice(logits_N1HW: Tensor, person_N1HW: Tensor, weight_N1HW: Tensor) -> Tensor:
    """Give 1 - soft Dice (Milletari et al. 2016, "V-Net").

    It is one fraction for the whole batch. Dice for each sample on its own would let an image without a person (where
    one false pixel moves the loss from 0 to nearly 1) outweigh all others.
    """
    probability_N1HW = logits_N1HW.sigmoid() * weight_N1HW
    overlap = (probability_N1HW * person_N1HW).sum()
    total = probability_N1HW.sum() + person_N1HW.sum()
    return 1 - (2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)


def focal(logits_N1HW: Tensor, person_N1HW: Tensor, weight_N1HW: Tensor, *, gamma: float = FOCAL_GAMMA) -> Tensor:
    """Give the mean focal loss (Lin et al. 2017, "Focal loss for dense object detection").

    That is `-0.5 * (1 - p) ** gamma * log(p)`, p being the probability given to the true class. Lin et al. give a
    person's pixel 0.25, for boxes of which one in thousands holds an object, which moves the best threshold of the
    probability from a half; here about one pixel in five is a person, and the metrics and `predict` use a half. They
    divide by the number of objects; here it is divided by the number of pixels, as the cross-entropy is.

    Args:
        logits_N1HW: 0 where `weight_N1HW` is.
        person_N1HW: 0 or 1, nothing between.
        weight_N1HW: 1 where a pixel counts, else 0.
        gamma: power of the error; 0 leaves the cross-entropy.
    """
    right_N1HW = logits_N1HW * (2 * person_N1HW - 1)  # the logit of p
    # log(1 - p) = -softplus(right) and log(p) = -softplus(-right) hold for logits of any size; and the exponential of
    # the first has a gradient even at p = 1, where that of a power below 1 has none.
    error_N1HW = (-gamma * F.softplus(right_N1HW)).exp()
    focal_sum = (0.5 * weight_N1HW * error_N1HW * F.softplus(-right_N1HW)).sum()
    return focal_sum / weight_N1HW.sum().clamp(min=1.0)


def weighted_sum(
    terms: tuple[tuple[float, Term], ...], logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor
) -> Tensor:
    """Give the sum of (weight, term) as `Loss` says."""
    with torch.autocast(device_type=logits_N1HW.device.type, enabled=False):
        pixels = valid_pixels(logits_N1HW, person_N1HW, ignore_N1HW)
        return torch.stack([weight * term(*pixels) for weight, term in terms]).sum()


bce_dice: Loss = partial(weighted_sum, ((1.0, cross_entropy), (1.0, soft_dice)))
"""Binary cross-entropy plus 1 - soft Dice."""

LOSSES: dict[LossName, Loss] = {
    "bce": partial(weighted_sum, ((1.0, cross_entropy),)),
    "bce_dice": bce_dice,
    "dice": partial(weighted_sum, ((1.0, soft_dice),)),
    "focal": partial(weighted_sum, ((1.0, focal),)),
    # 20 to 1 is the mixture of Kirillov et al. 2023, "Segment anything": a focal loss is small by its nature, and at
    # 1 to 1 it would be Dice alone.
    "focal_dice": partial(weighted_sum, ((20.0, focal), (1.0, soft_dice))),
}
