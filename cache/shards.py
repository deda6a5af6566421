"""Shards: many records in one file or folder, written once by one worker, read at random.

A store is a small class behind one of two protocols. Names, hashes, temporary names and the commit live here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import xxhash

from cache.arrays import U8
from cache.atomic import sync_path
from cache.choices import Store
from cache.errors import REBUILD, CacheCorruptError, CacheError
from cache.index import ShardInfo
from cache.record import Fields, RecordLayout
from cache.storage import remove, shard_files

BLOCK = 1 << 20
"""Bytes that are read and hashed at a time: they stay in the processor's cache between both."""


class ShardWriter(Protocol):
    """Appends records to a new shard. `close` makes them durable; nobody reads the shard before that.

    Both methods raise `CacheWriteError` if the disk is full, or the store fails otherwise.
    """

    def append(self, record: U8) -> None:
        """Store the next record; its buffer may be used again afterwards."""

    def close(self) -> None:
        """Flush and sync."""


class ShardReader(Protocol):
    """Reads records of one finished shard. Threads may share it."""

    @property
    def rows(self) -> int:
        """Number of records."""

    def record(self, row: int) -> U8:
        """The bytes of a record, read only: a view, valid until `close`, or a copy where they lie apart."""

    def fields(self, row: int) -> Fields:
        """The parts of a record without a copy: views into mapped memory, read only, valid until `close`."""

    def close(self) -> None:
        """Close files and maps."""


def open_writer(store: Store, path: Path, layout: RecordLayout, capacity: int) -> ShardWriter:
    """A writer of a new shard of at most `capacity` records."""
    if store == "lmdb":
        from cache.lmdb_shards import LmdbWriter

        return LmdbWriter(path, layout, capacity)
    from cache.zarr_shards import ZarrWriter

    return ZarrWriter(path, layout)


def open_reader(store: Store, path: Path, layout: RecordLayout, rows: int) -> ShardReader:
    """A reader of a finished shard. Raises `CacheCorruptError` if it is missing, or not one of so many records."""
    reader: ShardReader
    if store == "lmdb":
        from cache.lmdb_shards import LmdbReader

        reader = LmdbReader(path, layout)
    else:
        from cache.zarr_shards import ZarrReader

        reader = ZarrReader(path, layout)
    if (found := reader.rows) != rows:
        reader.close()
        values = {"path": path, "found": found, "rows": rows, "rebuild": REBUILD}
        raise CacheCorruptError("{path} has {found:,} records, not {rows:,}; {rebuild}", **values)
    return reader


def shard_name(number: int, store: Store) -> str:
    """File name of a shard."""
    return f"{number:05d}.{store}"


class ShardDraft:
    """A shard under a temporary name, until it is finished or discarded.

    `append` and `finish` may be called from different threads, one at a time.
    """

    def __init__(self, directory: Path, name: str, store: Store, layout: RecordLayout, capacity: int) -> None:
        self._path, self._temporary = directory / name, directory / f".{name}.tmp"
        remove(self._temporary)
        self._rows = 0
        self._writer = open_writer(store, self._temporary, layout, capacity)

    def append(self, record: U8) -> None:
        """Store the next record. See `ShardWriter`."""
        self._writer.append(record)
        self._rows += 1

    def finish(self) -> ShardInfo:
        """Make the shard durable and give it its name. Raises `CacheWriteError`."""
        self._writer.close()
        info = dataclasses.replace(describe(self._temporary, self._rows), name=self._path.name)
        remove(self._path)
        self._temporary.rename(self._path)
        sync_path(self._path.parent)
        return info

    def discard(self) -> None:
        """Remove what there is of an unfinished shard."""
        with suppress(CacheError, OSError):  # the error that led here is the one to tell
            self._writer.close()
        remove(self._temporary)


@contextmanager
def write_shard(
    directory: Path, number: int, store: Store, layout: RecordLayout, capacity: int
) -> Iterator[ShardDraft]:
    """A shard that is finished at the end of the block, or discarded if it fails."""
    draft = ShardDraft(directory, shard_name(number, store), store, layout, capacity)
    try:
        yield draft
        draft.finish()
    except BaseException:
        draft.discard()
        raise


def describe(path: Path, rows: int) -> ShardInfo:
    """Size and checksum of a finished shard: over the file, or over the names and bytes of a folder's files."""
    digest, size, buffer = xxhash.xxh3_128(), 0, memoryview(bytearray(BLOCK))
    for file in shard_files(path):
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode())
        # Read, not mapped: a disk that fails is then an error and no signal, and a cold file comes faster.
        with file.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                digest.update(buffer[:count])
                size += count
    return ShardInfo(name=path.name, rows=rows, bytes=size, checksum=digest.hexdigest())
