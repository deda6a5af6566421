"""The classic U-Net.

Tensor suffixes: N images, 4 normalised RGB and zeros, C channels, H and W pixels of a level, h and w those of the level
below.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from model.base import SegmentationNetwork
from model.blocks import DoubleConv, UpConv, concat, initialise

LEVELS = 5


class UNet(SegmentationNetwork):
    """Ronneberger et al. 2015, with padding (so that the output has the input's size) and BatchNorm.

    Five levels of `width`, 2, 4, 8 and 16 times `width` channels, two 3x3 convolutions on each, max pooling down and
    transposed 2x2 convolutions up. Parameters and GFLOP of a forward pass at side 256 (a multiplication with its
    addition counts two): width 64: 31.0 M and 96; width 32: 7.8 M and 24. Both count the input's fourth channel,
    which is always zero: 9 x `width` weights.

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
        self.up = nn.ModuleList(UpConv(2 * level, level) for level in reversed(widths[:-1]))
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

        Args:
            step: counts the decoder's levels from the deepest.
            skip_NCHW: the encoder's features of this level.
            below_NChw: what the decoder made of the level below, half as high and wide, with twice the channels.
        """
        return skip_NCHW
