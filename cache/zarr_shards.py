"""Records as a Zarr v3 group of three sharded arrays that any Zarr reader opens.

    image           (rows, side, side, 3)   uint8, RGB
    person, ignore  (rows, side, side / 8)  uint8, bits as in `cache.record`

Zarr-python writes the metadata. The data of an array is one file of the sharding codec [1] in its plainest form: the
samples as uncompressed chunks, in order and without gaps, then `chunk_index`. That can be written as records come and
be read through a memory map, both at the speed of copying. Zarr-python itself puts a whole shard together in memory
and reads it chunk by chunk through its codecs: at side 384 a quarter of the speed in writing, 1/80 in reading.

[1] https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

import math
import mmap
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c
import numpy as np

from cache.arrays import U8
from cache.atomic import sync_tree
from cache.errors import CacheWriteError, missing_row, open_error, write_error
from cache.messages import UserError
from cache.record import Fields, RecordLayout

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer

DIMENSIONS = {
    "image": ("sample", "y", "x", "channel"),
    "person": ("sample", "y", "x / 8"),
    "ignore": ("sample", "y", "x / 8"),
}
"""The arrays, in the order of a record's fields, and the names of their dimensions."""

INDEX_BYTES = 16
"""Bytes of the index for each chunk."""

CHECKSUM_BYTES = 4


class ZarrWriter:
    """Appends the fields of each record to the files of the three arrays; describes these at the end."""

    def __init__(self, path: Path, layout: RecordLayout) -> None:
        self._path, self._layout, self._rows, self._closed = path, layout, 0, False
        self._stack = ExitStack()
        try:
            for name in DIMENSIONS:
                (path / name).mkdir(parents=True)
            self._files = [self._stack.enter_context((path / _data_name(name)).open("wb")) for name in DIMENSIONS]
        except OSError as error:
            raise CacheWriteError("cannot create {path}: {error}", path=path, error=error) from error

    def append(self, record: U8) -> None:
        """Store the next record. See `ShardWriter`."""
        try:
            for file, field in zip(self._files, self._layout.split(record), strict=True):
                file.write(field.data)
        except OSError as error:
            raise write_error(self._path, error) from error
        self._rows += 1

    def close(self) -> None:
        """Write the indices and the metadata, sync. See `ShardWriter`."""
        if self._closed:
            return
        self._closed = True
        try:
            with self._stack:
                for file, name in zip(self._files, DIMENSIONS, strict=True):
                    file.write(chunk_index(self._rows, math.prod(_chunk_shape(name, self._layout.side))))
            for name, content in _metadata(self._layout.side, self._rows).items():
                (self._path / name).write_bytes(content)
            sync_tree(self._path)
        except OSError as error:
            raise write_error(self._path, error) from error


class ZarrReader:
    """Views into memory maps of the three files; a file stays mapped as long as there is a view of it."""

    def __init__(self, path: Path, layout: RecordLayout) -> None:
        self._path = path
        try:
            self._arrays = [_map_chunks(path, name, layout) for name in DIMENSIONS]
        except (OSError, ValueError) as error:
            raise open_error(path, error) from error

    @property
    def rows(self) -> int:
        """Number of records, all of whose parts are there."""
        return min(len(array) for array in self._arrays)

    def fields(self, row: int) -> Fields:
        """The parts of a record, without a copy. See `ShardReader`."""
        try:
            return Fields(*(array[row] for array in self._arrays))
        except IndexError:
            raise missing_row(self._path, row) from None

    def record(self, row: int) -> U8:
        """The bytes of a record, copied together. See `ShardReader`."""
        return np.concatenate(self.fields(row))

    def close(self) -> None:
        """Close the maps."""
        self._arrays.clear()


def chunk_index(rows: int, chunk_bytes: int) -> bytes:
    """The index after the chunks of a file: offset and size of each (little-endian u64), and the CRC-32C of these."""
    index = np.empty((rows, 2), "<u8")
    index[:, 0], index[:, 1] = np.arange(rows) * chunk_bytes, chunk_bytes
    checksum: int = google_crc32c.value(index.tobytes())
    return index.tobytes() + checksum.to_bytes(CHECKSUM_BYTES, "little")


def _chunk_shape(name: str, side: int) -> tuple[int, ...]:
    """Shape of one sample in an array."""
    return (side, side, 3) if name == "image" else (side, side // 8)


def _data_name(name: str) -> str:
    """The path of an array's data in its group: it is the only chunk of the outer grid."""
    return f"{name}/{'.'.join(['c', *('0' for _ in DIMENSIONS[name])])}"


def chunk_ranges(row: int, side: int) -> list[tuple[str, int, int]]:
    """The location of each part of a record: its file in the group, its first byte, and the byte after its last."""
    sizes = {name: math.prod(_chunk_shape(name, side)) for name in DIMENSIONS}
    return [(_data_name(name), row * size, (row + 1) * size) for name, size in sizes.items()]


def _map_chunks(group: Path, name: str, layout: RecordLayout) -> U8:
    """The data of an array, `(rows, bytes of a sample)`, read only; a `ValueError` if `ZarrWriter` did not write it."""
    path, chunk_bytes = group / _data_name(name), math.prod(_chunk_shape(name, layout.side))
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    rows = (len(data) - CHECKSUM_BYTES) // (chunk_bytes + INDEX_BYTES)
    if rows < 0 or data[rows * chunk_bytes :] != chunk_index(rows, chunk_bytes):
        raise UserError(
            "{file} does not end with the index of its {bytes:,} bytes", file=_data_name(name), bytes=len(data)
        )
    return np.frombuffer(data, np.uint8, rows * chunk_bytes).reshape(rows, chunk_bytes)


@lru_cache(maxsize=8)
def _metadata(side: int, rows: int) -> dict[str, bytes]:
    """The files by which Zarr knows a group of so many samples, by their path in it.

    The same for nearly all shards of a cache; zarr-python takes as long to make them as a shard's last three samples.
    It is slow to import, too, and readers do without it.
    """
    import zarr

    attributes = {
        "content": "person segmentation samples",
        "side": side,
        "image": "RGB",
        "planes": "8 pixels a byte, least significant bit first",
        "person": "annotated persons",
        "ignore": "crowds and padding, left out of loss and metrics",
    }
    files: dict[str, Buffer] = {}
    group = zarr.create_group(zarr.storage.MemoryStore(files), zarr_format=3, attributes=attributes)
    for name, dimensions in DIMENSIONS.items():
        shape = _chunk_shape(name, side)
        group.create_array(
            name,
            shape=(rows, *shape),
            chunks=(1, *shape),
            shards=(max(rows, 1), *shape),  # one file, though there be nothing in it
            dtype="uint8",
            compressors=None,
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=dimensions,
        )
    return {name: content.to_bytes() for name, content in files.items()}
