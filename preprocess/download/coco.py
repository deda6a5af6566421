"""COCO in a folder: what is missing is fetched, checked, unpacked, and the archives tidied away."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from preprocess.download.archives import Archive
from preprocess.download.config import DownloadConfig
from preprocess.download.fetch import fetch
from preprocess.download.listener import Listener
from preprocess.download.plan import Item, check_space, folder_size, make_plan
from preprocess.download.report import DownloadReport, Outcome
from preprocess.download.unpack import ArchiveError, unpack
from preprocess.errors import DownloadError


def download_coco(config: DownloadConfig, listener: Listener) -> DownloadReport:
    """Fetch and unpack what is missing of COCO. May be killed at any time; the next call goes on from there.

    Raises:
        DownloadError: it cannot be had; the message says what to do.
    """
    start = time.perf_counter()
    config.root.mkdir(parents=True, exist_ok=True)
    with _alone(config.root):
        plan = make_plan(config)
        if plan.needed:
            check_space(config, plan)
            listener.on_plan(plan)
            config.staging.mkdir(exist_ok=True)
        outcomes = tuple(_bring(config, item, listener) for item in plan.items)
        with contextlib.suppress(OSError):  # not there, or parts of another split are in it
            config.staging.rmdir()
        unfinished = folder_size(config.staging)
    return DownloadReport(
        root=config.root, outcomes=outcomes, unfinished=unfinished, seconds=time.perf_counter() - start
    )


def _bring(config: DownloadConfig, item: Item, listener: Listener) -> Outcome:
    archive, own, staged = item.archive, config.root / item.archive.name, config.staging / item.archive.name
    fetched = 0
    if item.needed:
        path = own if item.source == "own" else staged
        if item.source == "server":
            part = staged.with_name(f"{staged.name}.part")
            fetched = fetch(archive, config.url(archive), part, config.patience, listener)
            _check(archive, part, listener)
            part.replace(staged)  # from here on it is known to be whole
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
        unpacked=unpacked if item.needed else None,
        kept=own if own.is_file() else None,
    )


def _check(archive: Archive, path: Path, listener: Listener) -> None:
    """Compare the bytes on disk with what is known of the archive; its size is right already."""
    if archive.md5 is None:
        return
    digest, done = hashlib.md5(usedforsecurity=False), 0
    with listener.stage("check", archive) as update, path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
            done += len(data)
            update(done, archive.bytes)
    if digest.hexdigest() != archive.md5:
        raise _set_aside(path, f"{archive.name} has md5 {digest.hexdigest()}, not {archive.md5}")


def _set_aside(path: Path, what: str) -> DownloadError:
    """An archive that is not what it should be loses its name, so that the next run fetches it anew."""
    aside = path.with_name(f"{path.name.removesuffix('.part')}.bad")
    path.replace(aside)
    return DownloadError(
        f"{what}: damaged on the way, or not COCO's; it is now {aside}, which you may delete; run the same command "
        "again to fetch it anew, perhaps with another --base-url"
    )


def _tidy(config: DownloadConfig, staged: Path, own: Path) -> None:
    for suffix in (".part.json", ".bad"):
        staged.with_name(staged.name + suffix).unlink(missing_ok=True)
    if config.keep_archives:
        staged.replace(own)
    else:
        staged.unlink()


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One download at a time in a folder; the kernel lets go of the lock when its holder dies."""
    handle = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadError(f"another download works in {root}; wait for it, or stop it") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)
