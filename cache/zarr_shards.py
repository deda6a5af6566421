"""Records as a Zarr v3 group of three sharded arrays that any Zarr reader opens.

image  (rows, side, side, 3) uint8    person, ignore  (rows, side, side / 8) uint8, bits as in `cache.record`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import BaseZarrError

from cache.atomic import sync_tree
from cache.errors import REBUILD, CacheCorruptError, CacheWriteError
from cache.record import U8, RecordLayout

ARRAYS = ("image", "person", "ignore")

ROWS_PER_FILE = 32
"""Samples in one Zarr shard file. It is written whole and at once: Zarr rewrites a shard for each partial write."""


class ZarrWriter:
    """Buffers `ROWS_PER_FILE` records, then writes one shard file of each array."""

    def __init__(self, path: Path, layout: RecordLayout, capacity: int) -> None:
        self._path, self._layout = path, layout
        self._rows, self._pending = 0, list[U8]()
        self._closed = False
        side = layout.side
        shapes = {"image": (side, side, 3), "person": (side, side // 8), "ignore": (side, side // 8)}
        try:
            self._group = zarr.create_group(str(path), zarr_format=3, attributes=_attributes(layout))
            self._arrays: dict[str, zarr.Array[Any]] = {
                name: self._group.create_array(
                    name,
                    shape=(capacity, *shape),
                    chunks=(1, *shape),
                    shards=(ROWS_PER_FILE, *shape),
                    dtype="uint8",
                    compressors=None,
                    dimension_names=["sample", "y", "x", "channel"][: 1 + len(shape)],
                )
                for name, shape in shapes.items()
            }
        except OSError as error:
            raise CacheWriteError(f"cannot create {path}: {error}") from error

    def append(self, record: U8) -> None:
        """Store the next record. See `ShardWriter`."""
        self._pending.append(record)
        if len(self._pending) == ROWS_PER_FILE:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        stop = self._rows + len(self._pending)
        fields = [self._layout.split(record) for record in self._pending]
        try:
            for position, name in enumerate(ARRAYS):
                array = self._arrays[name]
                rows = np.stack([field[position] for field in fields])
                array[self._rows : stop] = rows.reshape(-1, *array.shape[1:])
        except OSError as error:
            raise CacheWriteError(f"cannot write {self._path}: {error}; free some space and run it again") from error
        self._rows, self._pending = stop, []

    def close(self) -> None:
        """Write what is pending, cut the arrays to the rows that there are, sync. See `ShardWriter`."""
        if self._closed:
            return
        self._closed = True
        self._flush()
        for array in self._arrays.values():
            array.resize((self._rows, *array.shape[1:]))
        sync_tree(self._path)


class ZarrReader:
    """Reads a record by reading one chunk of each array."""

    mapped = False

    def __init__(self, path: Path, layout: RecordLayout) -> None:
        self._path, self._layout = path, layout
        try:
            group = zarr.open_group(str(path), mode="r", zarr_format=3)
            self._arrays = [group[name] for name in ARRAYS]
        except (BaseZarrError, FileNotFoundError, KeyError, ValueError) as error:
            raise CacheCorruptError(f"cannot open the shard {path}: {error}; {REBUILD}") from error

    def record(self, row: int) -> U8:
        """The bytes of a record, copied. See `ShardReader`."""
        try:
            parts = [np.asarray(array[row]).reshape(-1) for array in self._arrays]  # type: ignore[index]
        except (BaseZarrError, IndexError, OSError, ValueError) as error:
            raise CacheCorruptError(f"cannot read row {row} of {self._path}: {error}; {REBUILD}") from error
        return np.concatenate(parts)

    def close(self) -> None:
        """Nothing is kept open."""


def _attributes(layout: RecordLayout) -> dict[str, Any]:
    """What a stranger who opens the group wants to know."""
    return {
        "content": "person segmentation samples",
        "side": layout.side,
        "image": "RGB",
        "planes": "8 pixels a byte, least significant bit first",
        "person": "annotated persons",
        "ignore": "crowds and padding, left out of loss and metrics",
    }
