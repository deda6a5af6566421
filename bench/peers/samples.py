"""The samples as plain arrays: datasets are written from them, and batches are compared with them.

    image.npy           (P, S, S, 3)   the pixels
    decoded.npy         (P, S, S, 3)   the pixels of the JPEGs, by the exact decoder of libjpeg-turbo
    person.npy, ignore.npy  (P, S*S/8) bits, as in a record
    jpeg.npy            all JPEGs, one after the other
    jpeg_start.npy      (P + 1,)       where each begins

P photos, side S, all uint8 but the last (int64). Record n of a dataset holds photo n % P. Runs in any environment:
standard library and NumPy only.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

FOLDER = "samples"
"""Name of the folder in a task's data."""

ARRAYS = ("image", "decoded", "person", "ignore", "jpeg", "jpeg_start")


class Samples:
    """The arrays, mapped into memory."""

    def __init__(self, data: Path, records: int) -> None:
        arrays: dict[str, Any] = {name: np.load(data / FOLDER / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
        self._arrays = arrays
        self.photos: int = len(arrays["image"])
        self.side: int = arrays["image"].shape[1]
        self._records = records

    def __len__(self) -> int:
        return self._records

    def image(self, record: int) -> U8:
        """The pixels of a record, `(S, S, 3)`."""
        return np.array(self._arrays["image"][record % self.photos])

    def decoded(self, record: int) -> U8:
        """The pixels of its JPEG, `(S, S, 3)`."""
        return np.array(self._arrays["decoded"][record % self.photos])

    def jpeg(self, record: int) -> bytes:
        """Its JPEG."""
        start, end = self._arrays["jpeg_start"][record % self.photos :][:2]
        return bytes(self._arrays["jpeg"][start:end])

    def encoded(self, record: int, codec: str) -> bytes:
        """Its pixels as they are stored: raw, or as a JPEG."""
        return self.jpeg(record) if codec == "jpeg" else self.image(record).tobytes()

    def bits(self, record: int) -> bytes:
        """Both planes, packed, one after the other: 2 * S*S/8 bytes."""
        number = record % self.photos
        return bytes(self._arrays["person"][number]) + bytes(self._arrays["ignore"][number])

    def planes(self, record: int) -> U8:
        """Both planes, `(2, S, S)` of 0 and 1."""
        return unpack(self.bits(record), self.side)

    def keys(self) -> list[int]:
        """The `key_of` the planes of each photo."""
        return [key_of(self.bits(number)) for number in range(self.photos)]


def unpack(bits: bytes, side: int) -> U8:
    """Packed planes as `(2, S, S)` of 0 and 1."""
    return np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").reshape(2, side, side)


def key_of(bits: bytes) -> int:
    """A checksum by which packed planes are recognised."""
    return zlib.crc32(bits)
