"""Shards in object storage, fetched whole into a folder of this machine, and compared with their checksums.

The open shards of a split in object storage: fetched when they are needed, evicted when they are not.

Records of Zarr shards in object storage, read where they are.

A record is a chunk of each of the three arrays, and these chunks lie in order and without gaps (see
`cache.zarr_shards`): so a range of bytes each is all that is asked for. Zarr-python, which reads the same, asks for the
index of a shard and then for the chunk: twice the requests.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Container, Sequence
from concurrent.futures import Future
from contextlib import suppress
from io import FileIO
from pathlib import Path

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


class Lease:
    """A shard that is on this machine, and stays there until the lease is closed.

    Attributes:
        path: of the shard.
    """

    def __init__(self, path: Path, lock: FileIO, held: dict[FileIO, tuple[Path, int]]) -> None:
        self.path, self._lock, self._held = path, lock, held

    def close(self) -> None:
        """Allow the shard to be removed from the folder. To be called once."""
        del self._held[self._lock]
        self._lock.close()


class ShardStore:
    """The shards of one split of a cache, each fetched once for all processes of this machine. Threads may share it.

    Attributes:
        storage: the folder of the split; it counts the requests that it had to repeat.
        folder: where they are put.
        fetched, fetched_bytes: shards and bytes that this process has fetched so far.

    Args:
        storage: see above.
        folder: see above.
        stop: ends waiting with `StoppedError`, once it is set; the storage's, too.
    """

    def __init__(self, storage: Storage, folder: ShardFolder, stop: threading.Event) -> None:
        self.folder, self.storage, self._stop = folder, storage, stop
        self.fetched, self.fetched_bytes = 0, 0
        self._sound: dict[Path, int] = {}
        self._held: dict[FileIO, tuple[Path, int]] = {}

    def table(self, info: SplitInfo) -> SampleTable:
        """The split's sample table; fetched once and kept.

        Raises:
            StorageError: it cannot be read.
            CacheCorruptError: it is missing, or not what the index says.
            CacheError: the folder's disk is full.
        """
        name, source = f"{info.table_checksum}.npy", self.storage.root / SAMPLES_NAME
        path, temporary = self.folder.path / name, self.folder.temporary(name)
        with self.folder.disk_errors_explained():
            own = lock_file(self.folder.lock_of(name), self._stop)
            try:
                with suppress(FileNotFoundError, CacheCorruptError):
                    table = decode_table(path.read_bytes(), path, info)
                    mark_used(own)
                    return table
                try:
                    data = self.storage.read(SAMPLES_NAME)
                except FileNotFoundError:
                    raise CacheCorruptError(
                        "{source} is missing though the index names it; {again}", source=source, again=AGAIN
                    ) from None
                table = decode_table(data, source, info)
                self.folder.reserve(name, len(data), own, 0)
                temporary.write_bytes(data)
                temporary.rename(path)
                return table
            finally:
                own.close()

    def check_sizes(self, shards: tuple[ShardInfo, ...]) -> None:
        """Look whether all shards are in object storage, in their sizes.

        Raises:
            StorageError: they cannot be listed.
            CacheCorruptError: one is missing or of another size.
        """
        found: Counter[str] = Counter()
        for name, size in self.storage.sizes().items():
            found[name.partition("/")[0]] += size  # of all files, where a shard is a folder
        for info in shards:
            if found[info.name] != info.bytes:
                what = (
                    message("has {found:,} bytes, not {bytes:,}", found=found[info.name], bytes=info.bytes)
                    if info.name in found
                    else message("is missing")
                )
                raise CacheCorruptError(
                    "{root} {what}; {again}", root=self.storage.root / info.name, what=what, again=AGAIN
                )

    def take(self, info: ShardInfo) -> Lease:
        """Fetch a shard, if it is not on this machine; every byte of it was compared with its checksum.

        Raises:
            StorageError: it cannot be read.
            CacheCorruptError: it is missing, or is not what the index says.
            CacheError: the folder is too small, or its disk is full.
            StoppedError: it was asked to stop.
        """
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
                            return Lease(path, handle, self._held)
                    except BaseException:
                        handle.close()
                        raise
                    handle.close()
                if self._stop.wait(POLL * random.uniform(0.5, 1.0)):  # others look as well
                    raise StoppedError(name)

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
        held = dict(list(self._held.values()))  # each once, however many leases it has
        self.folder.reserve(name, info.bytes, own, sum(held.values()))
        try:
            for attempt in (1, 2):  # what the network has damaged, another attempt may fetch whole
                remove(temporary)
                copy_shard(self.storage, info.name, temporary)
                found = describe(temporary, info.rows)
                if found.checksum == info.checksum:
                    break
                if attempt == 2:
                    raise CacheCorruptError(
                        "{root} is not what the index says ({bytes:,} bytes, not {bytes2:,}, or other ones); {again}",
                        root=self.storage.root / info.name,
                        bytes=found.bytes,
                        bytes2=info.bytes,
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
    """Copy a shard to this machine as it is: a file, or a folder with all files below it.

    Raises:
        StorageError: it cannot be read.
        CacheCorruptError: it is missing.
    """
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
        raise CacheCorruptError(
            "{root} is missing though the index names it; {again}", root=storage.root / name, again=AGAIN
        ) from None


LOOK = 0.05
"""Seconds between two looks at `stop` while another thread fetches."""


class FetchedShards:
    """Fetches, opens and closes the shards of a split by number. Threads may share it.

    Args:
        store: where they come from.
        shards: of the split.
        kind: the container of a shard.
        layout: of its records.
        stop: ends waiting with `StoppedError`, once it is set.
    """

    def __init__(
        self, store: ShardStore, shards: tuple[ShardInfo, ...], kind: Store, layout: RecordLayout, stop: threading.Event
    ) -> None:
        self.store, self._shards, self._kind, self._layout, self._stop = store, shards, kind, layout, stop
        self._lock = threading.Lock()
        self._fetched: dict[int, Future[tuple[ShardReader, Lease]]] = {}

    def get(self, number: int, cancelled: Container[int] = ()) -> ShardReader:
        """A shard, opened; it is fetched if it is not on this machine, once however many threads ask.

        Args:
            number: of the shard.
            cancelled: shards that are no longer wanted. A shard that is put in here and then evicted is not fetched
                again.

        Raises:
            CacheError: see `ShardStore.take` and `open_reader`.
            StoppedError: `stop` is set, or the shard is cancelled.
        """
        with self._lock:
            if number in cancelled:
                raise StoppedError(self._shards[number].name)
            fetched = self._fetched.get(number)
            mine = fetched is None
            if fetched is None:
                fetched = self._fetched[number] = Future()
        if mine:
            try:
                fetched.set_result(self._fetch(self._shards[number]))
            except BaseException as error:
                with self._lock:
                    if self._fetched.get(number) is fetched:  # it may have been evicted, and asked for again
                        del self._fetched[number]  # who asks again, tries again
                fetched.set_exception(error)
        while True:
            try:
                return fetched.result(LOOK)[0]
            except TimeoutError:
                if self._stop.is_set():
                    raise StoppedError(self._shards[number].name) from None

    def _fetch(self, info: ShardInfo) -> tuple[ShardReader, Lease]:
        lease = self.store.take(info)
        try:
            return open_reader(self._kind, lease.path, self._layout), lease
        except BaseException:
            lease.close()
            raise

    def evict(self, number: int) -> None:
        """Close a shard, if it is open or being fetched; views of its records must not be used any more."""
        with self._lock:
            fetched = self._fetched.pop(number, None)
        if fetched is not None:
            fetched.add_done_callback(_close)

    def close(self) -> None:
        """Evict all shards."""
        for number in list(self._fetched):
            self.evict(number)


def _close(fetched: Future[tuple[ShardReader, Lease]]) -> None:
    if fetched.exception() is None:
        for opened in fetched.result():
            opened.close()


def read_records(
    storage: Storage, shards: tuple[ShardInfo, ...], layout: RecordLayout, places: Sequence[tuple[int, int]]
) -> list[Fields]:
    """The parts of records, all of them asked for at the same time.

    Args:
        storage: the folder of the split.
        shards: of the split.
        layout: of their records.
        places: (shard, row) of each record.

    Raises:
        StorageError: they cannot be read.
        CacheCorruptError: a shard is missing or too short.
    """
    wanted = [
        (f"{shards[shard].name}/{name}", first, end)
        for shard, row in places
        for name, first, end in chunk_ranges(row, layout.side)
    ]
    try:
        found = storage.read_ranges(wanted)
    except FileNotFoundError as error:
        raise CacheCorruptError(
            "a shard is missing in {root}: {error}; {rebuild}", root=storage.root, error=error, rebuild=REBUILD
        ) from None
    for (name, first, end), data in zip(wanted, found, strict=True):
        if len(data) != end - first:
            raise CacheCorruptError("{root} ends within a record; {rebuild}", root=storage.root / name, rebuild=REBUILD)
    fields = [np.frombuffer(data, np.uint8) for data in found]
    return [Fields(*fields[at : at + 3]) for at in range(0, len(fields), 3)]
