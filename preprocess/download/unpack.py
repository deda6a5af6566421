"""Unpacking of an archive: each member is either complete in its folder or not there."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

from cache.messages import message, system_reason
from preprocess.download.plan import Archive
from preprocess.errors import DownloadError

_TEMPORARY = ".unpacking.tmp"
_BLOCK = 4096
_DAMAGES = (BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError)
"""What `zipfile` raises for bytes that are no sound archive."""


class ArchiveError(Exception):
    """An archive that is damaged or holds unexpected members."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What `unpack` wrote; `kept` files were already there with the right size."""

    files: int
    bytes: int
    kept: int


def unpack(archive: Archive, path: Path, root: Path, update: Callable[[int, int], None]) -> Unpacked:
    """Unpack a zip file into its one folder. All member names are checked before the first is written.

    A file gets its name once its CRC-32 is checked, and the last file only when the others are on disk: a folder with
    all its files is complete, even after a power cut.

    Args:
        archive: the description of the archive.
        path: the zip file.
        root: the dataset's folder.
        update: called with (bytes done, bytes in all).

    Raises:
        ArchiveError: the archive is damaged, or has a member that is not a plain file of its folder.
        DownloadError: the disk is full, or a file cannot be written.
    """
    folder = root / archive.folder
    temporary = folder / _TEMPORARY
    try:
        with ZipFile(path) as source:
            members = _members(archive, path.name, source)
            missing = [info for info in members if not _is_there(root / info.filename, info.file_size)]
            _check_space(root, missing)
            folder.mkdir(exist_ok=True)
            total, written = sum(info.file_size for info in members), sum(info.file_size for info in missing)
            done = total - written
            update(done, total)
            for info in missing:
                _extract(source, info, temporary)
                if info is missing[-1]:
                    os.sync()  # a call per file would take longer than the unpacking
                temporary.replace(root / info.filename)
                done += info.file_size
                update(done, total)
    except DownloadError:
        raise
    except _DAMAGES as error:
        raise ArchiveError(message("{name} is damaged: {error}", name=path.name, error=error)) from None
    except OSError as error:
        raise DownloadError(
            "cannot unpack {path} to {folder}: {strerror}; mend that and run the same command again, it goes "
            "on from there",
            path=path,
            folder=folder,
            strerror=system_reason(error),
        ) from None
    return Unpacked(files=len(missing), bytes=written, kept=len(members) - len(missing))


def _members(archive: Archive, name: str, source: ZipFile) -> list[ZipInfo]:
    """Check the members of an archive and list its files."""
    members: dict[str, ZipInfo] = {}
    for info in source.infolist():
        mode = stat.S_IFMT(info.external_attr >> 16)
        if info.filename == f"{archive.folder}/" and mode in (0, stat.S_IFDIR):
            continue
        # Refuses '..', absolute paths, other folders and hidden files.
        if not re.fullmatch(rf"{archive.folder}/\w[\w.-]*", info.orig_filename, re.ASCII):
            raise ArchiveError(
                message(
                    "{name} holds {orig_filename!r}, which is no file of {folder}/",
                    name=name,
                    orig_filename=info.orig_filename,
                    folder=archive.folder,
                )
            )
        if mode not in (0, stat.S_IFREG):
            raise ArchiveError(
                message(
                    "{name} holds {filename!r}, which is a link or a device, not a file",
                    name=name,
                    filename=info.filename,
                )
            )
        if info.filename in members:
            raise ArchiveError(message("{name} holds {filename!r} twice", name=name, filename=info.filename))
        if info.flag_bits & 1:
            raise ArchiveError(message("{name} holds {filename!r} encrypted", name=name, filename=info.filename))
        members[info.filename] = info
    if not members or (archive.images and len(members) != archive.images):
        raise ArchiveError(
            message(
                "{name} holds {members_count:,} files, not {images:,}",
                name=name,
                members_count=len(members),
                images=(archive.images or message("any annotations")),
            )
        )
    return list(members.values())


def _extract(source: ZipFile, info: ZipInfo, temporary: Path) -> None:
    temporary.unlink(missing_ok=True)  # of a run that was killed
    try:
        with source.open(info) as member, temporary.open("xb") as file:
            shutil.copyfileobj(member, file, 1 << 20)  # at its end zipfile compares the CRC-32
            size = file.tell()
        if size != info.file_size:
            raise BadZipFile(
                message(
                    "{filename!r} has {size:,} bytes, not {file_size:,}",
                    filename=info.filename,
                    size=size,
                    file_size=info.file_size,
                )
            )
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _check_space(root: Path, missing: list[ZipInfo]) -> None:
    need = sum(-(-info.file_size // _BLOCK) * _BLOCK for info in missing)
    have = shutil.disk_usage(root).free
    if need > have:
        raise DownloadError(
            "{missing_count:,} files need {need:,} bytes and {root} has {have:,} free; free some space and "
            "run the same command again, it goes on from there",
            missing_count=len(missing),
            need=need,
            root=root,
            have=have,
        )


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
