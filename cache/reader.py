from __future__ import annotations

import resource
from pathlib import Path
from typing import Any, Self

from cache.errors import REBUILD, CacheCorruptError, CacheError
from cache.index import CacheIndex, SampleTable, load_table
from cache.record import U8, Fields, RecordLayout
from cache.shards import ShardReader, open_reader

FILES_A_SHARD = 3
"""Files of a shard that stay open: three with Zarr, one with LMDB."""

OTHER_FILES = 256
"""Files that the rest of the process may want to have open."""


class CacheReader:
    """One split of a finished cache: sample number -> record.

    Shards are opened when first needed, once a process: the reader may be pickled and sent to another one, and several
    threads may share it. It is not meant to be shared with a forked child after a record was read.

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
        """The bytes of a sample's record, read only: a view, valid until `close`, or a copy where they lie apart."""
        place = self.samples[sample]
        return self._shard(int(place["shard"])).record(int(place["row"]))

    def fields(self, sample: int) -> Fields:
        """The parts of a sample's record without a copy: views, read only, valid until `close`."""
        place = self.samples[sample]
        return self._shard(int(place["shard"])).fields(int(place["row"]))

    def open_shards(self) -> None:
        """Open all shards now: else one that is missing is found when one of its records is needed.

        Raises:
            CacheCorruptError: a shard is missing, cut, or cannot be opened.
        """
        for number in range(len(self.info.shards)):
            self._shard(number)

    def _shard(self, number: int) -> ShardReader:
        shard = self._shards.get(number)
        if shard is None:
            _allow_open_files(FILES_A_SHARD * len(self.info.shards) + OTHER_FILES)
            info = self.info.shards[number]
            path = self.root / self.split / info.name
            if path.is_file() and path.stat().st_size != info.bytes:  # LMDB would read past the end of a cut file
                raise CacheCorruptError(f"{path} has {path.stat().st_size:,} bytes, not {info.bytes:,}; {REBUILD}")
            opened = open_reader(self.index.spec.store, path, self.layout)
            shard = self._shards.setdefault(number, opened)
            if shard is not opened:  # another thread was faster
                opened.close()
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


def _allow_open_files(count: int) -> None:
    """Let this process have so many files open, where its usual limit is lower (1,024 on many systems).

    Raises:
        CacheError: not even the limit to which it may go by itself is enough.
    """
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if usual == resource.RLIM_INFINITY or usual >= count:
        return
    if most != resource.RLIM_INFINITY and most < count:
        raise CacheError(f"{count} files may have to be open, the limit is {most}; raise it: ulimit -n {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))
