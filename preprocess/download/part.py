"""A file that is being fetched: its bytes so far, and which file of which server they are of."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import TracebackType

from cache.atomic import write_atomically
from preprocess.errors import DownloadError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stamp:
    """By what a server tells one state of a file from another; empty where it does not say."""

    etag: str = ""
    modified: str = ""

    @property
    def if_range(self) -> str:
        """What makes the server send the rest of the file only if it is still the same; empty if nothing does."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def differs(self, other: Stamp) -> bool:
        """Whether the two are of different states, as far as they tell."""
        if self.etag and other.etag:
            return self.etag != other.etag
        return bool(self.modified and other.modified) and self.modified != other.modified


class Part:
    """An open `.part` file. Each byte is written when it comes, so that a killed process loses none."""

    def __init__(self, path: Path, url: str) -> None:
        self._path, self._url = path, url
        self._note = path.with_name(f"{path.name}.json")
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise _cannot_write(path, error) from None
        self.position = self._file.tell()

    def __enter__(self) -> Part:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._file.close()

    @property
    def stamp(self) -> Stamp:
        """Of the bytes that are there; empty if they came from another address, whose stamps say nothing here."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return Stamp(etag=note["etag"], modified=note["modified"]) if note["url"] == self._url else Stamp()
        except (OSError, ValueError, KeyError, TypeError):
            return Stamp()

    def begin(self, stamp: Stamp) -> None:
        """From the first byte, of the state that the stamp tells."""
        self.clear()
        self.sign(stamp)

    def sign(self, stamp: Stamp) -> None:
        """Note of which state what is there is."""
        try:
            write_atomically(self._note, json.dumps({"url": self._url, **dataclasses.asdict(stamp)}).encode())
        except OSError as error:
            raise _cannot_write(self._note, error) from None

    def clear(self) -> None:
        """Drop what is there."""
        self._file.truncate(0)
        self.position = 0

    def append(self, data: bytes) -> None:
        """Write, at the end.

        Raises:
            DownloadError: it cannot be written, as when the disk is full.
        """
        left = memoryview(data)
        try:
            while left:
                count = self._file.write(left)
                self.position += count
                left = left[count:]
        except OSError as error:
            raise _cannot_write(self._path, error) from None


def _cannot_write(path: Path, error: OSError) -> DownloadError:
    return DownloadError(
        f"cannot write {path}: {error.strerror}; mend that and run the same command again, it goes on from there"
    )
