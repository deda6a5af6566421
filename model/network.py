"""The networks by name, and the configuration by which one is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cache.choices import NetworkName
from cache.messages import UserError, listed, message
from model.base import SegmentationNetwork
from model.encoder_unet import PREFIX, EncoderUNet
from model.unets import AttentionUNet, ResUNet, UNet

NETWORKS: dict[NetworkName, Callable[[int, float], SegmentationNetwork]] = {
    "unet": UNet,
    "attention_unet": AttentionUNet,
    "resunet": ResUNet,
}
"""Constructors by name: they take the width and the dropout."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A network by name and size.

    Raises `ValueError` for an unknown name, a width that is no positive multiple of 8, a dropout outside [0, 1), or an
    encoder that is not `timm:...` of a `unet`.
    """

    name: NetworkName = "resunet"
    width: int = 32  # channels of the first level; the deeper ones have multiples. Tensor cores want a multiple of 8
    dropout: float = 0.0  # probability that a channel of the deepest features is zeroed in training
    encoder: str | None = None  # `timm:` and a name: a `unet` on that encoder of timm's, see `model.encoder_unet`

    def __post_init__(self) -> None:
        if self.name not in NETWORKS:
            networks = ", ".join(sorted(NETWORKS))
            raise UserError(
                "network name={name!r} is unknown; use one of: {networks}", name=self.name, networks=networks
            )
        if self.width <= 0 or self.width % 8:
            below = self.width // 8 * 8
            remedy = listed([below, below + 8], "or") if self.width > 8 else message("8 or more")
            raise UserError(
                "width={width} is not a positive multiple of 8; use {remedy}", width=self.width, remedy=remedy
            )
        if not 0 <= self.dropout < 1:
            raise UserError(
                "dropout={dropout} is not in [0, 1); use 0 to turn it off, or 0.1 to 0.5", dropout=self.dropout
            )
        if self.encoder is None:
            return
        if not self.encoder.startswith(PREFIX) or self.encoder == PREFIX:
            raise UserError(
                "encoder={encoder!r} does not begin with {prefix}; use one as {prefix}resnet34",
                encoder=self.encoder,
                prefix=PREFIX,
            )
        if self.name != "unet":
            raise UserError(
                "encoder={encoder!r} is for network unet, not {name}; add --network unet",
                encoder=self.encoder,
                name=self.name,
            )

    def __str__(self) -> str:
        """Name, width and encoder: `unet 32`, or `unet 32 on timm:resnet34`."""
        if self.encoder:
            return message("{name} {width} on {encoder}", name=self.name, width=self.width, encoder=self.encoder)
        return f"{self.name} {self.width}"


def build_network(
    config: NetworkConfig, *, memory_format: torch.memory_format = torch.channels_last
) -> SegmentationNetwork:
    """Make the network on the default device, fp32, its weights and features in `memory_format`.

    `torch.channels_last` suits tensor cores and CPUs; `torch.contiguous_format` (NCHW) suits GPUs before Volta. Both
    take the same images and the same `state_dict`. Build the optimizer after this, not before. A timm encoder has no
    pretrained weights yet. Raises `EncoderError` as `model.encoder_unet.EncoderUNet`.
    """
    network = (
        EncoderUNet(config.encoder, config.width, config.dropout)
        if config.encoder
        else NETWORKS[config.name](config.width, config.dropout)
    )
    network.set_memory_format(memory_format)
    return network
