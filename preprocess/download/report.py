"""What a download did."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from preprocess.download.unpack import Unpacked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was done about an archive.

    Attributes:
        name: of the archive.
        folder: of the dataset, that it holds.
        images: that were in the folder before.
        fetched: bytes that came from the server.
        unpacked: what was written; None if all was there and nothing was touched.
        kept: where the archive is; None if it is not.
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
        outcomes: an archive each, of the splits that were asked for.
        unfinished: bytes of other downloads that were begun or failed.
        seconds: that it took.
    """

    root: Path
    outcomes: tuple[Outcome, ...]
    unfinished: int
    seconds: float
