"""Reading of a finished cache: records by the numbers of their samples."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, Self

import numpy as np

from cache.arrays import U8
from cache.errors import REBUILD, CacheCorruptError, CacheError
from cache.index import CacheIndex, SampleTable, load_table
from cache.messages import message
from cache.process import LeftToParent
from cache.record import Fields, RecordLayout
from cache.remote.folder import FolderConfig, ShardFolder
from cache.remote.shards import FetchedShards
from cache.shards import ShardReader, describe, open_reader
from cache.storage import Storage, StorageUrl, place, shard_files

FILES_PER_SHARD = 3
"""Files of a shard that stay open: three with Zarr, one with LMDB."""

OTHER_FILES = 256
"""Files that the rest of the process may want to have open."""


class CacheReader:
    """One split of a finished cache: sample number -> record.

    Shards are opened when first needed, once per process: the reader may be pickled and sent to another one, a forked
    child may go on with it, and several threads may share it.

    Those of a cache in object storage are fetched when first needed, and stay until they are evicted; or their records
    are read in place, which takes three requests each, and nothing is kept.

    Attributes:
        root: the cache's folder, or its `StorageUrl`.
        fetches: whether its shards are fetched when they are needed, and may be evicted.
        stop: ends fetching, and waiting for it, with `StoppedError` as long as it is set.

    Fetched shards are kept in `folder`; `in_place` reads records of Zarr shards in object storage where they are.
    `samples` takes the place of the stored sample table, which is not read then.
    Raises `CacheError` if the cache is missing, of another version or corrupt, or has no such split.
    """

    def __init__(
        self,
        root: PurePath | str,
        split: str,
        folder: FolderConfig | None = None,
        *,
        in_place: bool = False,
        samples: SampleTable | None = None,
    ) -> None:
        self.root, self.split, self.in_place = place(root), split, in_place
        self._folder = folder or FolderConfig()
        self.index = CacheIndex.load(self.root)
        if split not in self.index.splits:
            splits = ", ".join(self.index.splits)
            raise CacheError(
                "{root} has no split {split!r}; it has {splits}; `preprocess --val-share 0.1` divides the photos of "
                "one split into train and val",
                root=root,
                split=split,
                splits=splits,
            )
        self.info = self.index.splits[split]
        self.layout = RecordLayout.of(self.index.spec)
        remote = isinstance(self.root, StorageUrl)
        if in_place and not (remote and self.index.spec.store == "zarr"):
            raise CacheError(
                "{root} is {where} with {store} shards; only Zarr shards in object storage can be read in place: leave "
                "--in-place out",
                root=root,
                where=message("in object storage") if remote else message("on this machine"),
                store=self.index.spec.store,
            )
        self.fetches = remote and not in_place
        self._set_up()
        if samples is None:
            samples = self.store.table() if self.store else load_table(self.root, split, self.info, self.layout.side)
        self.samples: SampleTable = samples

    def _set_up(self) -> None:
        """Make what belongs to this process, for a cache in object storage again in a forked child."""
        self.stop = threading.Event()
        self._shards: dict[int, ShardReader] = {}
        self._states: dict[int, dict[int, tuple[int, int]]] = {}
        self._watchers: list[Callable[[int], None]] = []
        self._store: FetchedShards | None = None
        self._connecting = threading.Lock()
        if isinstance(self.root, StorageUrl):
            _remote_readers.add(self)

    def _connect(self) -> FetchedShards:
        """Open the storage, when it is first needed."""
        assert isinstance(self.root, StorageUrl), f"{self.root} is on this machine"
        with self._connecting:
            if self._store is None:
                storage = Storage(self.root / self.split, stop=self.stop)
                folder, kind = ShardFolder(self._folder, self.stop), self.index.spec.store
                self._store = FetchedShards(storage, folder, self.info, kind, self.layout, self.stop)
            return self._store

    @property
    def store(self) -> FetchedShards | None:
        """The shards in object storage; None if they are on this machine."""
        return self._connect() if isinstance(self.root, StorageUrl) else None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def directory(self) -> Path:
        """The split's folder, of a cache that is on this machine."""
        assert isinstance(self.root, Path), f"{self.root} is not on this machine"
        return self.root / self.split

    def record(self, sample: int) -> U8:
        """The bytes of a sample's record, read only: a view, valid until its shard is evicted, or a copy of parts."""
        if self.in_place:
            return np.concatenate(self.fields(sample))
        place = self.samples[sample]
        return self.open_shard(int(place["shard"])).record(int(place["row"]))

    def fields(self, sample: int) -> Fields:
        """The parts of a sample's record without a copy: views, read only, valid until its shard is evicted."""
        if self.in_place:
            return self.fields_of([sample])[0]
        place = self.samples[sample]
        return self.open_shard(int(place["shard"])).fields(int(place["row"]))

    def fields_of(self, samples: Sequence[int]) -> list[Fields]:
        """The parts of several samples' records: of those that are read in place, all at the same time."""
        if not self.in_place:
            return [self.fields(sample) for sample in samples]
        places = self.samples[list(samples)]
        rows = list(zip(places["shard"].tolist(), places["row"].tolist(), strict=True))
        return self._connect().read_records(rows)

    def open_shards(self) -> None:
        """Open all shards now: raise `CacheCorruptError` if one is missing, cut, or cannot be opened.

        Of shards in object storage only their presence and sizes are checked; `StorageError` if they cannot be listed.
        """
        if self.store:
            self.store.check_sizes()
            return
        for number in range(len(self.info.shards)):
            self.open_shard(number)

    def evict(self, shard: int) -> None:
        """Close a shard, by its number: views of its records must not be used any more. It may be opened again."""
        for watcher in self._watchers:
            watcher(shard)
        if self.fetches:
            self._connect().evict(shard)
        elif opened := self._shards.pop(shard, None):
            opened.close()

    def watch(self, watcher: Callable[[int], None]) -> None:
        """Have `watcher` called with the number of each shard that is evicted, before it is closed."""
        self._watchers.append(watcher)

    def open_shard(self, number: int, cancelled: Container[int] = ()) -> ShardReader:
        """A shard, by its number; fetched and opened now, if it is not open. See `FetchedShards.get`."""
        if self.fetches:
            return self._connect().get(number, cancelled)
        shard = self._shards.get(number)
        if shard is None:
            _allow_open_files(FILES_PER_SHARD * len(self.info.shards) + OTHER_FILES)
            info = self.info.shards[number]
            path = self.directory / info.name
            found = path.stat().st_size if path.is_file() else info.bytes
            if found != info.bytes:  # LMDB would read past the end of a cut file
                values = {"path": path, "found": found, "bytes": info.bytes, "rebuild": REBUILD}
                raise CacheCorruptError("{path} has {found:,} bytes, not {bytes:,}; {rebuild}", **values)
            self._states.setdefault(number, _state(path))
            opened = open_reader(self.index.spec.store, path, self.layout, info.rows)
            shard = self._shards.setdefault(number, opened)
            if shard is not opened:  # another thread was faster
                opened.close()
        return shard

    def check_unchanged(self) -> None:
        """Raise `CacheCorruptError` if an open shard was overwritten; one that made way for another is read on."""
        for number, before in self._states.copy().items():  # other threads may open shards meanwhile
            info, path = self.info.shards[number], self.directory / self.info.shards[number].name
            now = {inode: state for inode, state in _state(path).items() if inode in before}
            if now.items() <= before.items():
                continue
            if describe(path, info.rows).checksum != info.checksum:
                raise CacheCorruptError(
                    "{path} was overwritten while it was being read; bring the cache back, or {rebuild}, then "
                    "go on with --resume from the last checkpoint, which is from before",
                    path=path,
                    rebuild=REBUILD,
                )
            before |= now  # the same bytes, written again

    def close(self) -> None:
        """Close the shards; views that were given out become invalid."""
        if self._store:
            self._store.close()
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()
        self._states.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_shards", "_states", "_watchers", "_store", "_connecting", "stop")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()


# A forked child connects anew: neither threads nor locks of its parent go on there.
_remote_readers = LeftToParent(CacheReader._set_up)


def _state(path: Path) -> dict[int, tuple[int, int]]:
    """Size and time of the last change of each file of a shard, by its inode; nothing if it was just removed."""
    with suppress(OSError):
        return {(found := file.stat()).st_ino: (found.st_size, found.st_mtime_ns) for file in shard_files(path)}
    return {}


def _allow_open_files(count: int) -> None:
    """Let this process have so many files open, where its usual limit is lower (1,024 on many systems)."""
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if usual == resource.RLIM_INFINITY or usual >= count:
        return
    if most != resource.RLIM_INFINITY and most < count:
        raise CacheError(
            "{count} files may have to be open, the limit is {most}; raise it: ulimit -n {count}",
            count=count,
            most=most,
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))
