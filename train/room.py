"""A batch that a GPU has room for, found before the first epoch."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable

import torch

from model.loss import LOSSES
from train.config import TrainConfig
from train.hardware import HardwareError
from train.optimizer import build_optimizer
from train.ranks import ALONE, Ranks
from train.step import TrainStep, prepare_network


def make_room(
    config: TrainConfig,
    side: int,
    ranks: Ranks = ALONE,
    attempt: Callable[[TrainConfig, int], None] | None = None,
) -> tuple[TrainConfig, tuple[str, ...]]:
    """Halve the batch and double the accumulation until a step fits; give that configuration, and a line on it.

    Args:
        config: of the run.
        side: of the images, pixels.
        ranks: of the run: what fits on all.
        attempt: does a step of a configuration at a side; by default a real one, on the GPU.

    Raises:
        HardwareError: not even one image fits.
    """
    attempt = attempt or try_step
    found = config
    while ranks.any(not _fits(found, side, attempt), config.device):
        if found.batch_size == 1:
            raise HardwareError(
                f"the GPU's memory cannot hold a step of one image at side {side}; use a narrower network "
                "(--width), or a cache of a smaller side"
            )
        found = dataclasses.replace(found, batch_size=found.batch_size // 2, accumulation=2 * found.accumulation)
    if found == config:
        return config, ()
    note = (
        f"a step of {config.batch_size} images does not fit into the GPU's memory: batch_size={found.batch_size} with "
        f"accumulation={found.accumulation}"
    )
    return found, (note,)


def _fits(config: TrainConfig, side: int, attempt: Callable[[TrainConfig, int], None]) -> bool:
    try:
        attempt(config, side)
        fits = True
    except torch.OutOfMemoryError:
        fits = False
    # Only here: until an error is forgotten, it holds everything that was in memory when it came.
    gc.collect()
    if config.device == "cuda":
        torch.cuda.empty_cache()
    return fits


def try_step(config: TrainConfig, side: int) -> None:
    """Do a step as a run of this configuration does, but eagerly, which takes the most memory.

    Raises:
        torch.OutOfMemoryError: there is not enough.
    """
    network = prepare_network(config.network, channels_last=config.channels_last, device=config.device)
    step = TrainStep(
        network,
        build_optimizer(network, learning_rate=1e-6, weight_decay=0.0, name=config.optimizer),
        precision=config.precision,
        loss=LOSSES[config.loss],
        compile=None,
        device=config.device,
        clip=config.clip,
    )
    images, device = config.batch_size, config.device
    image_NHW3 = torch.zeros(images, side, side, 3, dtype=torch.uint8, device=device)
    plane_N1HW = torch.zeros(images, 1, side, side, dtype=torch.uint8, device=device)
    for _ in range(2):  # the optimizer makes its moments in the first one
        step(image_NHW3.permute(0, 3, 1, 2), plane_N1HW, plane_N1HW, 1e-6)
    if device == "cuda":
        torch.cuda.synchronize()
