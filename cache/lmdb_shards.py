"""Records in LMDB, one file per shard: the store whose records are read fastest."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from cache.arrays import U8
from cache.errors import REBUILD, CacheCorruptError, CacheError, CacheWriteError, missing_row, open_error, write_error
from cache.process import fork_lock
from cache.record import Fields, RecordLayout

COMMIT_RECORDS = 2
"""LMDB allocates the dirty pages of a transaction, and frees them when it commits. Once it is enough, glibc gives what
is freed back to the system, and gets it anew page by page. With 8 records of 480 kB a transaction that takes 0.17 to
0.66 ms a record, with 16 about 0.8, with 2 always 0.155 (writing the bytes to a plain file: 0.13)."""

PAGE = 4096


def _key(row: int) -> bytes:
    return row.to_bytes(4, "big")  # big endian: the order of the keys is the order of the rows


class LmdbWriter:
    """Records in one LMDB file, keyed by row; appended in order, so that the tree fills without a split."""

    def __init__(self, path: Path, layout: RecordLayout, capacity: int) -> None:
        # Address space, not disk: the file grows by what is written. A JPEG that is larger than the raw pixels is
        # possible for pure noise, hence twice the raw size.
        size = (2 * layout.raw_bytes + 4 * PAGE) * capacity + (1 << 20)
        try:
            self._env = lmdb.open(str(path), subdir=False, map_size=size, lock=False, sync=False, metasync=False)
        except (lmdb.Error, OSError) as error:
            raise CacheWriteError("cannot create {path}: {error}", path=path, error=error) from error
        self._path, self._rows = path, 0
        self._transaction = self._env.begin(write=True)
        self._closed = False

    def append(self, record: U8) -> None:
        """Store the next record. See `ShardWriter`."""
        try:
            self._transaction.put(_key(self._rows), record.data, append=True)
            self._rows += 1
            if self._rows % COMMIT_RECORDS == 0:
                self._transaction.commit()
                self._transaction = self._env.begin(write=True)
        except lmdb.Error as error:
            raise write_error(self._path, error) from error

    def close(self) -> None:
        """Commit and sync. See `ShardWriter`."""
        if self._closed:
            return
        self._closed = True
        try:
            self._transaction.commit()
            self._env.sync(True)
        except lmdb.Error as error:
            raise write_error(self._path, error) from error
        finally:
            self._env.close()


class LmdbReader:
    """Views into the memory map, valid until `close`.

    Each thread that reads has a transaction of its own, for one is not for several threads at a time; it stays open.
    """

    def __init__(self, path: Path, layout: RecordLayout) -> None:
        self._path, self._layout = path, layout
        self._transactions: dict[int, Any] = {}
        try:
            self._env = _acquire(path)
        except (lmdb.Error, OSError) as error:
            if "already" in str(error):  # in this process, as py-lmdb says
                raise CacheError(
                    "{path} is already open in this process, not by a CacheReader; LMDB cannot open a file twice: "
                    "close it there, or read it in another process",
                    path=path,
                ) from error
            raise open_error(path, error) from error

    @property
    def rows(self) -> int:
        """Number of records."""
        return int(self._env.stat()["entries"])

    def record(self, row: int) -> U8:
        """The bytes of a record, without a copy. See `ShardReader`."""
        try:
            transaction = self._transactions.get(threading.get_ident())
            if transaction is None:
                transaction = self._transactions[threading.get_ident()] = self._env.begin(buffers=True)
            value = transaction.get(_key(row))
        except lmdb.Error as error:
            values = {"row": row, "path": self._path, "error": error, "rebuild": REBUILD}
            raise CacheCorruptError("cannot read row {row} of {path}: {error}; {rebuild}", **values) from error
        if value is None:
            raise missing_row(self._path, row)
        return np.frombuffer(value, np.uint8)

    def fields(self, row: int) -> Fields:
        """The parts of a record, without a copy. See `ShardReader`."""
        return self._layout.split(self.record(row))

    def close(self) -> None:
        """Unmap the file, unless another reader has it too. Views given out before must not be used any more."""
        for transaction in self._transactions.values():
            transaction.abort()
        _release(self._env)


# LMDB must not open a file twice in one process, yet two loaders may well read the same split: they share.
# A forked child shares with its parent, too: of an environment without locks, opened to be read only, it inherits a
# file handle and a memory map, which are as good as its own. It could not open the file again, for the inherited
# environment counts as open there; nor close that one first, for views of records may have been inherited with it.
_open_files: dict[tuple[int, int], Any] = {}  # by device and inode
_readers = Counter[Any]()  # of each of these
_open_files_lock = fork_lock()


def _acquire(path: Path) -> Any:
    status = path.stat()
    key = status.st_dev, status.st_ino  # not the path, where another file may be by now
    with _open_files_lock:
        if key not in _open_files:
            # With readahead, its default: a record is a hundred pages in a row; one by one they take six times as long.
            environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, create=False, max_spare_txns=1)
            _open_files[key] = environment
        _readers[_open_files[key]] += 1
        return _open_files[key]


def _release(environment: Any) -> None:
    with _open_files_lock:
        _readers[environment] -= 1
        if not _readers[environment]:
            del _readers[environment]
            for key in [key for key, opened in _open_files.items() if opened is environment]:
                del _open_files[key]
            environment.close()
