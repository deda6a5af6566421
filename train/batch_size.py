"""The batch size search: how many images fit into a GPU's memory, found before the first epoch."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable

import torch

from cache.messages import message
from train.config import TrainConfig
from train.hardware import HardwareError
from train.ranks import ALONE, Ranks
from train.step import make_train_step, prepare_network


def search_batch_size(
    config: TrainConfig, side: int, ranks: Ranks = ALONE, attempt: Callable[[TrainConfig, int], None] | None = None
) -> tuple[TrainConfig, tuple[str, ...]]:
    """Halve the batch and double the accumulation until a step fits; give that configuration, and a line on it.

    Args:
        config: of the run.
        side: of the images, pixels.
        ranks: of the run: the batch has to fit on all of them.
        attempt: does a step of a configuration at a side; by default a real one, on the GPU.

    Raises:
        HardwareError: not even one image fits.
    """
    found = config
    while ranks.any(not _fits(found, side, attempt or try_step), config.device):
        batch_size = found.loader.batch_size // 2
        if not batch_size:
            raise HardwareError(
                "the GPU's memory cannot hold a step of one image at side {side}; use a narrower network "
                "(--width), or a cache of a smaller side",
                side=side,
            )
        loader = dataclasses.replace(found.loader, batch_size=batch_size)
        found = dataclasses.replace(found, loader=loader, accumulation=2 * found.accumulation)
    if found == config:
        return config, ()
    note = message(
        "a step of {batch_size} images does not fit into the GPU's memory: batch_size={batch_size2} with "
        "accumulation={accumulation}",
        batch_size=config.loader.batch_size,
        batch_size2=found.loader.batch_size,
        accumulation=found.accumulation,
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
    device, images = config.device, config.loader.batch_size
    network = prepare_network(config.network, channels_last=config.channels_last, device=device)
    step = make_train_step(config, network)
    image_NHW3 = torch.zeros(images, side, side, 3, dtype=torch.uint8, device=device)
    plane_N1HW = torch.zeros(images, 1, side, side, dtype=torch.uint8, device=device)
    for _ in range(2):  # the optimizer makes its moments in the first one
        step(image_NHW3.permute(0, 3, 1, 2), plane_N1HW, plane_N1HW, 1e-6)
    if device == "cuda":
        torch.cuda.synchronize()
