"""The U-Net with attention gates.

Tensor suffixes: N images, C channels, H and W pixels of a level, h and w those of the level below (half as many),
1 the share that passes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.unet import LEVELS, UNet

# The logit of what a new gate lets through: nearly all (0.88), so that training starts from a U-Net, but not so near
# that the sigmoid has no slope left.
OPEN = 2.0


class AttentionGate(nn.Module):
    """Scales a skip connection's features, each pixel by a share from 0 to 1 (Oktay et al. 2018).

    The share is additive attention: what the level below has understood (the gating signal) and the features
    themselves meet on the grid of the level below, are added, and a 1x1 convolution makes one number of them. As in
    the paper, a gate starts open. Unlike there, BatchNorm follows the sum, and the shares are repeated 2x2, not
    interpolated: that costs one pass over the features, and its gradient needs no atomic additions.

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
        return skip_NCHW * F.interpolate(share_N1hw, scale_factor=2.0, mode="nearest")


class AttentionUNet(UNet):
    """Oktay et al. 2018, "Attention U-Net: learning where to look for the pancreas", on this project's `UNet`.

    Every skip connection has an `AttentionGate` but that of the full size: as the paper says, its features are too
    simple to tell a person from the ground. Parameters and GFLOP of a forward pass at side 256 (a multiplication with
    its addition counts two): width 64: 32.1 M and 97.6; width 32: 8.0 M and 24.5: those of `UNet` plus 3.3 % and
    1.3 %. Both count the input's fourth channel, which is always zero: 9 x `width` weights.

    Args:
        width: channels of the first level, a multiple of 8.
        dropout: probability that a whole channel of the deepest features is zeroed in training, 0 to below 1.
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
