"""The networks of this project: the classic U-Net, the U-Net with attention gates and the strided residual U-Net.

Parameters and GFLOP in the docstrings are those of a forward pass at side 256, where a multiplication with its addition
counts two. They include the input's fourth channel, which is always zero.

Tensor suffixes: N images, 4 normalised RGB and zeros, C channels, H and W pixels of a level, h and w those of the level
below (half as many), 1 the share that a gate passes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.base import SegmentationNetwork
from model.blocks import ConvBNReLU, DoubleConv, ResidualBlock, UpNearest, concat, initialise, repeat, round_up_to_8

LEVELS = 5

# The logit of what a new gate lets through: nearly all (0.88), so that training starts from a U-Net, but not so near
# that the sigmoid has no slope left.
OPEN = 2.0

# Residual blocks at 1/4, 1/8, 1/16 and 1/32 of the size, and their channels as multiples of the width.
BLOCKS = (2, 3, 4, 2)
MULTIPLES = (1, 2, 4, 8)


class UNet(SegmentationNetwork):
    """Ronneberger et al. 2015, with padding (so that the output has the input's size) and BatchNorm.

    Five levels of `width`, 2, 4, 8 and 16 times `width` channels, two 3x3 convolutions on each, max pooling down and
    transposed 2x2 convolutions up. Width 64: 31.0 M parameters, 96 GFLOP; width 32: 7.8 M, 24.

    Args:
        width: channels of the first level, a multiple of 8.
        dropout: probability that a whole channel of the deepest features is zeroed in training, 0 to below 1.
    """

    stride = 2 ** (LEVELS - 1)

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__(head_width=width)
        widths = [width * 2**level for level in range(LEVELS)]
        self.encoder = nn.ModuleList(
            DoubleConv(before, after) for before, after in zip([4, *widths[:-1]], widths, strict=True)
        )
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * level, level, 2, stride=2) for level in reversed(widths[:-1]))
        self.decoder = nn.ModuleList(DoubleConv(2 * level, level) for level in reversed(widths[:-1]))
        initialise(self)

    def features(self, image_N4HW: Tensor) -> Tensor:
        """Give `(N, width, H, W)`."""
        x_NCHW: Tensor = image_N4HW
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            if level:
                skips.append(x_NCHW)
                x_NCHW = F.max_pool2d(x_NCHW, 2)
            x_NCHW = block(x_NCHW)
        x_NCHW = self.dropout(x_NCHW)
        for step, (up, block) in enumerate(zip(self.up, self.decoder, strict=True)):
            x_NCHW = block(concat(up(x_NCHW), self.skip(step, skips.pop(), x_NCHW)))
        return x_NCHW

    def skip(self, step: int, skip_NCHW: Tensor, below_NChw: Tensor) -> Tensor:
        """Give what joins the decoder at its `step` (0 is the deepest): here the encoder's features as they are.

        `below_NChw` is the decoder's output of the level below, half as high and wide, with twice the channels.
        """
        return skip_NCHW


class AttentionGate(nn.Module):
    """Scales a skip connection's features, each pixel by a share from 0 to 1 (Oktay et al. 2018).

    The share is additive attention: the level below (the gating signal) and the features themselves are projected to
    the grid of the level below and added, and a 1x1 convolution makes one number of them. As in the paper, a gate
    starts open. Unlike there, BatchNorm follows the sum, and the shares are repeated 2x2, not interpolated: that costs
    one pass over the features, and its gradient needs no atomic additions.

    Args:
        width: channels of the skip connection; those of the gating signal are twice as many. The sum has half.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.skip = nn.Conv2d(width, inner, kernel_size=2, stride=2, bias=False)
        self.below = nn.Conv2d(2 * width, inner, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(inner)
        self.share = nn.Conv2d(inner, 1, kernel_size=1)
        for conv in (self.skip, self.below):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.share.weight, std=inner**-0.5)
        assert self.share.bias is not None
        nn.init.constant_(self.share.bias, OPEN)

    def forward(self, skip_NCHW: Tensor, below_NChw: Tensor) -> Tensor:
        """Give the scaled features, in the shape and the memory format of `skip_NCHW`."""
        both_NChw = F.relu(self.norm(self.skip(skip_NCHW) + self.below(below_NChw)), inplace=True)
        share_N1hw = torch.sigmoid(self.share(both_NChw))
        return skip_NCHW * repeat(share_N1hw)


class AttentionUNet(UNet):
    """Oktay et al. 2018, "Attention U-Net: learning where to look for the pancreas", on this project's `UNet`.

    Every skip connection has an `AttentionGate` but that of the full size: as the paper says, its features are too
    simple to distinguish a person from the ground. Width 64: 32.1 M parameters, 97.6 GFLOP; width 32: 8.0 M, 24.5.
    That is 3.3 % and 1.3 % more than `UNet`, whose arguments it takes.
    """

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__(width, dropout)
        self.gates = nn.ModuleList(AttentionGate(width * 2**level) for level in range(LEVELS - 2, 0, -1))

    def skip(self, step: int, skip_NCHW: Tensor, below_NChw: Tensor) -> Tensor:
        """Give the encoder's features, gated by those of the level below."""
        if step == len(self.gates):
            return skip_NCHW
        gated_NCHW: Tensor = self.gates[step](skip_NCHW, below_NChw)
        return gated_NCHW


class ResUNet(SegmentationNetwork):
    """A U-Net that spends its arithmetic where pixels are few.

    One thin convolution at full size, a stem at half size, a residual encoder down to 1/32 of the size; the decoder
    goes up through all these sizes, and at each one the encoder's features join. The thin full-size features join last,
    beside those of a transposed convolution, so that a 3x3 convolution places edges by the image's own pixels.

    Width 64: 16.4 M parameters, 12.6 GFLOP; width 32: 4.1 M, 3.2; width 16: 1.0 M, 1.0.

    Args:
        width: channels at half and at a quarter of the size, a multiple of 8; the deepest level has 8 times as many.
            The thin features have a quarter, 8 at least.
        dropout: as of `UNet`.
    """

    stride = 2 ** (1 + len(BLOCKS))

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        thin = round_up_to_8(width // 4)
        super().__init__(head_width=thin)
        self.detail = ConvBNReLU(4, thin)
        self.stem = ConvBNReLU(thin, width, stride=2)
        widths = [width * multiple for multiple in MULTIPLES]
        self.encoder = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(before, after, stride=2), *(ResidualBlock(after, after) for _ in range(blocks - 1))
            )
            for before, after, blocks in zip([width, *widths[:-1]], widths, BLOCKS, strict=True)
        )
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        # From 1/32 up to 1/4 two convolutions per level; at half and full size, where a convolution costs most, one.
        levels = list(reversed(widths[:-1]))
        up = [UpNearest(below, level) for below, level in zip(reversed(widths[1:]), levels, strict=True)]
        self.up = nn.ModuleList([*up, UpNearest(width, width), nn.ConvTranspose2d(width, thin, 2, stride=2)])
        decoder = [DoubleConv(2 * level, level) for level in levels]
        self.decoder = nn.ModuleList([*decoder, ConvBNReLU(2 * width, width), ConvBNReLU(2 * thin, thin)])
        initialise(self)

    def features(self, image_N4HW: Tensor) -> Tensor:
        """Give `(N, head_width, H, W)`."""
        x_NCHW: Tensor = self.detail(image_N4HW)
        skips = [x_NCHW]
        x_NCHW = self.stem(x_NCHW)
        for stage in self.encoder:
            skips.append(x_NCHW)
            x_NCHW = stage(x_NCHW)
        x_NCHW = self.dropout(x_NCHW)
        for up, block in zip(self.up, self.decoder, strict=True):
            x_NCHW = block(concat(up(x_NCHW), skips.pop()))
        return x_NCHW
