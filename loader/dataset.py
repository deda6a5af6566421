"""Single samples of a cache, for whoever has a `DataLoader` with samplers, workers and transforms of their own."""

from __future__ import annotations

import operator
import os
from pathlib import PurePath
from time import monotonic
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from cache.index import SampleTable
from cache.messages import message
from cache.reader import CacheReader
from loader.kernels import copy_records, unpack_planes
from loader.prefetch import OFF_LINE, Buffers
from loader.records import RecordMap

CHECK_SECONDS = 5.0
"""Seconds between two checks whether shards were overwritten after their records were compared with the index."""


class MaskDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """A split of a cache as a map-style dataset: `dataset[i]` is (image, person, ignore) of a sample.

    image is `(3, S, S)` uint8 RGB, a view of `(S, S, 3)`; person and ignore are `(1, S, S)` uint8 0/1. There is no
    augmentation. It may be pickled, and forked: each process opens the shards for itself, when it first needs them.

    Raises `CacheError` as `CacheReader`, `CacheCorruptError` for a bad record and, within seconds, for a shard that was
    overwritten, and `IndexError` beyond the samples.
    """

    def __init__(self, cache: PurePath | str, split: str = "train") -> None:
        self._reader = CacheReader(cache, split)
        self._records: tuple[int, RecordMap] | None = None  # and the process that has them
        self._check_at = 0.0

    @property
    def samples(self) -> SampleTable:
        """The table of the samples, a row each: see `cache.index.SampleTable`."""
        return self._reader.samples

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        sample, count, layout = operator.index(index), len(self), self._reader.layout
        if not -count <= sample < count:
            raise IndexError(message("index {index} is beyond the {samples} samples", index=sample, samples=count))
        if self._records is None or self._records[0] != os.getpid():
            self._records = os.getpid(), RecordMap(self._reader, "stop")
        if monotonic() >= self._check_at:
            self._reader.check_unchanged()
            self._check_at = monotonic() + CHECK_SECONDS
        records, samples = self._records[1], np.array([sample % count])
        places = records.find(samples, 1)
        buffers = Buffers(1, layout.side, off=OFF_LINE if layout.codec == "jpeg" else 0)
        image, person, ignore = buffers.rows
        if layout.codec == "jpeg":
            records.decode(samples, places, image)
            unpack_planes(places, person, ignore)
        else:
            copy_records(places, image, person, ignore)
        image_N3SS, person_N1SS, ignore_N1SS = buffers.tensors
        return image_N3SS[0], person_N1SS[0], ignore_N1SS[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": None, "_check_at": 0.0}
