"""Files by their location: a path of this machine, or a `StorageUrl`. Local and remote differ here and nowhere else.

All functions raise `StorageError` if object storage fails, and `OSError` if the disk does.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import TypeVar

from cache.atomic import sync_path, write_atomically
from cache.errors import StorageError
from cache.storage import Storage, StorageUrl, shard_files
from cache.storage import remove as remove_local

AT_ONCE = 16
"""Requests to object storage that are under way at a time: most of one is waiting for its answer."""

Result = TypeVar("Result")


def at_once(location: PurePath) -> int:
    """How many requests to a location are sent at a time: 1 to a disk, `AT_ONCE` to object storage."""
    return AT_ONCE if isinstance(location, StorageUrl) else 1


def absolute(path: PurePath) -> PurePath:
    """The same file for a process that was started in another folder."""
    return path if isinstance(path, StorageUrl) else Path(path).absolute()


def read(path: PurePath) -> bytes:
    """The bytes of a file. Raises `FileNotFoundError` if there is none."""
    return _storage(path).read() if isinstance(path, StorageUrl) else Path(path).read_bytes()


def file_digest(path: Path) -> str:
    """SHA-256 of a file of this machine, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def for_each(work: Callable[[PurePath], Result], paths: Iterable[PurePath]) -> list[Result]:
    """The results of a function for files, in their order; in threads where a file is in object storage."""
    wanted = list(paths)
    threads = max(map(at_once, wanted), default=1)
    if threads == 1:
        return [work(path) for path in wanted]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, wanted))


def read_all(paths: Iterable[PurePath]) -> list[bytes | None]:
    """The bytes of files, in their order; None for one that is not there."""

    def read_one(path: PurePath) -> bytes | None:
        with suppress(FileNotFoundError):
            return read(path)
        return None

    return for_each(read_one, paths)


@contextmanager
def local_copy(path: PurePath) -> Iterator[Path]:
    """A file as one of this machine within the block: itself, or a temporary copy. Raises like `read`."""
    if not isinstance(path, StorageUrl):
        yield Path(path)
        return
    with TemporaryDirectory(prefix="maskcache-") as folder:
        copy = Path(folder) / path.name
        _storage(path).fetch("", copy)
        yield copy


def write(path: PurePath, data: bytes) -> None:
    """Write a file that is either whole or not there, over what may be there."""
    if isinstance(path, StorageUrl):
        _storage(path).write("", data)
    else:
        write_atomically(Path(path), data)


def create(path: StorageUrl, data: bytes) -> bool:
    """Write a file unless there is one; whether it was written."""
    return _storage(path).create("", data)


def upload(source: Path, to: StorageUrl) -> None:
    """Copy a file of this machine, or all files of a folder, to object storage, over what may be there."""
    storage = _storage(to)
    for file in shard_files(source):
        storage.upload(file, "" if file == source else file.relative_to(source).as_posix())


@contextmanager
def staging(folder: PurePath, scratch: str | None = None) -> Iterator[Path]:
    """A folder of this machine in which files for `folder` are made, until `deliver` sends them there.

    It is that folder itself; for one in object storage, a temporary folder within `scratch`, or the system's.
    """
    if not isinstance(folder, StorageUrl):
        yield Path(folder)
        return
    with TemporaryDirectory(prefix="maskcache-", dir=scratch) as temporary:
        yield Path(temporary)


def deliver(made: Path, to: PurePath) -> None:
    """Send a file or folder from a `staging` folder to its location, unless it was made there."""
    if isinstance(to, StorageUrl):
        upload(made, to)
        remove_local(made)


def move(source: PurePath, to: PurePath) -> None:
    """Rename a file or folder within one bucket, or one disk, over what may be at `to`.

    In object storage it is copied there, file by file, and removed. Raises `FileNotFoundError` if there is none.
    """
    if isinstance(source, StorageUrl):
        storage = _storage(source)
        for name in storage.sizes() or [""]:
            storage.copy(name, to / name)
        storage.remove()
    else:
        remove(to)
        Path(source).rename(to)
        sync_path(Path(to).parent)


def remove(path: PurePath) -> None:
    """Delete a file, or a folder with all that is in it, if it is there."""
    if isinstance(path, StorageUrl):
        assert len(path.parts) > 2, "never all of a bucket"
        _storage(path).remove()
    else:
        remove_local(Path(path))


def make_folder(path: PurePath) -> None:
    """Make a folder and those above it, where they are not there; object storage has none to make."""
    if not isinstance(path, StorageUrl):
        Path(path).mkdir(parents=True, exist_ok=True)


def free_bytes(folder: PurePath) -> float:
    """Free space of the disk that a folder is on or would be made on; object storage has no end."""
    if isinstance(folder, StorageUrl):
        return math.inf
    path = Path(folder).absolute()
    return shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists())).free


def names(folder: PurePath) -> list[str]:
    """What is in a folder, sorted; nothing if it is not there."""
    if isinstance(folder, StorageUrl):
        return _storage(folder).names()
    return sorted(path.name for path in Path(folder).iterdir()) if Path(folder).is_dir() else []


def sizes(folder: PurePath) -> dict[str, int]:
    """Bytes of all files below a folder, by their names relative to it; nothing if it is not there."""
    if isinstance(folder, StorageUrl):
        return _storage(folder).sizes()
    root = Path(folder)
    return {file.relative_to(root).as_posix(): file.stat().st_size for file in shard_files(root) if file.is_file()}


def _storage(url: StorageUrl) -> Storage:
    """What is at a URL. Those of one bucket share their connections."""
    if len(url.parts) < 2:
        raise StorageError("{url} names no bucket; use s3://BUCKET/FOLDER", url=url)
    return Storage(url)
