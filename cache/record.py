"""The record: the bytes of one sample, the same in every store.

    raw    side*side*3 bytes RGB | side*side/8 bytes person | side*side/8 bytes ignore
    jpeg   4 bytes length (little endian) | JPEG | side*side/8 bytes person | side*side/8 bytes ignore

Planes are row major, eight pixels a byte, least significant bit first: `numpy.packbits(bitorder="little")`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import xxhash

from cache.arrays import U8
from cache.choices import Codec
from cache.errors import CacheCorruptError
from cache.spec import CacheSpec

LENGTH_BYTES = 4


class Fields(NamedTuple):
    """The three parts of a record, as views into it."""

    image: U8  # `(side*side*3,)` raw RGB, or the bytes of a JPEG
    person: U8  # `(side*side/8,)` packed plane
    ignore: U8  # `(side*side/8,)` packed plane


@dataclasses.dataclass(frozen=True)
class RecordLayout:
    """Where the parts of a record lie, for one side (pixels) and codec."""

    side: int
    codec: Codec

    @classmethod
    def of(cls, spec: CacheSpec) -> RecordLayout:
        """The layout that a cache of this spec has."""
        return cls(spec.side, spec.codec)

    @property
    def image_bytes(self) -> int:
        """Bytes of the decoded image."""
        return self.side * self.side * 3

    @property
    def plane_bytes(self) -> int:
        """Bytes of one packed plane."""
        return self.side * self.side // 8

    @property
    def raw_bytes(self) -> int:
        """Bytes of a raw record; a JPEG record is smaller in practice."""
        return self.image_bytes + 2 * self.plane_bytes

    @property
    def most_bytes(self) -> int:
        """Bytes that no record exceeds: a JPEG of pure noise is larger than the pixels, but not twice as large."""
        return self.raw_bytes if self.codec == "raw" else LENGTH_BYTES + 2 * self.raw_bytes

    def blank(self, buffer: U8, image_bytes: int) -> U8:
        """The first bytes of a buffer as a record to be filled in, a view: `split` gives its fields.

        Args:
            buffer: `(most_bytes,)` or larger.
            image_bytes: of the JPEG, or of the raw image.
        """
        size = image_bytes + 2 * self.plane_bytes
        if self.codec == "jpeg":
            size += LENGTH_BYTES
            buffer[:LENGTH_BYTES] = np.array([image_bytes], "<u4").view(np.uint8)
        assert buffer.size >= size
        return buffer[:size]

    def split(self, record: U8) -> Fields:
        """The parts of a record, without a copy; raise `CacheCorruptError` if its size is not that of its layout."""
        start, middle = 0, self.image_bytes
        if self.codec == "jpeg":
            start = middle = LENGTH_BYTES
            middle += int(record[:LENGTH_BYTES].view("<u4")[0]) if record.size >= LENGTH_BYTES else self.image_bytes
        size, last, expected = record.size, middle + self.plane_bytes, middle + 2 * self.plane_bytes
        if size != expected:
            raise CacheCorruptError(
                "a record has {size} bytes, not {expected}; run `verify`, then rebuild", size=size, expected=expected
            )
        return Fields(record[start:middle], record[middle:last], record[last:])

    def unpack_plane(self, plane: U8) -> U8:
        """A packed plane as `(side, side)` uint8 of 0 and 1."""
        return np.unpackbits(plane, bitorder="little").reshape(self.side, self.side)


def pack_plane(plane: U8) -> U8:
    """A plane of 0 and 1 as eight pixels a byte, `(pixels / 8,)`."""
    return np.packbits(plane, bitorder="little")


def checksum(data: U8 | bytes) -> int:
    """XXH3 (64 bits) of a record: fast enough to be invisible beside JPEG decoding."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else data)
