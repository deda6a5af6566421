"""A trained network at work: where it runs, in which precision, and what it answers.

Tensor suffixes: N images, 3 RGB, 1 logit, S side.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from cache.choices import Device, Fit, Precision
from cache.messages import message
from model.base import SegmentationNetwork
from train.checkpoint import load_network
from train.config import TrainConfig
from train.hardware import Hardware, HardwareError, check_hardware, read_hardware
from train.step import DTYPES


class Predictor:
    """A network, and the precision in which it predicts."""

    def __init__(self, network: SegmentationNetwork, precision: Precision, device: Device) -> None:
        self.network, self.device = network.eval(), device
        self._dtype, self._narrow = DTYPES[precision], precision != "fp32"

    @torch.no_grad()
    def __call__(self, image_N3SS: Tensor) -> Tensor:
        """Give `logits_N1SS` (float32) of uint8 RGB images, both on the device."""
        with torch.autocast(self.device, dtype=self._dtype, enabled=self._narrow):
            logits_N1SS: Tensor = self.network(image_N3SS)
        return logits_N1SS.float()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A checkpoint, ready to predict.

    Attributes:
        predictor: its network, on its device and in its memory format.
        config: of the run that trained it.
        side, fit: of the cache that it was trained on; the side in pixels.
        precision: in which it predicts.
        notes: a line if that is neither what was wanted nor training's.
    """

    predictor: Predictor
    config: TrainConfig
    side: int
    fit: Fit
    precision: Precision
    notes: tuple[str, ...]


def load_predictor(path: Path, wanted: Device | None, precision: Precision | None) -> Trained:
    """Load a checkpoint to predict with.

    Args:
        path: of the checkpoint.
        wanted: device; None: a GPU if there is one.
        precision: of the convolutions; None: training's, if the device can do it.

    Raises:
        CheckpointError: see `load_network`.
        HardwareError: the device or the precision that was asked for is not to be had.
    """
    hardware = read_hardware()
    device = choose_device(wanted, hardware)
    network, saved = load_network(path, device=device)
    if not saved.config.channels_last:
        network.set_memory_format(torch.contiguous_format)
    chosen, notes = choose_precision(precision, saved.config, device, hardware)
    return Trained(
        predictor=Predictor(network, chosen, device),
        config=saved.config,
        side=saved.side,
        fit=saved.fit,
        precision=chosen,
        notes=notes,
    )


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
        return "fp32", (message("trained in bf16, run in fp32: this processor has no bf16"),)
    try:
        check_hardware(hardware, device=device, precision=precision, profile=trained.profile)
    except HardwareError:
        if wanted:
            raise
        check_hardware(hardware, device=device, precision="fp32", profile=trained.profile)
        return "fp32", (
            message(
                "trained in {precision}, run in fp32: the {device} of this machine has no {precision}",
                precision=precision,
                device=device,
            ),
        )
    return precision, ()
