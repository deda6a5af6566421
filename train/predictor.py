"""A trained network at work: where it runs, in which precision, and what it answers.

Tensor suffixes: N images, 3 RGB, 1 logit, S side.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from model.base import SegmentationNetwork
from train.config import Device, Precision, TrainConfig
from train.hardware import Hardware, HardwareError, adapt
from train.step import DTYPES


class Predictor:
    """A network, and the precision in which it predicts."""

    def __init__(self, network: SegmentationNetwork, precision: Precision, device: str) -> None:
        self.network, self.device = network.eval(), device
        self._dtype, self._narrow = DTYPES[precision], precision != "fp32"

    @torch.no_grad()
    def __call__(self, image_N3SS: Tensor) -> Tensor:
        """Give `logits_N1SS` (float32) of uint8 RGB images, both on the device."""
        with torch.autocast(self.device, dtype=self._dtype, enabled=self._narrow):
            logits_N1SS: Tensor = self.network(image_N3SS)
        return logits_N1SS.float()


def choose_device(wanted: Device | None, hardware: Hardware) -> Device:
    """The device to predict on: the one that is wanted, else a GPU if there is one.

    Raises:
        HardwareError: a GPU is wanted and there is none; nothing is put in its place.
    """
    if wanted == "cuda" and hardware.gpu is None:
        raise HardwareError("device=cuda wants a CUDA device and this machine offers none; use --device cpu")
    return wanted or ("cuda" if hardware.gpu else "cpu")


def choose_precision(
    wanted: Precision | None, trained: TrainConfig, device: Device, hardware: Hardware
) -> tuple[Precision, tuple[str, ...]]:
    """The precision to predict in, and a line if it is neither the one that is wanted nor training's.

    Raises:
        HardwareError: the device cannot do what is wanted, or has no code in this torch.
    """
    precision = wanted or trained.precision
    if device == "cpu" and precision == "bf16" and not wanted and not hardware.cpu_bf16:
        return "fp32", ("trained in bf16, run in fp32: this processor has no bf16",)
    try:
        adapt(dataclasses.replace(trained, device=device, precision=precision, compile=False), hardware)
    except HardwareError:
        if wanted:
            raise
        adapt(dataclasses.replace(trained, device=device, precision="fp32", compile=False), hardware)
        return "fp32", (f"trained in {precision}, run in fp32: the {device} of this machine has no {precision}",)
    return precision, ()
