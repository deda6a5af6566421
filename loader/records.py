"""The memory addresses of records: each is looked up and checked once, then a batch is a few rows of an array."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from cache.arrays import I64, U8
from cache.choices import OnBadRecord
from cache.errors import CacheCorruptError, CacheError
from cache.record import checksum
from loader.batch import BadRecord, Batch
from loader.kernels import BLANK
from loader.order import BatchPlan

if TYPE_CHECKING:
    from torch import Tensor

    from cache.reader import CacheReader


IMAGE, PERSON, IGNORE = 0, 1, 2  # columns of `RecordMap.find`

_PyMemoryView = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_memory: Callable[[int, int, int], memoryview] = _PyMemoryView(("PyMemoryView_FromMemory", ctypes.pythonapi))
_READ_ONLY = 0x100  # PyBUF_READ


class RecordMap:
    """The addresses of a split's records, as far as they have been asked for, and which of the records are bad.

    Threads may share it as long as no two of them ask for the same sample at a time. Addresses are valid until the
    reader evicts the shard, or is closed. Methods raise `CacheCorruptError` for a bad record that may not be skipped.
    """

    def __init__(self, reader: CacheReader, on_bad_record: OnBadRecord) -> None:
        self._reader, self._stops = reader, on_bad_record == "stop"
        self._places = np.full((len(reader), 3), BLANK, np.int64)
        self._image_bytes = np.zeros(len(reader), np.int64)
        self._sound = bytearray(len(reader))  # 1 where the checksum was compared
        self._bad: dict[int, BadRecord] = {}
        self._own = threading.local()
        reader.watch(self._forget_shard)

    def _forget_shard(self, shard: int) -> None:
        self._places[self._reader.samples["shard"] == shard] = BLANK

    def find(self, samples: I64, valid: int) -> I64:
        """`(N, 3)` addresses of image (raw pixels or a JPEG), packed person and packed ignore of `(N,)` samples.

        The image is `BLANK` for samples that only fill up a batch, from `valid` on, and for bad records.
        """
        if self._reader.in_place:
            return self._read(samples, valid)
        places = self._places[samples]
        places[valid:] = BLANK
        if not places[:valid, IMAGE].all():
            for row in np.flatnonzero(places[:valid, IMAGE] == BLANK).tolist():
                places[row] = self._look_up(int(samples[row]))
        return places

    def _read(self, samples: I64, valid: int) -> I64:
        """As `find`, of records that are read in place: they stay until the thread asks for the next ones."""
        places = np.full((len(samples), 3), BLANK, np.int64)
        rows = [row for row, sample in enumerate(samples[:valid].tolist()) if sample not in self._bad]
        self._own.records = read = self._reader.fields_of(samples[rows].tolist())
        for row, fields in zip(rows, read, strict=True):
            sample = int(samples[row])
            try:
                self._check(sample, np.concatenate(fields))
                places[row] = [field.ctypes.data for field in fields]
            except CacheError as error:
                self.reject(sample, error)
        return places

    def _look_up(self, sample: int) -> I64:
        reader = self._reader
        if reader.fetches:
            # Before the rest, for a shard that cannot be fetched is more than a bad record, and no reason to skip one.
            reader.open_shard(int(reader.samples["shard"][sample]))
        if sample not in self._bad:
            try:
                fields = reader.fields(sample)
                if not self._sound[sample]:  # once: raw pixels take longer to hash than to copy
                    self._check(sample, reader.record(sample))
                    self._sound[sample] = 1
                if reader.layout.codec == "jpeg":
                    _check_jpeg(fields.image, reader.layout.side)
                self._image_bytes[sample] = fields.image.size
                self._places[sample] = [field.ctypes.data for field in fields]
            except (CacheError, ValueError) as error:
                self.reject(sample, error)
        place: I64 = self._places[sample]
        return place

    def _check(self, sample: int, record: U8) -> None:
        if checksum(record) != int(self._reader.samples["checksum"][sample]):
            raise CacheCorruptError("its checksum differs")

    def decode(self, samples: I64, places: I64, out: U8) -> None:
        """Decode the JPEGs of `(N,)` samples straight into `(N, S*S*3)`; one that fails becomes `BLANK` in places."""
        for row, sample in enumerate(samples.tolist()):
            if places[row, IMAGE] != BLANK:
                try:
                    simplejpeg.decode_jpeg(self.jpeg(sample), "RGB", buffer=out[row])
                    continue
                except ValueError as error:
                    self.reject(sample, error)
                    places[row, IMAGE] = BLANK
            out[row] = 0

    def jpeg(self, sample: int) -> memoryview:
        """The bytes of a JPEG whose address `find` gave, read only: a view.

        Made from the address, it takes less than a microsecond; looking the record up in the store takes fourteen.
        """
        return _memory(int(self._places[sample, IMAGE]), int(self._image_bytes[sample]), _READ_ONLY)

    def reject(self, sample: int, error: Exception) -> None:
        """Take note that a record is bad, if the loader may skip it and has others."""
        reader = self._reader
        image_id, where = int(reader.samples["image_id"][sample]), f"{reader.root}/{reader.split}"
        if self._stops:
            values = {"sample": sample, "image_id": image_id, "where": where, "error": error, "root": reader.root}
            raise CacheCorruptError(
                "sample {sample} (image {image_id}) of {where} cannot be read: {error}; run `verify --cache "
                "{root}`, which finds all bad records, or train without them: `--on-bad-record skip`",
                **values,
            ) from error
        self._places[sample] = BLANK
        self._bad[sample] = BadRecord(split=reader.split, sample=sample, image_id=image_id, reason=str(error))
        if len(self._bad) == len(reader):
            values = {"samples": len(reader), "where": where, "error": error, "root": reader.root}
            raise CacheCorruptError(
                "none of the {samples} samples of {where} can be read, the last because {error}; run `verify --cache "
                "{root}`",
                **values,
            ) from error

    def skipped(self, plan: BatchPlan) -> tuple[BadRecord, ...]:
        """The bad records of a batch, in its order."""
        if not self._bad:
            return ()
        return tuple(self._bad[sample] for sample in plan.samples[: plan.valid].tolist() if sample in self._bad)


def make_batch(plan: BatchPlan, tensors: tuple[Tensor, Tensor, Tensor], records: RecordMap) -> Batch:
    """A batch of image, person and ignore that were made as planned."""
    return Batch(*tensors, samples=plan.samples, valid=plan.valid, epoch=plan.epoch, skipped=records.skipped(plan))


def _check_jpeg(jpeg: U8, side: int) -> None:
    """Refuse a JPEG that is not of `(side, side)` pixels, before a decoder writes it into a buffer of that size."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    if (height, width) != (side, side):
        raise CacheCorruptError(
            "its JPEG is {width} x {height} pixels, not {side} x {side}", width=width, height=height, side=side
        )
