"""Shards: many records in one file or folder, written once by one worker, read at random.

A store is a small class behind one of two protocols. Names, hashes, temporary names and the commit live here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import xxhash

from cache.atomic import sync_directory
from cache.errors import CacheError
from cache.index import ShardInfo
from cache.record import U8, RecordLayout
from cache.spec import Store


class ShardWriter(Protocol):
    """Appends records to a new shard. `close` makes them durable; nobody reads the shard before that."""

    def append(self, record: U8) -> None:
        """Store the next record.

        Raises:
            CacheWriteError: the disk is full, or the store failed otherwise.
        """

    def close(self) -> None:
        """Flush and sync. Raises like `append`."""


class ShardReader(Protocol):
    """Reads records of one finished shard."""

    mapped: bool
    """Whether `record` gives a view into mapped memory, valid until `close`, instead of a copy."""

    def record(self, row: int) -> U8:
        """The bytes of a record, read only."""

    def close(self) -> None:
        """Let go of files and maps."""


def open_writer(store: Store, path: Path, layout: RecordLayout, capacity: int) -> ShardWriter:
    """A writer of a new shard of at most `capacity` records."""
    if store == "lmdb":
        from cache.lmdb_shards import LmdbWriter

        return LmdbWriter(path, layout, capacity)
    from cache.zarr_shards import ZarrWriter

    return ZarrWriter(path, layout, capacity)


def open_reader(store: Store, path: Path, layout: RecordLayout) -> ShardReader:
    """A reader of a finished shard.

    Raises:
        CacheCorruptError: the shard is missing, or is not one.
    """
    if store == "lmdb":
        from cache.lmdb_shards import LmdbReader

        return LmdbReader(path)
    from cache.zarr_shards import ZarrReader

    return ZarrReader(path, layout)


def shard_name(number: int, store: Store) -> str:
    """File name of a shard."""
    return f"{number:05d}.{store}"


@contextmanager
def write_shard(
    directory: Path, number: int, store: Store, layout: RecordLayout, capacity: int
) -> Iterator[ShardWriter]:
    """Write a shard under a temporary name; on leaving it is synced and renamed, on an error it is removed."""
    name = shard_name(number, store)
    temporary = directory / f".{name}.tmp"
    remove(temporary)
    writer = open_writer(store, temporary, layout, capacity)
    try:
        yield writer
        writer.close()
        remove(directory / name)
        temporary.rename(directory / name)
        sync_directory(directory)
    except BaseException:
        _close_quietly(writer)
        remove(temporary)
        raise


def _close_quietly(writer: ShardWriter) -> None:
    """Close a writer whose shard is given up; the error that led here is the one to tell."""
    with suppress(CacheError, OSError):
        writer.close()


def describe(path: Path, rows: int) -> ShardInfo:
    """Size and checksum of a finished shard: over the file, or over the names and bytes of a folder's files."""
    digest, size = xxhash.xxh3_128(), 0
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb", buffering=0) as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
                size += len(block)
    return ShardInfo(name=path.name, rows=rows, bytes=size, checksum=digest.hexdigest())


def remove(path: Path) -> None:
    """Delete a shard, file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
