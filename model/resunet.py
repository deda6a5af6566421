"""The strided residual U-Net.

Tensor suffixes: N images, 4 normalised RGB and zeros, C channels, H and W pixels of this level.
"""

from __future__ import annotations

from torch import Tensor, nn

from model.base import SegmentationNetwork
from model.blocks import ConvBNReLU, DoubleConv, ResidualBlock, UpConv, UpNearest, concat, initialise, round_up_to_8

# Residual blocks at 1/4, 1/8, 1/16 and 1/32 of the size, and their channels as multiples of the width.
BLOCKS = (2, 3, 4, 2)
MULTIPLES = (1, 2, 4, 8)


class ResUNet(SegmentationNetwork):
    """A U-Net that spends its arithmetic where pixels are few.

    One thin convolution at full size, a stem at half size, a residual encoder down to 1/32 of the size; the decoder
    goes up through all these sizes, at each one joined by the encoder's features. The thin full-size features come
    back last, beside those of a transposed convolution, so that a 3x3 convolution places the edges of a cut-out by
    the image's own pixels.

    Parameters and GFLOP of a forward pass at side 256 (a multiplication with its addition counts two): width 64:
    16.4 M and 12.6; width 32: 4.1 M and 3.2; width 16: 1.0 M and 1.0. All count the input's fourth channel, which is
    always zero: 9 weights for each thin channel (`width / 4` of them, 8 at least).

    Args:
        width: channels at half and at a quarter of the size, a multiple of 8; the deepest level has 8 times as many.
        dropout: probability that a whole channel of the deepest features is zeroed in training, 0 to below 1.
    """

    stride = 2 ** (1 + len(BLOCKS))

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        thin = round_up_to_8(width // 4)
        super().__init__(head_width=thin)
        self.detail = ConvBNReLU(4, thin)
        self.stem = ConvBNReLU(thin, width, stride=2)
        widths = [width * multiple for multiple in MULTIPLES]
        self.encoder = nn.ModuleList(
            nn.Sequential(ResidualBlock(before, after, stride=2), *(ResidualBlock(after, after) for _ in range(more)))
            for before, after, more in zip(
                [width, *widths[:-1]], widths, [blocks - 1 for blocks in BLOCKS], strict=True
            )
        )
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        # From 1/32 up to 1/4 two convolutions a level; at half and full size, where a convolution is dear, one.
        up: list[nn.Module] = []
        decoder: list[nn.Module] = []
        for below, level in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True):
            up.append(UpNearest(below, level))
            decoder.append(DoubleConv(2 * level, level))
        self.up = nn.ModuleList([*up, UpNearest(width, width), UpConv(width, thin)])
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
