"""The archives that COCO 2017 comes in."""

from __future__ import annotations

import dataclasses

BASE_URL = "http://images.cocodataset.org"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip file on the server, and what is known of it.

    Attributes:
        path: where it is, below the base URL.
        folder: the one folder that it holds.
        splits: those that need it.
        bytes: its size.
        md5: of all its bytes; None if it is not known, and then the members' CRC-32 have to do.
        unpacked: about how many bytes its members take on disk.
        images: how many it holds; 0 if it holds annotations.
    """

    path: str
    folder: str
    splits: tuple[str, ...]
    bytes: int
    md5: str | None = None
    unpacked: int
    images: int = 0

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.rpartition("/")[2]


# Small ones first: what is wrong shows in minutes, not after the 19 GB.
ARCHIVES = (
    Archive(
        path="annotations/annotations_trainval2017.zip",
        folder="annotations",
        splits=("train", "val"),
        bytes=252_907_541,
        md5="f4bbac642086de4f52a3fdda2de5fa2c",
        unpacked=840_000_000,
    ),
    Archive(
        path="zips/val2017.zip",
        folder="val2017",
        splits=("val",),
        bytes=815_585_330,
        md5="442b8da7639aecaf257c1dceb8ba8c80",
        unpacked=840_000_000,  # JPEGs hardly shrink in a zip; half a block a file comes on top
        images=5_000,
    ),
    Archive(
        path="zips/train2017.zip",
        folder="train2017",
        splits=("train",),
        bytes=19_336_861_798,
        md5="cced6f7f71b7629ddf16f17bbcfab6b2",
        unpacked=19_800_000_000,
        images=118_287,
    ),
)
