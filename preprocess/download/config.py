"""What to download, from where, and how long to wait for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from urllib.parse import urlsplit

from preprocess.download.archives import ARCHIVES, BASE_URL, Archive
from preprocess.errors import DownloadError
from preprocess.sources import SPLIT_FOLDERS

STAGING = ".download"
"""Folder within the dataset's for what is not finished."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """With a server or a line that fails.

    Attributes:
        timeout: seconds without a byte that count as a stall.
        attempts: how many in a row may end without progress, and how often a file may be started anew.
        delay: seconds before the second attempt; doubled each time, with jitter.
        longest_delay: seconds that it grows to.
    """

    timeout: float = 30.0
    attempts: int = 8
    delay: float = 1.0
    longest_delay: float = 60.0

    def __post_init__(self) -> None:
        """Check each field against its limits."""
        if self.timeout <= 0:
            raise DownloadError(f"timeout={self.timeout} s is not above 0; try 30")
        if self.attempts < 1:
            raise DownloadError(f"attempts={self.attempts} is below 1; try 8")
        if not 0 <= self.delay <= self.longest_delay:
            raise DownloadError(f"delay={self.delay} s is not in 0 to longest_delay={self.longest_delay} s; try 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """What to download.

    Attributes:
        root: the dataset's folder.
        splits: those that should be there in the end.
        keep_archives: move them to `root` once they are unpacked, and do not delete them.
        base_url: of the server, or of a mirror with the same layout.
        patience: with the network.
        archives: all that there are.
    """

    root: Path
    splits: tuple[str, ...] = tuple(SPLIT_FOLDERS)
    keep_archives: bool = False
    base_url: str = BASE_URL
    patience: Patience = Patience()
    archives: tuple[Archive, ...] = ARCHIVES

    def __post_init__(self) -> None:
        """Check each field against its limits."""
        unknown = [name for name in self.splits if name not in SPLIT_FOLDERS]
        if unknown or not self.splits:
            raise DownloadError(
                f"splits={','.join(self.splits)} is not among COCO's; use {' and '.join(SPLIT_FOLDERS)}"
            )
        scheme = self.base_url.partition(":")[0].lower()
        if scheme not in ("http", "https"):
            raise DownloadError(f"--base-url {self.base_url} is neither http:// nor https://; use as {BASE_URL}")
        try:
            parts = urlsplit(self.base_url)
            sound = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment)
        except ValueError:  # a port that is no number, brackets that do not match
            sound = False
        if not sound or not self.base_url.isascii() or any(letter <= " " for letter in self.base_url):
            raise DownloadError(f"--base-url {self.base_url!r} is no address; use one as {BASE_URL}")

    @property
    def staging(self) -> Path:
        """Where parts, and archives that are not unpacked yet, lie."""
        return self.root / STAGING

    def url(self, archive: Archive) -> str:
        """Where an archive is to be had."""
        return f"{self.base_url.rstrip('/')}/{archive.path}"
