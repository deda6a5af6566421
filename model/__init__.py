"""Networks, loss and metrics. Names load their module, and torch with it, when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.choices import NetworkName
    from model.base import SegmentationNetwork, check_side
    from model.encoder_unet import EncoderError, start_encoder
    from model.loss import LOSSES, bce_dice
    from model.metrics import Scores, count_pixels
    from model.network import NETWORKS, NetworkConfig, build_network

__all__ = [
    "LOSSES",
    "NETWORKS",
    "EncoderError",
    "NetworkConfig",
    "NetworkName",
    "Scores",
    "SegmentationNetwork",
    "bce_dice",
    "build_network",
    "check_side",
    "count_pixels",
    "start_encoder",
]

_HOMES = {
    "model.base": ("SegmentationNetwork", "check_side"),
    "model.encoder_unet": ("EncoderError", "start_encoder"),
    "model.loss": ("LOSSES", "bce_dice"),
    "model.metrics": ("Scores", "count_pixels"),
    "model.network": ("NETWORKS", "NetworkConfig", "NetworkName", "build_network"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
