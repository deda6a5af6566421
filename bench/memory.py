"""The most memory that something takes while it runs."""

from __future__ import annotations

import ctypes
import gc

import psutil
import torch


class PeakMemory:
    """Watches from when it was made: a GPU by itself, a process whenever `look` is called.

    A process that trains keeps what it frees (see `train.memory`), so looking between two steps misses nothing.
    """

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self._process, self._most = psutil.Process(), 0
        gc.collect()
        if self._on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            _give_back()

    def look(self) -> None:
        """Take in what the process has now, without the pages of files that it maps."""
        if not self._on_gpu:
            memory = self._process.memory_info()
            self._most = max(self._most, memory.rss - getattr(memory, "shared", 0))

    def found(self) -> dict[str, int]:
        """Bytes at the peak, by what they are: words for a note."""
        if self._on_gpu:
            return {
                "of tensors on the GPU": torch.cuda.max_memory_allocated(),
                "held by torch on the GPU": torch.cuda.max_memory_reserved(),
            }
        return {"of the process, not of files": self._most}


def _give_back() -> None:
    """Give the kernel what the process has freed: else it would count. Only glibc can. See malloc_trim(3)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # TypeError: Windows has no library of that name
        return
