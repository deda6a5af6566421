"""Find the file of each photo that an annotation file names."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePath

from cache import files
from cache.messages import system_reason
from cache.storage import is_url
from preprocess.errors import DatasetError, ImageError

LONGEST_NAME = 255
"""Most bytes between two slashes of a file name: the limit of Linux's file systems."""

LONGEST_PATH = 1024
"""Most bytes of a whole file name: the limit of S3. Linux's is four times as many."""


class PhotoFolder:
    """The photo files of a split.

    A photo is known by its path relative to the split's folder, normalised: `./a.jpg`, `b/../a.jpg` and the
    absolute path of that file are all the photo `a.jpg`.

    Args:
        root: the dataset's folder, or its `StorageUrl`.
        folder: the split's folder within `root`, to which the names in an annotation file are relative.
        outside: whether names may lead out of `root`.
    """

    def __init__(self, root: PurePath, folder: PurePath, *, outside: bool = False) -> None:
        self.folder, self._outside = folder, outside
        self._within = folder.relative_to(root).as_posix()
        self._roots = str(files.absolute(root)), os.path.realpath(root)
        self._remote = is_url(root)
        # A listing of object storage has the files of the folders below, too.
        self._listed = cache(files.sizes if self._remote else _file_sizes)

    def exists(self) -> bool:
        """Whether the split's folder is there.

        Raises:
            DatasetError: it cannot be listed.
            StorageError: object storage cannot be listed.
        """
        if self._remote:
            return bool(self._listed(self.folder))
        try:
            with os.scandir(self.folder):
                return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            values = {"folder": self.folder, "reason": system_reason(error)}
            raise DatasetError("{folder} cannot be listed: {reason}; check its permissions", **values) from None

    def locate(self, name: str) -> str:
        """The path of a photo, by the name that the annotation file gives it.

        Raises:
            ImageError: no file can have such a name, or the name leads out of the dataset.
        """
        _check_name(name)
        if "/" not in name:
            return name
        path = posixpath.normpath(posixpath.join(self._within, name))
        for root in self._roots:
            path = path.removeprefix(f"{root}/")
        if path.startswith(("/", "../")) and not self._outside:
            raise ImageError(
                "its file name leads out of the dataset's folder; move the photo into it, or allow such names "
                "with --outside"
            )
        return path if path.startswith("/") else posixpath.relpath(path, self._within)

    def size(self, path: str) -> int:
        """Bytes of the file at a path that `locate` gave; -1 if it is missing, a folder, a pipe or a dangling link."""
        if path.startswith("../") or ("/" in path and not self._remote):
            file = photo_path(self.folder, path)
            return self._listed(file.parent).get(file.name, -1)
        return self._listed(self.folder).get(path, -1)

    def paths(self) -> Iterator[str]:
        """The paths of all files in the split's folder and the folders below it."""
        if self._remote:
            yield from self._listed(self.folder)
            return
        for folder, _, names in os.walk(self.folder):
            below = Path(folder).relative_to(self.folder)
            yield from ((below / name).as_posix() for name in names)


def photo_path(folder: PurePath, path: str) -> PurePath:
    """The path of a photo in its split's folder, by the path that `PhotoFolder.locate` gave."""
    # The system would follow `..` from the target of a link, not from the link's own folder.
    return type(folder)(posixpath.normpath(folder / path)) if path.startswith("../") else folder / path


def _check_name(name: str) -> None:
    try:
        data = name.encode()
    except UnicodeEncodeError:
        raise ImageError("its file name is not valid Unicode") from None
    if len(data) > LONGEST_PATH or max(map(len, data.split(b"/"))) > LONGEST_NAME:
        limits = {"longest_name": LONGEST_NAME, "longest_path": LONGEST_PATH}
        raise ImageError(
            "its file name has {size:,} bytes; at most {longest_name} between slashes and "
            "{longest_path:,} in all are possible",
            size=len(data),
            **limits,
        )
    if "\0" in name or name.rpartition("/")[2] in ("", ".", ".."):
        raise ImageError("its file name, {name!r}, is not that of a file", name=name)


def _file_sizes(folder: PurePath) -> dict[str, int]:
    """Bytes of each file in a folder of this machine; nothing if it cannot be listed, as reading a photo then tells."""
    sizes = {}
    with suppress(OSError), os.scandir(folder) as entries:  # over a network far cheaper than asking for each file
        for entry in entries:
            with suppress(OSError):  # a link that leads nowhere, or in a circle
                found = entry.stat()
                if stat.S_ISREG(found.st_mode):
                    sizes[entry.name] = found.st_size
    return sizes
