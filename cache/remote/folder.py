"""A folder of bounded size for what is fetched from object storage, shared by all processes of a machine.

    <name>         a shard or a sample table, named by its checksum
    <name>.lock    locked while that is fetched (exclusively) or read (shared); its text is the bytes that it takes, its
                   time that of the last use
    .<name>.tmp    what is being fetched; only the process that holds the exclusive lock touches it
    room           locked by the process that counts and removes

What a killed process leaves behind is overwritten or removed, and never read. Locks are those of `flock`, which the
kernel gives back however a process ends. A forked child inherits open files, and a lock is held until all of its open
files are closed: so a child closes them at once.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from cache.errors import CacheError
from cache.messages import system_reason
from cache.process import LeftToParent, fork_lock
from cache.storage import StoppedError, remove

POLL = 0.02
"""Seconds between two looks at a lock that another process holds: one can stop waiting, which `flock` cannot."""

ROOM_SECONDS = 120.0
"""How long to wait until others stop using something before the folder counts as too small."""

FREE_SHARE = 0.5
"""Share of the disk's free bytes that the folder may take by default."""

LOCK = ".lock"

# Files, and not their numbers, which are other files' once these are closed.
_open_files = LeftToParent(FileIO.close)
_opening = fork_lock()


def lock_file(path: Path, stop: threading.Event) -> FileIO:
    """Open a file, made if it is not there, and lock it until it is closed.

    Raises `StoppedError` if `stop` was set while another lock was in the way, `OSError` if it cannot be opened.
    """
    while (file := try_lock_file(path)) is None:
        if stop.wait(POLL):
            raise StoppedError(str(path))
    return file


def try_lock_file(path: Path, *, shared: bool = False) -> FileIO | None:
    """As `lock_file`, or shared with others, but None at once if another lock is in the way."""
    while True:
        with _opening:
            file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
            _open_files.add(file)
        if not try_lock(file, shared=shared):
            file.close()
            return None
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # it was removed meanwhile, and locks nothing any more


def try_lock(file: FileIO | int, *, shared: bool = False) -> bool:
    """Lock an open file, or turn its lock into the other kind, unless another one is in the way."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Hold a lock within the block, as the only process that writes in its folder.

    The kernel releases it when its holder dies. Raises `CacheError`: another process holds it, or it cannot be written.
    """
    try:
        file = try_lock_file(path)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):  # of a network's disk that knows no locks
            yield
            return
        values = {"parent": path.parent, "strerror": system_reason(error)}
        raise CacheError("cannot write in {parent}: {strerror}; choose another --out", **values) from None
    if file is None:
        raise CacheError(
            "{parent} is being written by process {holder}; wait for it, or stop it, or choose another --out",
            parent=path.parent,
            holder=path.read_text() or "unknown",
        )
    with file:
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """The folder for fetched shards, and its size."""

    folder: Path | None = None  # None takes `$MASKCACHE_CACHE_DIR`, else `maskcache` in the user's folder for caches
    size: int = 0  # bytes that it may hold; 0 takes half of what is free there, and what it holds already

    def __post_init__(self) -> None:
        if self.size < 0:
            raise CacheError("cache_size={size} is negative; 0 takes half of what is free on the disk", size=self.size)

    @property
    def path(self) -> Path:
        """The folder."""
        if self.folder is not None:
            return self.folder
        if named := os.environ.get("MASKCACHE_CACHE_DIR"):
            return Path(named)
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskcache"


def parse_size(text: str, name: str = "cache_size") -> int:
    """Bytes, from `50GB`, `800 MB`, `1.5TB` or a plain number; units are decimal, `GiB` and so on are binary.

    Raises `CacheError`, which has the setting's name, if it is none of that.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(?:([kmgt])(i?)b?|b|bytes)?\s*", text.lower())
    if not found:
        raise CacheError("{name}={text!r} is no size; write it as 50GB or 800MB", name=name, text=text)
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** (" kmgt".index(unit) if unit else 0))


class ShardFolder:
    """Counts what is in the folder, and removes what was not used for longest. Threads may share it.

    `limit` is the bytes that it may hold; `stop` ends waiting with `StoppedError`, once it is set. Raises `CacheError`
    if the folder cannot be made.
    """

    def __init__(self, config: FolderConfig, stop: threading.Event) -> None:
        self.path, self._stop = config.path, stop
        with self.disk_errors_explained():
            self.path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path).free
            self.limit = config.size or int(FREE_SHARE * free) + sum(size for _, size, _ in self._entries())
            with lock_file(self.path / "room", stop):
                self._remove_others("", 0)  # it may have been allowed more before

    def lock_of(self, name: str) -> Path:
        """The lock file of a name."""
        return self.path / f"{name}{LOCK}"

    def temporary(self, name: str) -> Path:
        """The file or folder of a name while it is being fetched."""
        return self.path / f".{name}.tmp"

    def reserve(self, name: str, size: int, own: FileIO, held: int) -> None:
        """Remove files until there is room for `size` bytes that are about to be fetched, and count them from now on.

        `own` is the lock of the name, which this process holds exclusively; it keeps `held` bytes in use meanwhile.
        Raises `CacheError` if so much is in use that there is no room, `StoppedError` if `stop` is set.
        """
        begun = time.monotonic()
        while True:
            with lock_file(self.path / "room", self._stop):
                left = self._remove_others(name, size)
                if left + size <= self.limit:
                    _write(own, size)
                    return
            if held + size > self.limit or time.monotonic() - begun > ROOM_SECONDS:
                values = {"path": self.path, "limit": self.limit, "used": left, "size": size, "needed": left + size}
                raise CacheError(
                    "{path} may hold {limit:,} bytes; {used:,} of them are in use, and {size:,} more are needed; use "
                    "a --cache-size of {needed:,} or more, or another --cache-dir",
                    **values,
                )
            if self._stop.wait(5 * POLL):
                raise StoppedError(name)

    def _remove_others(self, name: str, size: int) -> int:
        """Remove what nobody uses until there is room, the least recently used first; give the bytes that stay."""
        entries = [entry for entry in self._entries() if entry[0] != name]
        left = sum(entry[1] for entry in entries)
        for other, taken, _ in sorted(entries, key=lambda entry: entry[2]):
            if left + size <= self.limit:
                break
            left -= taken if self._remove(other) else 0
        return left

    def _remove(self, name: str) -> bool:
        """Remove something unless it is in use."""
        lock = self.lock_of(name)
        mine = try_lock_file(lock)
        if mine is None:
            return False
        with mine:
            remove(self.path / name)
            remove(self.temporary(name))
            lock.unlink()  # last: until then it is counted
        return True

    def _entries(self) -> list[tuple[str, int, float]]:
        """Name, bytes and last use of all that is there or on its way."""
        found = []
        for lock in self.path.glob(f"*{LOCK}"):
            with suppress(FileNotFoundError):  # it was just removed
                found.append((lock.name.removesuffix(LOCK), int(lock.read_text() or 0), lock.stat().st_mtime))
        return found

    def discard(self, name: str, own: FileIO) -> None:
        """Remove the parts of something that could not be fetched."""
        remove(self.temporary(name))
        _write(own, 0)

    @contextmanager
    def disk_errors_explained(self) -> Iterator[None]:
        """Turn any `OSError` in the block, one of the folder's disk, into a `CacheError` that names the remedy."""
        try:
            yield
        except OSError as error:
            raise CacheError(
                "cannot use {path} for fetched shards: {reason}; free some space, or choose a smaller --cache-size or "
                "another --cache-dir",
                path=self.path,
                reason=system_reason(error),
            ) from error


def mark_used(lock: FileIO) -> None:
    """Set the time of the last use of what is locked. The kernel's own clock for files may stand still for 10 ms."""
    now = time.time_ns()
    os.utime(lock.fileno(), ns=(now, now))


def _write(lock: FileIO, size: int) -> None:
    lock.truncate(0)
    os.pwrite(lock.fileno(), str(size).encode(), 0)
