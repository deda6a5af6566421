"""Files that are either whole or not there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def sync_path(path: Path) -> None:
    """Make what a file holds, or the renames within a directory, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write under a temporary name, sync, rename over `path`, sync the directory. Any `OSError` names the file."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # the part that was written takes what little room there is
            temporary.unlink()
        raise type(error)(error.errno, error.strerror, str(path)) from error
    sync_path(path.parent)


def sync_tree(path: Path) -> None:
    """Sync every file below a folder, and its folders."""
    for folder, _, names in os.walk(path):
        for name in (*names, "."):
            sync_path(Path(folder) / name)
