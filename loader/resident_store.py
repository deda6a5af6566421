"""Decoded records in the memory of a device, and how many of a split's fit there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.arrays import I64, U8
from cache.machine import compile_obstacle, memory
from cache.messages import UserError
from loader.augment import Parameters
from loader.kernels import BLANK
from loader.sampling import Pixels, Records, compiled_warp, gather, warp

BLANK_ROW = 0
"""The row that stands for no record: black, without a person, all of it ignored."""

NETWORK_BYTES, NETWORK_VALUES_PER_PIXEL, NETWORK_SHARE = 2 << 30, 2304, 0.75
"""What is left for a network whose step was not measured: bytes for weights, gradients, optimizer and libraries; values
for each pixel of a batch, as the largest of our networks has, U-Net of width 64 (36 GiB in 16 bits at batch 32 and side
512); and the share of the free memory that is left to it at most, because smaller networks take a third of that."""


class ResidentStore:
    """Rows of decoded records on one device: `BLANK_ROW`, then rows to fill.

    `places` are the `(K, 3)` addresses of the records of a store on the CPU, as `loader.kernels` take them.
    """

    def __init__(self, rows: int, side: int, device: torch.device) -> None:
        self.device = device
        self.records = Records(
            torch.empty((rows, side, side, 3), dtype=torch.uint8, device=device),
            torch.empty((rows, side * side // 8), dtype=torch.uint8, device=device),
            torch.empty((rows, side * side // 8), dtype=torch.uint8, device=device),
        )
        for tensor, value in zip(self.records, (0, 0, 255), strict=True):
            tensor[BLANK_ROW] = value
        starts = np.array([tensor.data_ptr() for tensor in self.records])
        strides = np.array([tensor.stride(0) for tensor in self.records])
        self.places: I64 = starts + strides * np.arange(rows)[:, None]
        self.places[BLANK_ROW] = BLANK

    def on_host(self, first: int, count: int) -> tuple[U8, U8, U8]:
        """Views of rows on the CPU, to be filled: image `(N, S*S*3)`, packed person and ignore `(N, S*S/8)`."""
        image, person, ignore = (tensor[first : first + count].view(count, -1).numpy() for tensor in self.records)
        return image, person, ignore

    def release(self) -> None:
        """Free the memory, even if something still holds the store."""
        self.records = Records(*(torch.empty(0, dtype=torch.uint8, device=self.device) for _ in self.records))


def row_bytes(side: int) -> int:
    """Bytes of a decoded record: its image, and two packed planes."""
    return side * side * 3 + 2 * (side * side // 8)


def count_resident(samples: int, side: int, budget: int, *, batch_size: int, batches: int, device: str) -> int:
    """How many samples of a split can be resident: all, or as many as fit beside rows for `batches` batches of others.

    `budget` is the bytes that all rows of a store may take, its blank row included. Raises `ValueError`, which names
    the device, if not even one batch could be resident.
    """
    rows, others = max(budget, 0) // row_bytes(side) - 1, batch_size * batches
    if rows >= samples:
        return samples
    if rows - others < batch_size:
        least = (1 + batch_size + others) * row_bytes(side)
        raise UserError(
            "the resident loader may use {budget:,} bytes on {device}, and one batch of {batch_size} samples "
            "beside the {batches} under way takes {least:,}; set a larger resident_bytes, or use the native "
            "loader",
            budget=budget,
            device=device,
            batch_size=batch_size,
            batches=batches,
            least=least,
        )
    return rows - others


def free_bytes(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type != "cuda":
        return memory()[1]
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, not in use


def network_bytes(free: int, pixels: int, itemsize: int = 2) -> int:
    """What is left of the free bytes for a network that takes a batch of so many pixels in values of `itemsize`."""
    return min(NETWORK_BYTES + NETWORK_VALUES_PER_PIXEL * itemsize * pixels, int(NETWORK_SHARE * free))


def default_budget(device: torch.device, batch_size: int, side: int) -> int:
    """Bytes that records may take where nobody has planned it: what is free, less what a network in 16 bits needs."""
    free = free_bytes(device)
    return free - network_bytes(free, batch_size * side * side)


Method = Literal["kernels", "compiled", "eager"]
"""How a store is sampled: by the CPU's kernels, those of `native`; or by torch functions, compiled or not."""

TRITON_CAPABILITY = (7, 0)
"""CUDA compute capability from which Inductor has code for a GPU."""


def choose_method(device: torch.device) -> Method:
    """The method for a device.

    On 2 cores at side 384 the kernels augment 4,100 samples a second, the compiled function 150, the eager one 80.
    """
    if device.type == "cpu":
        return "kernels"
    capable = torch.cuda.get_device_capability(device) >= TRITON_CAPABILITY
    return "compiled" if capable and compile_obstacle("cuda") is None else "eager"


class TorchSampler:
    """Batches out of a store by the torch functions, in the current stream and into memory of their own."""

    def __init__(self, store: ResidentStore, *, compiled: bool) -> None:
        self._store = store
        self._warp: Callable[[Records, Tensor, Tensor, Tensor], Pixels] = warp
        if compiled:
            for tensor in store.records:  # so that `train` and `val`, of different sizes, share what is compiled
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
            self._warp = compiled_warp()

    def warm_up(self, batch_size: int) -> None:
        """Compile for batches of a size now: it takes some seconds."""
        matrix = np.zeros((batch_size, 2, 3), np.float32)
        colour = np.zeros((batch_size, 3, 4), np.float32)
        # By itself Dynamo refuses the ninth shape. `torch.compile(recompile_limit=...)` is new in torch 2.13.
        with torch._dynamo.config.patch(recompile_limit=64):
            self(np.full(batch_size, BLANK_ROW), Parameters(matrix, colour))

    def __call__(self, rows: I64, parameters: Parameters | None) -> Pixels:
        """The rows, `(N,)`, as they are or augmented."""
        # Compiled code asks for the mode in which it was compiled, whatever the caller's is.
        with torch.inference_mode(False), torch.no_grad():
            if parameters is None:
                return gather(self._store.records, self._upload(rows))
            matrix, colour = parameters
            colour = np.where((rows == BLANK_ROW)[:, None, None], np.float32(0), colour)  # black in any colours
            return self._warp(self._store.records, self._upload(rows), self._upload(matrix), self._upload(colour))

    def _upload(self, values: I64 | npt.NDArray[np.float32]) -> Tensor:
        tensor = torch.from_numpy(values)
        if self._store.device.type == "cpu":
            return tensor
        # Torch keeps the pinned copy until it was read.
        return tensor.pin_memory().to(self._store.device, non_blocking=True)
