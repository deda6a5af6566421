"""What shares the memory of a device, and what is said where that is too small."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch

from cache.machine import out_of_memory
from cache.messages import joined, message
from loader.resident_store import network_bytes, row_bytes
from train.config import TrainConfig
from train.hardware import HardwareError
from train.step import DTYPES

MARGIN = 1 << 30
"""Bytes that are left beside a measured step: for compiled kernels, buffers of the loaders, fragments, validation."""


class MemoryPlan(NamedTuple):
    """How a device's memory is shared, in bytes. Its text is for people."""

    device: str
    free: int  # what may be used
    step: int  # what a batch takes; 0: not known
    pixels: int  # of the batch
    precision: str  # in which `step` was measured, or else estimated, for the largest of our networks
    measured: bool
    resident: Mapping[str, tuple[int, int]]  # by split: what its records may take, and what all of them would

    def __str__(self) -> str:
        parts = [message("{free:.1f} GB are free on {device}", free=self.free / 1e9, device=self.device)]
        values = {"step": self.step / 1e9, "each": self.step / self.pixels, "precision": self.precision}
        if self.step and self.measured:
            parts.append(
                message("a batch takes {step:.1f} GB ({each:,.0f} bytes a pixel in {precision}, measured)", **values)
            )
        elif self.step:
            parts.append(message("{step:.1f} GB are reserved for a batch", **values))
        for split, (given, need) in self.resident.items():
            if self.device != "cpu" or given > 1:  # on a CPU, nobody expects records to be resident
                sizes = {"given": given / 1e9, "need": need / 1e9, "split": split}
                parts.append(message("{given:.1f} of {need:.1f} GB of {split} are resident", **sizes))
        return joined(", ", parts)


def plan_memory(config: TrainConfig, side: int, samples: Mapping[str, int], free: int, measured: int = 0) -> MemoryPlan:
    """Share what is free: first a step, which takes `measured`, unless that is 0; then `train`, then `val`.

    `samples` are their counts. Where the loader is `auto`, on a GPU, a split is resident if all of it fits. Where it is
    `resident`, `train` leaves to `val` what that cannot do without. Each gets a byte, because 0 has a meaning there.
    """
    loader, free = config.loader, min(free, config.device_memory or free)
    pixels = loader.batch_size * side * side
    step = measured or network_bytes(free, pixels, DTYPES[config.precision].itemsize)
    left = loader.resident_bytes or free - step - (MARGIN if measured else 0)
    train, val = ((1 + samples.get(split, 0)) * row_bytes(side) for split in ("train", "val"))
    for_train = for_val = 0
    if loader.backend == "resident":
        least = (1 + loader.batch_size * (loader.prefetch + 2)) * row_bytes(side)
        for_train = min(train, left - min(val, least))
        for_val = min(val, left - for_train)
    elif loader.backend == "auto" and config.device == "cuda":
        for_train = train if train <= left else 0
        for_val = val if val <= left - for_train else 0
    resident = {"train": (max(1, for_train), train), "val": (max(1, for_val), val)}
    return MemoryPlan(config.device, free, step, pixels, config.precision, bool(measured), resident)


def lacking(attempt: Callable[[], object]) -> str:
    """What a library says if `attempt` lacks memory, else nothing. The peak of a GPU's memory is then that of it."""
    reason = ""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        attempt()
    except (RuntimeError, MemoryError) as error:
        if not (reason := out_of_memory(error)):
            raise
    # Only now: as long as the error is alive, it holds what was in memory when it came.
    gc.collect()
    torch.cuda.empty_cache()  # nothing happens without a GPU
    return reason


@contextmanager
def memory_errors(batch_size: int, side: int, *, less: int, others: str) -> Iterator[None]:
    """Raise a `HardwareError` where a library lacks memory. It names the batch size `less`, if not 0, and `others`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (reason := out_of_memory(error)):
            raise
        raise HardwareError(
            "the memory cannot hold batch_size={batch_size} at side {side} ({reason}); use {remedy}",
            batch_size=batch_size,
            side=side,
            reason=reason,
            remedy=message("--batch-size {less}, or {others}", less=less, others=others) if less else others,
        ) from error
