"""The folder that a cache is built in: its lock, what may be in it, and whether there is space."""

from __future__ import annotations

import dataclasses
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePath

import msgspec
import psutil

from cache import files
from cache.choices import SPLITS
from cache.errors import CacheError, StorageError
from cache.index import INDEX_NAME
from cache.messages import message, system_reason
from cache.record import RecordLayout
from cache.remote.folder import only_writer
from cache.spec import CacheSpec
from cache.storage import StorageUrl

LOCK_NAME = "build.lock"

JPEG_BYTES_PER_PIXEL = 0.45
"""Quality 95 without subsampling, in LMDB: measured on 740 of COCO's photos at side 384. For estimates of space."""


def make_folder(out: PurePath) -> None:
    """Make the folder of a cache, if it is not there. Raises `CacheError`: it cannot be made."""
    try:
        files.make_folder(out)
    except OSError as error:
        values = {"out": out, "strerror": system_reason(error)}
        raise CacheError("cannot create {out}: {strerror}; choose another --out", **values) from None


def lock_folder(out: PurePath) -> AbstractContextManager[None]:
    """Hold the lock of a folder, in which only one build at a time may work.

    Raises `CacheError`: the folder cannot be written in, or another process holds the lock. `StorageError`: it is in
    object storage, which cannot be written.
    """
    lock = out / LOCK_NAME
    return _lock_object(lock) if isinstance(lock, StorageUrl) else only_writer(Path(lock))


class _Holder(msgspec.Struct, frozen=True):
    """The content of a lock in object storage; `word` tells two builds of one process apart."""

    host: str
    process: int
    started: float  # seconds after the machine: both times change with the clock, and not their difference
    locked: str
    word: str = ""


@contextmanager
def _lock_object(path: StorageUrl) -> Iterator[None]:
    """Create an object that only one process can create.

    It stays if its holder is killed. The next build on the same machine finds that out; on another machine a person has
    to remove it. Where a server lets several processes create the same object (old ones that speak S3 do), the user has
    to ensure that only one build at a time writes there.
    """
    this = psutil.Process()
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    started = this.create_time() - psutil.boot_time()
    mine = msgspec.json.encode(_Holder(socket.gethostname(), this.pid, started, now, uuid.uuid4().hex))
    if not _take(path, mine):
        other = _read_holder(path)
        if other and _is_dead(other):
            files.remove(path)
        if not _take(path, mine):
            other = _read_holder(path) or other
            holder = message("another process")
            if other:
                values = {"process": other.process, "host": other.host, "locked": other.locked}
                holder = message("process {process} on {host}, since {locked}", **values)
            raise CacheError(
                "{parent} is being written by {holder}; wait for it, or stop it; if it was killed, remove {path}",
                parent=path.parent,
                holder=holder,
                path=path,
            )
    try:
        yield
    finally:
        with suppress(StorageError):  # the error that ended the build, if there was one, matters more
            files.remove(path)


def _take(path: StorageUrl, mine: bytes) -> bool:
    return files.create(path, mine) and files.read(path) == mine


def _read_holder(path: StorageUrl) -> _Holder | None:
    try:
        return msgspec.json.decode(files.read(path), type=_Holder)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _is_dead(holder: _Holder) -> bool:
    """Whether a holder was a process of this machine and is no more."""
    if holder.host != socket.gethostname():
        return False
    try:
        started = psutil.Process(holder.process).create_time() - psutil.boot_time()
    except psutil.NoSuchProcess:
        return True
    return bool(abs(started - holder.started) > 1)  # then another process has its number now


def lock_holder(out: PurePath) -> str:
    """The content of a folder's lock, which names its holder; empty where there is none."""
    try:
        return files.read(out / LOCK_NAME).decode().strip()
    except OSError:
        return ""


def check_owner(out: PurePath) -> None:
    """Refuse a folder that holds other things than a cache, or whose splits are links.

    A build removes from these folders whatever is not part of the cache. Behind a link, that could be anything. Raises
    `CacheError`: it is such a folder.
    """
    foreign = set(files.names(out)) - {LOCK_NAME, INDEX_NAME, f".{INDEX_NAME}.tmp", *SPLITS}
    if foreign:
        raise CacheError(
            "{out} holds other things ({name}); give --out a folder of its own", out=out, name=min(foreign)
        )
    for folder in (out / split for split in SPLITS):
        if isinstance(folder, Path) and folder.is_symlink():
            raise CacheError(
                "{folder} is a link to {target}, and a build only writes in folders of its own; move the whole "
                "cache there, and give --out that folder",
                folder=folder,
                target=folder.readlink(),
            )


def has_shards(out: PurePath) -> bool:
    """Whether a folder holds finished shards of any cache."""
    return any(name.endswith(".json") for split in SPLITS for name in files.names(out / split))


def clear(out: PurePath) -> None:
    """Remove a cache, finished or not."""
    for name in (INDEX_NAME, *SPLITS):  # the index first: from then on there is no cache
        files.remove(out / name)


def resolve_codec(spec: CacheSpec, images: int, memory: int) -> CacheSpec:
    """Choose raw pixels if the cache then fits in half of `memory` (bytes): later epochs then never touch the disk."""
    fits = images * RecordLayout(spec.side, "raw").raw_bytes <= memory // 2
    return dataclasses.replace(spec, codec="raw" if fits or spec.store == "zarr" else "jpeg")


def needed_bytes(spec: CacheSpec, images: int) -> int:
    """An estimate of the bytes that a number of images take."""
    layout = RecordLayout.of(spec)
    jpeg_bytes = int(spec.side**2 * JPEG_BYTES_PER_PIXEL) + 2 * layout.plane_bytes
    return images * (layout.raw_bytes if spec.codec == "raw" else jpeg_bytes)


def check_space(out: PurePath, spec: CacheSpec, images: int) -> None:
    """Refuse to write a number of images for which there is not enough space.

    Raises `CacheError`: the estimate exceeds the free space.
    """
    need, free = needed_bytes(spec, images), files.free_bytes(out)
    if need > free:
        values = {"images": images, "need": need / 1e6, "out": out, "free": free / 1e6}
        raise CacheError(
            "{images:,} images need about {need:,.0f} MB and {out} has room for {free:,.0f} MB; free some "
            "space, or use --image-codec jpeg or a smaller --side",
            **values,
        )
