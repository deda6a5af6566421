"""The shards of a split in object storage: fetched when they are needed, evicted when they are not.

They are fetched whole into a folder of this machine, and compared with their checksums. Records of Zarr shards can also
be read where they are. A record is a chunk of each of the three arrays, and these chunks lie in order and without gaps
(see `cache.zarr_shards`): so a range of bytes each is all that is asked for. Zarr-python, which reads the same, asks
for the index of a shard and then for the chunk: twice the requests.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Container, Sequence
from concurrent.futures import Future
from contextlib import suppress
from io import FileIO
from pathlib import Path, PurePath
from threading import Event, Lock

import numpy as np

from cache.choices import Store
from cache.errors import REBUILD, CacheCorruptError
from cache.index import SAMPLES_NAME, SampleTable, ShardInfo, SplitInfo, decode_table
from cache.messages import message
from cache.record import Fields, RecordLayout
from cache.remote.folder import POLL, ShardFolder, lock_file, mark_used, try_lock, try_lock_file
from cache.shards import ShardReader, describe, open_reader
from cache.storage import StoppedError, Storage, remove
from cache.zarr_shards import chunk_ranges

AGAIN = message("if the cache was made again meanwhile, start again; else upload it or make it again")

LOOK = 0.05
"""Seconds between two looks at `stop` while another thread fetches."""


class FetchedShards:
    """Fetches, opens and closes the shards of a split by number, each once for all processes of this machine.

    Threads may share it. Methods raise `StorageError` if object storage cannot be read, `CacheCorruptError` if
    something is missing or not what the index says, `CacheError` if the folder is too small or its disk is full,
    `StoppedError` if `stop` is set.

    Attributes:
        storage: the folder of the split; it counts the requests that it had to repeat.
        folder: where shards are put.
        fetched, fetched_bytes: shards and bytes that this process has fetched so far.

    `info` is that of the split; `stop`, which is the storage's, too, ends waiting with `StoppedError` once it is set.
    """

    def __init__(
        self, storage: Storage, folder: ShardFolder, info: SplitInfo, kind: Store, layout: RecordLayout, stop: Event
    ) -> None:
        self.storage, self.folder, self._stop = storage, folder, stop
        self._info, self._kind, self._layout = info, kind, layout
        self.fetched, self.fetched_bytes = 0, 0
        self._lock = Lock()
        self._opened: dict[int, Future[tuple[ShardReader, FileIO]]] = {}
        self._sound: dict[Path, int] = {}
        self._held: dict[FileIO, tuple[Path, int]] = {}

    def table(self) -> SampleTable:
        """The split's sample table; fetched once and kept."""
        name, source = f"{self._info.table_checksum}.npy", self.storage.root / SAMPLES_NAME
        path, temporary = self.folder.path / name, self.folder.temporary(name)
        with self.folder.disk_errors_explained(), lock_file(self.folder.lock_of(name), self._stop) as own:
            with suppress(FileNotFoundError, CacheCorruptError):
                table = decode_table(path.read_bytes(), path, self._info, self._layout.side)
                mark_used(own)
                return table
            try:
                data = self.storage.read(SAMPLES_NAME)
            except FileNotFoundError:
                raise _missing(source) from None
            table = decode_table(data, source, self._info, self._layout.side)
            self.folder.reserve(name, len(data), own, 0)
            temporary.write_bytes(data)
            temporary.rename(path)
            return table

    def check_sizes(self) -> None:
        """Look whether all shards are in object storage, in their sizes."""
        found: Counter[str] = Counter()
        for name, size in self.storage.sizes().items():
            found[name.partition("/")[0]] += size  # of all files, where a shard is a folder
        for info in self._info.shards:
            if found[info.name] != info.bytes:
                what = message("is missing")
                if info.name in found:
                    what = message("has {found:,} bytes, not {bytes:,}", found=found[info.name], bytes=info.bytes)
                raise CacheCorruptError(
                    "{path} {what}; {again}", path=self.storage.root / info.name, what=what, again=AGAIN
                )

    def get(self, number: int, cancelled: Container[int] = ()) -> ShardReader:
        """A shard, opened; it is fetched if it is not on this machine, once however many threads ask.

        `cancelled` are shards that are no longer wanted: for one that is put in there and then evicted, `StoppedError`
        is raised, and it is not fetched again.
        """
        info, mine = self._info.shards[number], Future[tuple[ShardReader, FileIO]]()
        with self._lock:
            if number in cancelled:
                raise StoppedError(info.name)
            opened = self._opened.setdefault(number, mine)
        if opened is mine:
            try:
                mine.set_result(self._open(info))
            except BaseException as error:
                with self._lock:
                    if self._opened.get(number) is mine:  # it may have been evicted, and asked for again
                        del self._opened[number]  # who asks again, tries again
                mine.set_exception(error)
        while True:
            try:
                return opened.result(LOOK)[0]
            except TimeoutError:
                if self._stop.is_set():
                    raise StoppedError(info.name) from None

    def evict(self, number: int) -> None:
        """Close a shard, if it is open or being fetched; views of its records must not be used any more."""
        with self._lock:
            opened = self._opened.pop(number, None)
        if opened is not None:
            opened.add_done_callback(self._close)

    def close(self) -> None:
        """Evict all shards."""
        for number in list(self._opened):
            self.evict(number)

    def _close(self, opened: Future[tuple[ShardReader, FileIO]]) -> None:
        if opened.exception() is None:
            reader, lock = opened.result()
            reader.close()
            self._release(lock)

    def read_records(self, places: Sequence[tuple[int, int]]) -> list[Fields]:
        """The parts of the records at (shard, row), read in place: all of them are asked for at the same time."""
        wanted = [
            (f"{self._info.shards[shard].name}/{name}", first, end)
            for shard, row in places
            for name, first, end in chunk_ranges(row, self._layout.side)
        ]
        root = self.storage.root
        try:
            found = self.storage.read_ranges(wanted)
        except FileNotFoundError as error:
            raise CacheCorruptError(
                "a shard is missing in {root}: {error}; {rebuild}", root=root, error=error, rebuild=REBUILD
            ) from None
        for (name, first, end), data in zip(wanted, found, strict=True):
            if len(data) != end - first:
                raise CacheCorruptError("{path} ends within a record; {rebuild}", path=root / name, rebuild=REBUILD)
        fields = [np.frombuffer(data, np.uint8) for data in found]
        return [Fields(*fields[at : at + 3]) for at in range(0, len(fields), 3)]

    def _open(self, info: ShardInfo) -> tuple[ShardReader, FileIO]:
        path, lock = self._take(info)
        try:
            return open_reader(self._kind, path, self._layout, info.rows), lock
        except BaseException:
            self._release(lock)
            raise

    def _take(self, info: ShardInfo) -> tuple[Path, FileIO]:
        """Fetch a shard, if it is not on this machine; it stays until its lock, which is given too, is released."""
        name = f"{info.checksum}{Path(info.name).suffix}"
        path, lock = self.folder.path / name, self.folder.lock_of(name)
        with self.folder.disk_errors_explained():
            while True:
                # Never wait for the lock alone: who has it shared may keep it, and wait for this process elsewhere.
                for shared in (True, False):
                    handle = try_lock_file(lock, shared=shared)
                    if handle is None:
                        continue
                    try:
                        if not shared and not self._is_sound(path, info):  # or another process was faster
                            self._fetch(name, info, handle)
                        # Made shared, the lock may be lost for a moment, and with it what it locks, or even its file.
                        if (
                            (shared or try_lock(handle, shared=True))
                            and self._is_sound(path, info)
                            and os.fstat(handle.fileno()).st_nlink
                        ):
                            mark_used(handle)
                            self._held[handle] = path, info.bytes
                            return path, handle
                    except BaseException:
                        handle.close()
                        raise
                    handle.close()
                if self._stop.wait(POLL * random.uniform(0.5, 1.0)):  # others look as well
                    raise StoppedError(name)

    def _release(self, lock: FileIO) -> None:
        """Allow a shard to be removed from the folder."""
        del self._held[lock]
        lock.close()

    def _is_sound(self, path: Path, info: ShardInfo) -> bool:
        """Whether the shard is there and sound: all of it is read when this process sees the file for the first time.

        A damaged shard is fetched again. What was read is in the system's memory when its records are needed.
        """
        try:
            inode = path.stat().st_ino
            if self._sound.get(path) != inode:
                if describe(path, info.rows).checksum != info.checksum:
                    return False
                self._sound[path] = inode
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, name: str, info: ShardInfo, own: FileIO) -> None:
        """Fetch a shard, of which this process holds the exclusive lock."""
        path, temporary = self.folder.path / name, self.folder.temporary(name)
        remove(path)
        held = dict(list(self._held.values()))  # each once, however often it is open
        self.folder.reserve(name, info.bytes, own, sum(held.values()))
        try:
            for _ in range(2):  # what the network has damaged, another attempt may fetch whole
                remove(temporary)
                copy_shard(self.storage, info.name, temporary)
                found = describe(temporary, info.rows)
                if found.checksum == info.checksum:
                    break
            else:
                values = {"path": self.storage.root / info.name, "found": found.bytes, "bytes": info.bytes}
                raise CacheCorruptError(
                    "{path} is not what the index says ({found:,} bytes, not {bytes:,}, or other ones); {again}",
                    **values,
                    again=AGAIN,
                )
            temporary.rename(path)
        except BaseException:
            self.folder.discard(name, own)
            raise
        self._sound[path] = path.stat().st_ino
        self.fetched += 1
        self.fetched_bytes += info.bytes


def copy_shard(storage: Storage, name: str, to: Path) -> None:
    """Copy a shard to this machine as it is: a file, or a folder with all files below it."""
    try:
        if not name.endswith(".zarr"):
            storage.fetch(name, to)
            return
        files = storage.sizes(name)
        if not files:
            raise FileNotFoundError(name)
        for file in files:
            (to / file).parent.mkdir(parents=True, exist_ok=True)
            storage.fetch(f"{name}/{file}", to / file)
    except FileNotFoundError:
        raise _missing(storage.root / name) from None


def _missing(path: PurePath) -> CacheCorruptError:
    return CacheCorruptError("{path} is missing though the index names it; {again}", path=path, again=AGAIN)
