from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cache.errors import REBUILD, CacheCorruptError, CacheError
from cache.index import CacheIndex, SampleTable, load_table
from cache.record import U8, RecordLayout
from cache.shards import ShardReader, open_reader


class CacheReader:
    """One split of a finished cache: sample number -> record.

    Shards are opened when first needed, once a process: the reader may be pickled and sent to another one.
    It is not meant to be shared with a forked child after a record was read.

    Raises:
        CacheError: the cache is missing, of another version or corrupt, or has no such split.
    """

    def __init__(self, root: Path | str, split: str) -> None:
        self.root, self.split = Path(root), split
        self.index = CacheIndex.load(self.root)
        if split not in self.index.splits:
            raise CacheError(f"{root} has no split {split!r}; it has {', '.join(self.index.splits)}")
        self.info = self.index.splits[split]
        self.layout = RecordLayout.of(self.index.spec)
        self.samples: SampleTable = load_table(self.root, split, self.info)
        self._shards: dict[int, ShardReader] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def record(self, sample: int) -> U8:
        """The bytes of a sample's record; with LMDB a view, valid until `close`."""
        place = self.samples[sample]
        return self._shard(int(place["shard"])).record(int(place["row"]))

    @property
    def mapped(self) -> bool:
        """Whether records are views into mapped memory."""
        return len(self) == 0 or self._shard(int(self.samples["shard"][0])).mapped

    def addresses(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Memory address and size of every record, valid until `close`: for kernels that gather without Python.

        Only for a `mapped` store.
        """
        assert self.mapped
        where, size = np.empty(len(self), np.int64), np.empty(len(self), np.int64)
        for sample in range(len(self)):
            record = self.record(sample)
            where[sample], size[sample] = record.ctypes.data, record.size
        return where, size

    def _shard(self, number: int) -> ShardReader:
        shard = self._shards.get(number)
        if shard is None:
            info = self.info.shards[number]
            path = self.root / self.split / info.name
            if path.is_file() and path.stat().st_size != info.bytes:  # LMDB would read past the end of a cut file
                raise CacheCorruptError(f"{path} has {path.stat().st_size:,} bytes, not {info.bytes:,}; {REBUILD}")
            shard = self._shards[number] = open_reader(self.index.spec.store, path, self.layout)
        return shard

    def close(self) -> None:
        """Close the shards; views that were given out become invalid."""
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}}
