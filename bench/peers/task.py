"""What the process of an entry is told: the entry, its task, and the samples that it must deliver.

The samples are plain arrays; datasets are written from them, and batches are compared with them:

    image.npy           (P, S, S, 3)   the pixels
    decoded.npy         (P, S, S, 3)   the pixels of the JPEGs, by the exact decoder of libjpeg-turbo
    person.npy, ignore.npy  (P, S*S/8) bits, as in a record
    jpeg.npy            all JPEGs, one after the other
    jpeg_start.npy      (P + 1,)       where each begins
    matrix.npy, colour.npy  (N, 2, 3) and (N, 3, 4)   `loader.augment.Parameters`, level light

P photos, side S, N records, all uint8 but `jpeg_start` (int64) and what is drawn (float32). Record n of a dataset holds
photo n % P. This file runs in any environment: it imports the standard library and NumPy only.
"""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

OWN = "own"
"""Name of the environment that this project runs in."""

FOLDER, ARRAYS = "samples", ("image", "decoded", "person", "ignore", "jpeg", "jpeg_start")
"""Names of the samples' folder in a task's data, and of the files in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A loader, or a limit, in one configuration."""

    name: str  # as rows give it
    opener: str  # what opens it, as `module:function` in `bench.peers.libraries`
    writer: str = ""  # what writes its dataset, in the same form; empty where it reads what is there already
    dataset: str = ""  # the folder that the writer fills, which several entries may share
    threads: int  # or worker processes
    codec: Literal["raw", "jpeg"] = "raw"  # of the stored pixels
    environment: str = OWN  # whose Python runs it: this, or a name in `bench/peers/requirements`
    packages: tuple[str, ...] = ()  # whose versions the report gives
    # What a batch must be: the `same` bytes as the samples, `close` (JPEG, or resized by other code), or only of the
    # right `shape` (augmented, or random).
    check: Literal["same", "close", "shape"] = "same"
    ours: bool = False  # whether it is a loader of this project
    limit: str = ""  # the entry in its group that bounds its rate; empty where that is not measured
    compare_to: str = ""  # our loader in its group that it is compared with; empty for none
    note: str = ""  # what else to know
    options: dict[str, Any] = dataclasses.field(default_factory=dict)  # further settings of the opener and the writer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Entry):
    """An entry with what all entries of a run have in common."""

    data: str  # folder of everything that is read: the samples, our caches, a folder for each dataset
    side: int  # pixels
    batch_size: int
    samples: int  # records in each dataset
    writers: int  # processes that write a dataset
    found: dict[str, str] = dataclasses.field(default_factory=dict)  # what the opener finds out, for `Epoch.found`

    @property
    def folder(self) -> Path:
        """`data` as a path."""
        return Path(self.data)


class Samples:
    """The samples, mapped into memory from the folder `data` of a task; `records` is how many a dataset has."""

    def __init__(self, data: Path, records: int) -> None:
        arrays: dict[str, Any] = {name: np.load(data / FOLDER / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
        self._arrays, self._records = arrays, records
        self.photos: int = len(arrays["image"])
        self.side: int = arrays["image"].shape[1]

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

    def checksums(self) -> list[int]:
        """A checksum of the packed planes of each photo, by which they are recognised."""
        return [zlib.crc32(self.bits(number)) for number in range(self.photos)]


def unpack(bits: bytes | U8, side: int) -> U8:
    """Packed planes, one after the other, as `(N, S, S)` of 0 and 1: two of each sample."""
    return np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").reshape(-1, side, side)
