"""Find the file of each photo that an annotation file names."""

from __future__ import annotations

import os
import posixpath
import re
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import cache, cached_property, partial
from pathlib import Path, PurePath
from urllib.parse import quote, unquote

from cache import files
from cache.messages import system_reason
from cache.storage import is_url
from preprocess.errors import DatasetError, ImageError

LONGEST_NAME = 255  # bytes between two slashes of a file name: the limit of Linux's file systems
LONGEST_PATH = 1024  # bytes of a whole file name: the limit of S3; Linux's is four times as many

_SPELLINGS: tuple[Callable[[str], str], ...] = (
    unquote,
    lambda name: name.replace("\\", "/"),
    lambda name: quote(name, safe="/%"),
    partial(unicodedata.normalize, "NFC"),
    partial(unicodedata.normalize, "NFD"),
)
"""What tools and file systems do to names on their way from one machine to another."""

_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file


class PhotoFolder:
    """The photo files of a split.

    A photo is known by its path relative to the split's folder, normalised: `./a.jpg`, `b/../a.jpg` and the
    absolute path of that file are all the photo `a.jpg`.

    Args:
        root: the dataset's folder, or its `StorageUrl`.
        folder: the split's folder within `root`, to which the names in an annotation file are relative.
        outside: whether names may lead out of `root`.
        flat: whether a photo is also looked for in `folder` itself, whatever folders its name begins with.
    """

    def __init__(self, root: PurePath, folder: PurePath, *, outside: bool = False, flat: bool = False) -> None:
        self.folder, self._outside, self._flat = folder, outside, flat
        self._within = folder.relative_to(root).as_posix()
        self._own_name = re.compile(rf"(.*/)?{re.escape(files.absolute(folder).name)}/")
        self._roots = str(files.absolute(root)), os.path.realpath(root)
        self._remote = is_url(root)
        # A listing of object storage has the files of the folders below, too.
        self._listed = cache(files.sizes if self._remote else _file_sizes)

    def exists(self) -> bool:
        """Whether the split's folder is there.

        Raises `DatasetError`: it cannot be listed. `StorageError`: object storage cannot be listed.
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

        It is that of the first file that there is by the name as it is written, by another spelling of it (backslashes,
        URL escapes, the forms of Unicode), relative to `root`, or behind the name of `folder` in it, as in
        `/home/ana/photos/3.jpg`; if there is none, that of the name as it is written.
        Raises `ImageError`: no file can have such a name, or the name leads out of the dataset.
        """
        _check_name(name)
        problem = None
        try:
            path = name if "/" not in name else self._relative(name, self._within)
            if self.size(path) >= 0:
                return path
        except ImageError as error:
            problem = error
        for spelling in self._spellings(name):
            for base in (self._within, ""):
                with suppress(ImageError):
                    other = self._relative(spelling, base)
                    if self.size(other) >= 0:
                        return other
        if problem:
            raise problem
        return path

    def _relative(self, name: str, base: str) -> str:
        path = posixpath.normpath(posixpath.join(base, name))
        for root in self._roots:
            path = path.removeprefix(f"{root}/")
        if path.startswith(("/", "../")) and not self._outside:
            raise ImageError(
                "its file name leads out of the dataset's folder; move the photo into it, or allow such names "
                "with --outside"
            )
        return path if path.startswith("/") else posixpath.relpath(path, self._within)

    def _spellings(self, name: str) -> list[str]:
        """The name and what else may be meant by it, each once."""
        found = [name]
        for spelled in _SPELLINGS:
            found += [spelled(each) for each in found]
        found += [self._own_name.sub("", each, count=1) for each in found]
        if self._flat:
            found += [posixpath.basename(end) for each in found for end in (each, each.partition("?")[0])]
            found += [_UPLOAD_PREFIX.sub("", each, count=1) for each in found]
        return [each for each in dict.fromkeys(found) if each]

    def similar(self, path: str, named: Collection[str]) -> str:
        """The one photo that may be meant by a path at which there is none, but for those that are `named`; or ""."""
        found = [each for each in self._similar.get(_stem(path), []) if each not in named and self.size(each) >= 0]
        return found[0] if len(found) == 1 else ""

    @cached_property
    def _similar(self) -> dict[str, list[str]]:
        """The files below the folder by `_stem`: by their names without folders, suffixes and case."""
        found: dict[str, list[str]] = {}
        for path in self.paths():
            found.setdefault(_stem(path), []).append(path)
        return found

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


def _stem(path: str) -> str:
    return posixpath.splitext(path.replace("\\", "/").rpartition("/")[2])[0].casefold()


def _check_name(name: str) -> None:
    try:
        data = name.encode()
    except UnicodeEncodeError:
        raise ImageError("its file name is not valid Unicode") from None
    if len(data) > LONGEST_PATH or max(map(len, data.split(b"/"))) > LONGEST_NAME:
        values = {"size": len(data), "longest_name": LONGEST_NAME, "longest_path": LONGEST_PATH}
        raise ImageError(
            "its file name has {size:,} bytes; at most {longest_name} between slashes and "
            "{longest_path:,} in all are possible",
            **values,
        )
    if "\0" in name or name.rpartition("/")[2] in ("", ".", ".."):
        raise ImageError("its file name, {name!r}, is not that of a file", name=name)


def _file_sizes(folder: PurePath) -> dict[str, int]:
    """Bytes of each file in a folder of this machine; nothing if it cannot be listed, as reading a photo then tells."""
    sizes = {}
    # A ValueError: `%00` in its name. Over a network, this is far cheaper than asking for each file.
    with suppress(OSError, ValueError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # a link that leads nowhere, or in a circle
                found = entry.stat()
                if stat.S_ISREG(found.st_mode):
                    sizes[entry.name] = found.st_size
    return sizes
