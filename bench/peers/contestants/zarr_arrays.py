"""Zarr-python reading our Zarr shards, in a torch DataLoader. In our own environment."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from torch.utils.data import Dataset

from bench.peers.child import Feed
from bench.peers.contestants.common import Tensors, tensors, worker_loader
from bench.peers.task import Task
from cache.index import CacheIndex

FIELDS = ("image", "person", "ignore")


class ZarrSamples(Dataset[Tensors]):
    """The samples of all shards, in order; opened by each worker for itself."""

    def __init__(self, cache: Path) -> None:
        shards = CacheIndex.load(cache).splits["train"].shards
        self._paths = [cache / "train" / shard.name for shard in shards]
        self._starts = np.cumsum([0, *(shard.rows for shard in shards)])
        self._arrays: list[list[Any]] = []

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> Tensors:
        """Image `(S, S, 3)` and both planes `(S, S)`, uint8."""
        if not self._arrays:
            groups = [zarr.open_group(str(path), mode="r") for path in self._paths]
            self._arrays = [[group[name] for name in FIELDS] for group in groups]
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        image, person, ignore = (array[number - self._starts[shard]] for array in self._arrays[shard])
        side = len(image)
        planes = [np.unpackbits(plane, bitorder="little").reshape(side, side) for plane in (person, ignore)]
        return tensors(image, planes)


def open_feed(task: Task, _stack: ExitStack) -> Feed:
    """A DataLoader in worker processes, which must not be forked from one where Zarr's threads run."""
    loader = worker_loader(ZarrSamples(task.folder / "cache-zarr"), task, shuffle=True)
    return lambda: loader
