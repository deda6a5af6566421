"""The memory addresses of records: each is looked up and checked once, then a batch is a few rows of an array."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import simplejpeg

from cache.errors import CacheError
from loader.bad_records import RecordCheck, check_jpeg
from loader.kernels import BLANK

if TYPE_CHECKING:
    from cache.reader import CacheReader

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

IMAGE, PERSON, IGNORE = 0, 1, 2
"""Columns of `RecordMap.find`."""

_PyMemoryView = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_memory: Callable[[int, int, int], memoryview] = _PyMemoryView(("PyMemoryView_FromMemory", ctypes.pythonapi))
_READ_ONLY = 0x100  # PyBUF_READ


class RecordMap:
    """The addresses of a split's records, as far as they have been asked for.

    Threads may share it as long as no two of them ask for the same sample at a time. Addresses are valid until the
    reader evicts the shard, or is closed.
    """

    def __init__(self, reader: CacheReader, records: RecordCheck) -> None:
        self._reader, self._records = reader, records
        self._places = np.full((len(reader), 3), BLANK, np.int64)
        self._image_bytes = np.zeros(len(reader), np.int64)
        self._own = threading.local()
        reader.watch(self._forget_shard)

    def _forget_shard(self, shard: int) -> None:
        self._places[self._reader.samples["shard"] == shard] = BLANK

    def find(self, samples: I64, valid: int) -> I64:
        """`(N, 3)` addresses of image (raw pixels or a JPEG), packed person and packed ignore of `(N,)` samples.

        The image is `BLANK` for samples that only fill up a batch, from `valid` on, and for bad records.

        Raises:
            CacheCorruptError: a record is bad and not to be skipped.
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
        rows = [row for row, sample in enumerate(samples[:valid].tolist()) if not self._records.is_bad(sample)]
        self._own.records = read = self._reader.fields_of(samples[rows].tolist())
        for row, fields in zip(rows, read, strict=True):
            sample = int(samples[row])
            try:
                self._records.check(sample, np.concatenate(fields))
                places[row] = [field.ctypes.data for field in fields]
            except CacheError as error:
                self._records.reject(sample, error)
        return places

    def _look_up(self, sample: int) -> I64:
        if self._reader.fetches:
            # Before the rest, for a shard that cannot be fetched is more than a bad record, and no reason to skip one.
            self._reader.open_shard(int(self._reader.samples["shard"][sample]))
        if not self._records.is_bad(sample):
            try:
                fields = self._reader.fields(sample)
                self._records.check(sample)
                if self._reader.layout.codec == "jpeg":
                    check_jpeg(fields.image, self._reader.layout.side)
                self._image_bytes[sample] = fields.image.size
                self._places[sample] = [field.ctypes.data for field in fields]
            except (CacheError, ValueError) as error:
                self._records.reject(sample, error)
        place: I64 = self._places[sample]
        return place

    def decode(self, samples: I64, places: I64, out: U8) -> None:
        """Decode the JPEGs of `(N,)` samples straight into `(N, S*S*3)`; one that fails becomes `BLANK` in places.

        Raises:
            CacheCorruptError: one fails and is not to be skipped.
        """
        for row, sample in enumerate(samples.tolist()):
            if places[row, IMAGE] != BLANK:
                try:
                    simplejpeg.decode_jpeg(self.jpeg(sample), "RGB", buffer=out[row])
                    continue
                except ValueError as error:
                    self.forget(sample, error)
                    places[row, IMAGE] = BLANK
            out[row] = 0

    def jpeg(self, sample: int) -> memoryview:
        """The bytes of a JPEG whose address `find` gave, read only: a view.

        Made from the address, it takes less than a microsecond; looking the record up in the store takes fourteen.
        """
        return _memory(int(self._places[sample, IMAGE]), int(self._image_bytes[sample]), _READ_ONLY)

    def forget(self, sample: int, error: Exception) -> None:
        """Reject a record that was found, but cannot be decoded.

        Raises:
            CacheCorruptError: it is not to be skipped.
        """
        self._places[sample] = BLANK
        self._records.reject(sample, error)
