"""COCO in a folder: missing archives are fetched, checked, unpacked and removed."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import re
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from cache.messages import message, system_reason
from preprocess.download.fetch import Listener, fetch
from preprocess.download.plan import Archive, DownloadConfig, Item, folder_size, make_plan
from preprocess.errors import DownloadError

_DAMAGES = (BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError)
"""What `zipfile` raises for bytes that are no sound archive."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What was written of an archive; `kept` files were already there with the right size."""

    files: int
    bytes: int
    kept: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was done with the archive `name`, which holds `folder`; `fetched` bytes came from the server."""

    name: str
    folder: str
    images: int  # number of images that were in the folder before
    fetched: int = 0
    unpacked: Unpacked | None = None  # what was written; None if all was there and nothing was touched
    kept: Path | None = None  # path of the archive; None if it was not kept


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadReport:
    """What `download_coco` did; `unfinished` are the bytes of other downloads that were begun or failed."""

    root: Path
    outcomes: tuple[Outcome, ...]
    unfinished: int
    seconds: float


def download_coco(config: DownloadConfig, listener: Listener) -> DownloadReport:
    """Fetch and unpack what is missing of COCO. If the process is killed, the next call resumes.

    Raises `DownloadError`: the download failed; the message says what to do.
    """
    start = time.perf_counter()
    config.root.mkdir(parents=True, exist_ok=True)
    with _locked(config.root):
        plan = make_plan(config)
        if any(item.needed for item in plan.items):
            listener.on_plan(plan)
            config.staging.mkdir(exist_ok=True)
        outcomes = tuple(_complete(config, item, listener) for item in plan.items)
        with contextlib.suppress(OSError):  # not there, or parts of another split are in it
            config.staging.rmdir()
        unfinished = folder_size(config.staging)
    seconds = time.perf_counter() - start
    return DownloadReport(root=config.root, outcomes=outcomes, unfinished=unfinished, seconds=seconds)


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Allow one download at a time in a folder; the kernel releases the lock when its holder dies."""
    handle = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadError("another download works in {root}; wait for it, or stop it", root=root) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def _complete(config: DownloadConfig, item: Item, listener: Listener) -> Outcome:
    """Bring the folder of an archive to its full content."""
    archive, own, staged = item.archive, config.root / item.archive.name, config.staging / item.archive.name
    fetched, unpacked = 0, None
    if item.needed:
        if item.source == "server":
            part = staged.with_name(f"{staged.name}.part")
            fetched = fetch(archive, config.url(archive), part, listener)
            _check(archive, part, listener)
            part.replace(staged)  # a file of this name is complete
        elif item.source == "own":
            _check(archive, own, listener)
        with listener.stage("unpack", archive) as update:
            unpacked = _unpack(archive, own if item.source == "own" else staged, config.root, update)
        if item.source != "own":
            _tidy(config, staged, own)
    return Outcome(
        name=archive.name,
        folder=archive.folder,
        images=item.images,
        fetched=fetched,
        unpacked=unpacked,
        kept=own if own.is_file() else None,
    )


def _check(archive: Archive, path: Path, listener: Listener) -> None:
    """Compare the hash of an archive of the right size."""
    digest, done = hashlib.md5(usedforsecurity=False), 0
    with listener.stage("check", archive) as update, path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
            done += len(data)
            update(done, archive.bytes)
    found = digest.hexdigest()
    if found != archive.md5:
        what = message("{name} has md5 {found}, not {md5}", name=archive.name, found=found, md5=archive.md5)
        raise _set_aside(path, what)


def _set_aside(path: Path, what: str) -> DownloadError:
    """Rename a damaged archive, so that the next run fetches it again."""
    aside = path.with_name(f"{path.name.removesuffix('.part')}.bad")
    path.replace(aside)
    return DownloadError(
        "{what}: damaged on the way, or not COCO's; it is now {aside}, which you may delete; run the "
        "same command again to fetch it anew, perhaps with another --base-url",
        what=what,
        aside=aside,
    )


def _unpack(archive: Archive, path: Path, root: Path, update: Callable[[int, int], None]) -> Unpacked:
    """Unpack an archive, whose hash is known to be right, into its one folder.

    A file gets its name once its CRC-32 is checked, and the last file only when the others are on disk: a folder with
    all its files is complete, even after a power cut. `update` is called with (bytes done, bytes in all). Raises
    `DownloadError`: the archive was damaged since, the disk is full, or a file cannot be written.
    """
    folder = root / archive.folder
    temporary = folder / ".unpacking.tmp"
    try:
        with ZipFile(path) as source:
            members = [info for info in source.infolist() if not info.is_dir()]
            for info in members:  # no '..', no absolute path, no other folder, no hidden file
                if not re.fullmatch(rf"{archive.folder}/\w[\w.-]*", info.orig_filename, re.ASCII):
                    values = {"member": info.orig_filename, "folder": archive.folder}
                    raise BadZipFile(message("it holds {member!r}, which is no file of {folder}/", **values))
            missing = [info for info in members if not _is_there(root / info.filename, info.file_size)]
            folder.mkdir(exist_ok=True)
            total, written = sum(info.file_size for info in members), sum(info.file_size for info in missing)
            done = total - written
            update(done, total)
            try:
                for info in missing:
                    with source.open(info) as member, temporary.open("wb") as file:
                        shutil.copyfileobj(member, file, 1 << 20)  # at its end zipfile compares the CRC-32
                    if info is missing[-1]:
                        os.sync()  # a call per file would take longer than the unpacking
                    temporary.replace(root / info.filename)
                    done += info.file_size
                    update(done, total)
            finally:
                temporary.unlink(missing_ok=True)
    except _DAMAGES as error:
        raise _set_aside(path, message("{name} is damaged: {error}", name=path.name, error=error)) from None
    except OSError as error:
        raise DownloadError(
            "cannot unpack {path} to {folder}: {reason}; mend that and run the same command again, it goes on from "
            "there",
            path=path,
            folder=folder,
            reason=system_reason(error),
        ) from None
    return Unpacked(files=len(missing), bytes=written, kept=len(members) - len(missing))


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _tidy(config: DownloadConfig, staged: Path, own: Path) -> None:
    staged.with_name(f"{staged.name}.bad").unlink(missing_ok=True)
    if config.keep_archives:
        staged.replace(own)
    else:
        staged.unlink()
