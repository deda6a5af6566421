"""COCO in a folder: missing archives are fetched, checked, unpacked and removed."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cache.messages import message
from preprocess.download.fetch import Listener, fetch
from preprocess.download.plan import Archive, DownloadConfig, Item, folder_size, make_plan
from preprocess.download.unpack import ArchiveError, Unpacked, unpack
from preprocess.errors import DownloadError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was done with an archive.

    Attributes:
        name: its file name.
        folder: the dataset's folder that it holds.
        images: number of images that were in the folder before.
        fetched: bytes that came from the server.
        unpacked: what was written; None if all was there and nothing was touched.
        kept: path of the archive; None if it was not kept.
    """

    name: str
    folder: str
    images: int
    fetched: int = 0
    unpacked: Unpacked | None = None
    kept: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadReport:
    """What `download_coco` did.

    Attributes:
        root: the dataset's folder.
        outcomes: one for each archive of the requested splits.
        unfinished: bytes of other downloads that were begun or failed.
        seconds: duration.
    """

    root: Path
    outcomes: tuple[Outcome, ...]
    unfinished: int
    seconds: float


def download_coco(config: DownloadConfig, listener: Listener) -> DownloadReport:
    """Fetch and unpack what is missing of COCO. If the process is killed, the next call resumes.

    Raises:
        DownloadError: the download failed; the message says what to do.
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
    return DownloadReport(
        root=config.root, outcomes=outcomes, unfinished=unfinished, seconds=time.perf_counter() - start
    )


def _complete(config: DownloadConfig, item: Item, listener: Listener) -> Outcome:
    archive, own, staged = item.archive, config.root / item.archive.name, config.staging / item.archive.name
    fetched, unpacked = 0, None
    if item.needed:
        path = own if item.source == "own" else staged
        if item.source == "server":
            part = staged.with_name(f"{staged.name}.part")
            fetched = fetch(archive, config.url(archive), part, config.patience, listener)
            _check(archive, part, listener)
            part.replace(staged)  # a file of this name is complete
        elif item.source == "own":
            _check(archive, own, listener)
        try:
            with listener.stage("unpack", archive) as update:
                unpacked = unpack(archive, path, config.root, update)
        except ArchiveError as error:
            raise _set_aside(path, str(error)) from None
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
    if archive.md5 is None:
        return
    digest, done = hashlib.md5(usedforsecurity=False), 0
    with listener.stage("check", archive) as update, path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
            done += len(data)
            update(done, archive.bytes)
    if digest.hexdigest() != archive.md5:
        raise _set_aside(
            path,
            message(
                "{name} has md5 {hexdigest}, not {md5}",
                name=archive.name,
                hexdigest=digest.hexdigest(),
                md5=archive.md5,
            ),
        )


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


def _tidy(config: DownloadConfig, staged: Path, own: Path) -> None:
    for suffix in (".part.json", ".bad"):
        staged.with_name(staged.name + suffix).unlink(missing_ok=True)
    if config.keep_archives:
        staged.replace(own)
    else:
        staged.unlink()


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
