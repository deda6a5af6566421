"""Shards in object storage, fetched whole into a folder of this machine, and compared with their checksums."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from contextlib import suppress
from io import FileIO
from pathlib import Path

from cache.errors import CacheCorruptError
from cache.file_lock import POLL, lock_file, try_lock, try_lock_file
from cache.index import SAMPLES_NAME, SampleTable, ShardInfo, SplitInfo, decode_table
from cache.messages import message
from cache.shard_folder import ShardFolder, mark_used
from cache.shards import describe
from cache.storage import StoppedError, Storage, remove

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
