"""The blocks that the networks are made of, and how their weights start.

Tensor suffixes: N images, C channels, H and W pixels of this level, h and w those of the level below (half as many).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.base import PERSON_PRIOR, SegmentationNetwork


class ConvBN(nn.Module):
    """Convolution without bias, padded to keep the size at stride 1, then BatchNorm."""

    def __init__(self, width_in: int, width_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width_out)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Give the normalised features."""
        features_NCHW: Tensor = self.norm(self.conv(x_NCHW))
        return features_NCHW


class ConvBNReLU(ConvBN):
    """Convolution without bias, BatchNorm, ReLU."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Give the features, none below zero."""
        # In place is safe: BatchNorm's backward needs its input, never its output.
        return F.relu(super().forward(x_NCHW), inplace=True)


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with BatchNorm and ReLU: one level of the classic U-Net."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(ConvBNReLU(width_in, width_out), ConvBNReLU(width_out, width_out))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2015, "Deep residual learning", the basic block).

    Where the block halves the size, the shortcut averages 2x2 pixels before its 1x1 convolution instead of dropping
    three of four (He et al. 2018, "Bag of tricks", ResNet-D).
    """

    def __init__(self, width_in: int, width_out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = ConvBNReLU(width_in, width_out, stride=stride)
        self.last = ConvBN(width_out, width_out)
        shortcut: list[nn.Module] = []
        if stride > 1:
            shortcut.append(nn.AvgPool2d(stride))
        if stride > 1 or width_in != width_out:
            shortcut.append(ConvBN(width_in, width_out, kernel=1))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Give the block's output; at stride 2 it has half the height and width."""
        return F.relu(self.last(self.first(x_NCHW)) + self.shortcut(x_NCHW), inplace=True)


class _Repeat(torch.autograd.Function):
    """See `repeat`."""

    @staticmethod
    def forward(context: object, x_NChw: Tensor) -> Tensor:
        if x_NChw.stride(1) != 1:
            return F.interpolate(x_NChw, scale_factor=2.0, mode="nearest")
        # Of `F.interpolate` in here Inductor makes an NCHW buffer of floats; this goes straight into a concatenation.
        x_Nh2w2C = x_NChw.permute(0, 2, 3, 1)[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
        return x_Nh2w2C.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)

    @staticmethod
    def backward(context: object, gradient_NCHW: Tensor) -> Tensor:
        return F.avg_pool2d(gradient_NCHW, kernel_size=2, divisor_override=1)


repeat: Callable[[Tensor], Tensor] = _Repeat.apply
"""Repeats each pixel 2x2, in its memory format. Compiled for a GPU, the gradient of `F.interpolate` is an atomic
addition per pixel, into an NCHW buffer; this one is a sum of four."""


class UpNearest(nn.Module):
    """Twice the size: a 1x1 convolution with BatchNorm and ReLU where there are few pixels, then each repeated 2x2."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(width_in, width_out, kernel=1)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Give `(N, width_out, 2h, 2w)`."""
        return repeat(self.conv(x_NChw))


def concat(up_NCHW: Tensor, skip_NCHW: Tensor) -> Tensor:
    """Concatenate along the channels, both tensors being in one memory format.

    `torch.cat` silently takes mixed formats and gives NCHW, which slows down every convolution after it.
    """
    # In channels_last neighbouring channels lie side by side. The stride is also known where `torch.export` leaves a
    # size open, for which torch before 2.13 cannot tell whether a tensor is contiguous.
    channels_last = skip_NCHW.stride(1) == 1
    if up_NCHW.shape[2:] == (2, 2):  # made of one pixel, which has no format
        up_NCHW = up_NCHW.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert (up_NCHW.stride(1) == 1) == channels_last, (
        f"mixed memory formats: strides {up_NCHW.stride()} and {skip_NCHW.stride()}"
    )
    return torch.cat((up_NCHW, skip_NCHW), dim=1)


def initialise(network: SegmentationNetwork) -> None:
    """Set the starting weights in place (He et al. 2015, "Delving deep into rectifiers").

    Residual blocks start as their shortcut (the last BatchNorm's gain is zero), and the head's bias makes the first
    prediction `PERSON_PRIOR` everywhere.
    """
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):
            # Kernel and stride are equal, so an output pixel sums `in_channels` products; no ReLU follows.
            nn.init.normal_(module.weight, std=module.in_channels**-0.5)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, ResidualBlock):
            nn.init.zeros_(module.last.norm.weight)
    nn.init.normal_(network.head.weight, std=network.head.in_channels**-0.5)
    assert network.head.bias is not None
    nn.init.constant_(network.head.bias, math.log(PERSON_PRIOR / (1 - PERSON_PRIOR)))


def round_up_to_8(width: int) -> int:
    """Give the smallest multiple of 8 that is at least `width`: tensor cores want such channel counts."""
    return -(-width // 8) * 8
