"""An array that grows on disk: what of it is in memory, the system may take back."""

from __future__ import annotations

import mmap
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt


class DiskArray:
    """Grows in a file without a name, in the system's folder for such files; it is gone when nothing refers to it.

    Args:
        dtype: of its elements.
    """

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._file = TemporaryFile(prefix="maskcache-")  # noqa: SIM115 (it is closed with this object)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def extend(self, values: npt.NDArray[Any]) -> None:
        """Put values at the end. Raises `OSError` where the disk is full."""
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self._size += len(values)

    def map(self) -> npt.NDArray[Any]:
        """All values so far. What is written to them does not reach the file."""
        self._file.flush()
        if not self._size:
            return np.empty(0, self._dtype)
        pages = mmap.mmap(self._file.fileno(), self._size * self._dtype.itemsize, access=mmap.ACCESS_COPY)
        return np.frombuffer(pages, self._dtype)
