"""Which networks there are, and how one is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from model.attention_unet import AttentionUNet
from model.base import SegmentationNetwork
from model.resunet import ResUNet
from model.unet import UNet

NetworkName = Literal["unet", "attention_unet", "resunet"]


class NetworkBuilder(Protocol):
    """Makes a network; a `SegmentationNetwork` class whose constructor takes these is one."""

    def __call__(self, width: int, dropout: float) -> SegmentationNetwork:
        """Give a new network with its starting weights."""
        ...


NETWORKS: dict[NetworkName, NetworkBuilder] = {
    "unet": UNet,
    "attention_unet": AttentionUNet,
    "resunet": ResUNet,
}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A network by name and size.

    Raises:
        ValueError: for an unknown name, a width that is no positive multiple of 8, or a dropout outside [0, 1).
    """

    name: NetworkName = "resunet"
    width: int = 32
    """Channels of the first level; the deeper ones are multiples of it. Tensor cores want a multiple of 8."""
    dropout: float = 0.0
    """Probability that a channel of the deepest features is zeroed in training."""

    def __post_init__(self) -> None:
        if self.name not in NETWORKS:
            raise ValueError(f"network name={self.name!r} is unknown; use one of: {', '.join(sorted(NETWORKS))}")
        if self.width <= 0 or self.width % 8:
            below = max(8, self.width // 8 * 8)
            remedy = f"{below} or {below + 8}" if self.width > 8 else "8 or more"
            raise ValueError(f"width={self.width} is not a positive multiple of 8; use {remedy}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} is not in [0, 1); use 0 to turn it off, or 0.1 to 0.5")


def build_network(
    config: NetworkConfig, *, memory_format: torch.memory_format = torch.channels_last
) -> SegmentationNetwork:
    """Make the network on the default device, fp32, its weights and features in `memory_format`.

    `torch.channels_last` suits tensor cores and CPUs; `torch.contiguous_format` (NCHW) suits GPUs before Volta. Either
    takes the same images and the same `state_dict`. Build the optimizer after this, not before.
    """
    network = NETWORKS[config.name](width=config.width, dropout=config.dropout)
    network.set_memory_format(memory_format)
    return network
