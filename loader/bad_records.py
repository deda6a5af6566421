"""Bad records: how a loader finds them and what it does about them, the same on every backend."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import simplejpeg

from cache.choices import OnBadRecord
from cache.errors import CacheCorruptError
from cache.record import checksum
from loader.order import BatchPlan

if TYPE_CHECKING:
    from cache.reader import CacheReader

U8 = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadRecord:
    """A record that is not what was written, or cannot be read.

    Attributes:
        split, sample: which one.
        image_id: COCO's.
        reason: what is wrong with it.
    """

    split: str
    sample: int
    image_id: int
    reason: str


class RecordCheck:
    """The state of each record of a split: not yet read, sound, or bad.

    Threads may share it as long as no two of them check the same sample at a time.
    """

    def __init__(self, reader: CacheReader, on_bad_record: OnBadRecord) -> None:
        self._reader, self._stops = reader, on_bad_record == "stop"
        self._sound = bytearray(len(reader))
        self._bad: dict[int, BadRecord] = {}

    def is_bad(self, sample: int) -> bool:
        """Whether a sample was rejected before, and need not be read again."""
        return sample in self._bad

    def check(self, sample: int, record: U8 | None = None) -> None:
        """Compare a record with its checksum, once: raw pixels take longer to hash than to copy.

        Args:
            sample: whose it is.
            record: its bytes if they were just read over a network: these are compared each time.

        Raises:
            CacheCorruptError: they differ.
        """
        if record is None:
            if self._sound[sample]:
                return
            record = self._reader.record(sample)
        if checksum(record) != int(self._reader.samples["checksum"][sample]):
            raise CacheCorruptError("its checksum differs")
        self._sound[sample] = 1

    def reject(self, sample: int, error: Exception) -> None:
        """Take note that a record is bad, if the loader may skip it.

        Raises:
            CacheCorruptError: it may not, or no sample is left.
        """
        reader = self._reader
        image_id, where = int(reader.samples["image_id"][sample]), f"{reader.root}/{reader.split}"
        if self._stops:
            raise CacheCorruptError(
                "sample {sample} (image {image_id}) of {where} cannot be read: {error}; run `verify --cache "
                "{root}`, which finds all bad records, or train without them: `--on-bad-record skip`",
                sample=sample,
                image_id=image_id,
                where=where,
                error=error,
                root=reader.root,
            ) from error
        self._bad[sample] = BadRecord(split=reader.split, sample=sample, image_id=image_id, reason=str(error))
        if len(self._bad) == len(reader):
            raise CacheCorruptError(
                "none of the {reader_count} samples of {where} can be read, the last because {error}; run "
                "`verify --cache {root}`",
                reader_count=len(reader),
                where=where,
                error=error,
                root=reader.root,
            ) from error

    def skipped(self, plan: BatchPlan) -> tuple[BadRecord, ...]:
        """The bad records of a batch, in its order."""
        if not self._bad:
            return ()
        return tuple(self._bad[sample] for sample in plan.samples[: plan.valid].tolist() if sample in self._bad)


def check_jpeg(jpeg: U8, side: int) -> None:
    """Refuse a JPEG that is not of `(side, side)` pixels, before a decoder writes it into a buffer of that size.

    Raises:
        CacheCorruptError: it has another size.
        ValueError: it has no JPEG header.
    """
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    if (height, width) != (side, side):
        raise CacheCorruptError(
            "its JPEG is {width} x {height} pixels, not {side} x {side}", width=width, height=height, side=side
        )
