from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from loader.augment import Parameters
from loader.resident_store import BLANK_ROW, ResidentStore
from loader.sampling import Pixels, Records, compiled_warp, gather, warp

I64 = npt.NDArray[np.int64]

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
    return "compiled" if capable and find_spec("triton") is not None else "eager"


class TorchSampler:
    """Batches out of a store by the torch functions, in the current stream and into memory of their own.

    Args:
        store: the records.
        compiled: whether augmentation is.
    """

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
