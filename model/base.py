"""The base of every network here: it takes uint8 images, normalises them itself and gives one logit per pixel.

Tensor suffixes: N images, 3 RGB, 4 RGB and one channel of zeros, 1 the person logit, C features, H and W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cache.messages import UserError, listed

# The usual statistics of ImageNet's photos, as fractions of full intensity, in RGB order.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The share of person pixels that an untrained network predicts, so that the first steps are not spent on learning
# that most of a photo is background.
PERSON_PRIOR = 0.2


class Normalise(nn.Module):
    """uint8 RGB to centred floats, with a fourth channel of zeros, in `memory_format`.

    Tensor cores want channel counts that are multiples of 4 or 8, hence the fourth channel. It costs the first
    convolution 9 weights per output channel (out of 36) that only ever see zeros.

    Args:
        mean, std: of each channel, as fractions of full intensity.
        padded: whether to add the fourth channel; pretrained weights have no place for it.
    """

    scale_1311: Tensor
    shift_1311: Tensor

    def __init__(
        self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD, *, padded: bool = True
    ) -> None:
        super().__init__()
        self.memory_format = torch.contiguous_format
        self._padded = padded
        mean_1311 = torch.tensor(mean).view(1, 3, 1, 1)
        std_1311 = torch.tensor(std).view(1, 3, 1, 1)
        # Saved with the weights: a checkpoint then says itself how its input was scaled.
        self.register_buffer("scale_1311", 1 / (255 * std_1311))
        self.register_buffer("shift_1311", mean_1311 / std_1311)

    def forward(self, image_N3HW: Tensor) -> Tensor:
        """Give `image_N4HW`, or `image_N3HW`, in the dtype of the buffers; under autocast the first conv narrows it."""
        # No copy when the image already has this layout, as the loaders' batches do.
        image_N3HW = image_N3HW.contiguous(memory_format=self.memory_format)
        image_N3HW = image_N3HW.to(self.scale_1311.dtype) * self.scale_1311 - self.shift_1311
        return F.pad(image_N3HW, (0, 0, 0, 0, 0, 1)) if self._padded else image_N3HW


class SegmentationNetwork(nn.Module, ABC):
    """A network from uint8 images to person logits of the same height and width.

    Subclasses set `stride` and compute `features`; normalisation, the 1x1 head and the check of the side are here.

    Args:
        head_width: channels of the features.
        mean, std, padded: see `Normalise`.
    """

    stride: int
    """Height and width must be multiples of this many pixels."""

    def __init__(
        self,
        head_width: int,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        padded: bool = True,
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std, padded=padded)
        self.head = nn.Conv2d(head_width, 1, kernel_size=1)

    @abstractmethod
    def features(self, image_N4HW: Tensor) -> Tensor:
        """Give the features under the head, `(N, head_width, H, W)`, from the normalised image."""

    def set_memory_format(self, memory_format: torch.memory_format) -> None:
        """Put the weights into `memory_format`, and from now on each image too; features and gradients follow.

        `Module.to` alone is not enough: it doesn't reach the images. Call this before building the optimizer.
        """
        self.to(memory_format=memory_format)  # type: ignore[call-overload]  # torch's stubs leave this argument out
        self.normalise.memory_format = memory_format

    def forward(self, image_N3HW: Tensor) -> Tensor:
        """Give `logits_N1HW` for `image_N3HW` (uint8 RGB, 0..255), in the autocast dtype or that of the weights.

        Raises `ValueError` when the height or the width is not a multiple of `stride`.
        """
        check_side(self, image_N3HW.shape[2], name="height")
        check_side(self, image_N3HW.shape[3], name="width")
        logits_N1HW: Tensor = self.head(self.features(self.normalise(image_N3HW)))
        return logits_N1HW


def check_side(network: SegmentationNetwork, side: int, name: str = "side") -> None:
    """Raise `ValueError` when `network` can't take images of `side` pixels, naming the nearest sides that it can."""
    stride = network.stride
    if side > 0 and side % stride == 0:
        return
    below = side // stride * stride
    nearest = listed([below, below + stride] if below > 0 else [stride], "or")
    values = {"name": name, "side": side, "stride": stride, "nearest": nearest}
    raise UserError("{name}={side} is not a multiple of {stride}; use {nearest}", **values)
