"""What of COCO 2017 is missing in a folder, from where it is fetched, and whether the disk has room for it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from cache.choices import SPLITS
from cache.messages import listed, message
from preprocess.check.structure import SYNTH_MARKER, Check, check_structure
from preprocess.errors import DownloadError

BASE_URL = "http://images.cocodataset.org"

STAGING = ".download"
"""Folder below the dataset's for unfinished files."""

Source = Literal["server", "staged", "own"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip file on the server."""

    path: str  # below the base URL
    folder: str  # the one folder that it holds
    splits: tuple[str, ...]  # those that need it
    bytes: int
    md5: str
    unpacked: int  # approximate bytes of its members on disk
    images: int = 0  # number of images; 0 if it holds annotations

    @property
    def name(self) -> str:
        """File name."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """What to download into the folder `root`."""

    root: Path
    splits: tuple[str, ...] = SPLITS
    keep_archives: bool = False  # move archives to `root` once they are unpacked instead of deleting them
    base_url: str = BASE_URL  # address of the server, or of a mirror with the same layout
    archives: tuple[Archive, ...] = ARCHIVES

    def __post_init__(self) -> None:
        if not self.splits or not set(SPLITS) >= set(self.splits):
            raise DownloadError(
                "splits={splits} is not among COCO's; use {known}",
                splits=",".join(self.splits),
                known=listed(SPLITS, "and"),
            )
        url = self.base_url
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number, brackets that do not match
            valid = False
        if not valid or parts.query or parts.fragment or not url.isascii() or any(letter <= " " for letter in url):
            raise DownloadError(
                "--base-url {url!r} is no address that begins with http:// or https://; use one as {example}",
                url=url,
                example=BASE_URL,
            )

    @property
    def staging(self) -> Path:
        """Folder of `.part` files and of archives that are not unpacked yet."""
        return self.root / STAGING

    def url(self, archive: Archive) -> str:
        """Address of an archive."""
        return f"{self.base_url.rstrip('/')}/{archive.path}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """An archive and what is there of it."""

    archive: Archive
    needed: bool
    images: int  # number of images in its folder
    # `staged` or `own` if the whole archive lies in the staging folder or in the dataset's; else `server`.
    source: Source
    to_fetch: int  # bytes
    to_unpack: int  # approximate bytes on disk


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The archives of the splits, in the order in which they are fetched, and the room that they take."""

    items: tuple[Item, ...]
    need: int  # peak of the bytes on disk, beyond those that are used now
    free: int  # bytes that are free on the disk


def make_plan(config: DownloadConfig) -> Plan:
    """Look at what is there. A split's images are complete if they are as many as COCO has.

    Raises `DownloadError`: the folder holds a synthetic dataset, or the disk has too little room.
    """
    if (config.root / SYNTH_MARKER).exists():
        raise DownloadError(
            "{root} holds a synthetic dataset ({marker}); give --dir a folder of its own",
            root=config.root,
            marker=SYNTH_MARKER,
        )
    # Of another release of COCO, or of another dataset, nothing counts.
    checks = [check for check in check_structure(config.root) if "2017" in Path(check.path).name]
    items = tuple(_look(config, archive, checks) for archive in config.archives if {*archive.splits} & {*config.splits})
    need, free = _peak(items, keep=config.keep_archives), shutil.disk_usage(config.root).free
    if need > free:
        remedies = [message("free some space"), message("choose another --dir")]
        if {"train", "val"} <= set(config.splits):
            remedies.append(message("fetch one split with --split val"))
        if config.keep_archives:
            remedies.append(message("leave out --keep-archives"))
        values = {"need_gb": need / 1e9, "need": need, "root": config.root, "free_gb": free / 1e9, "free": free}
        raise DownloadError(
            "downloading and unpacking needs about {need_gb:,.1f} GB ({need:,} bytes) and {root} has "
            "{free_gb:,.1f} GB free ({free:,}); {remedies}",
            remedies=listed(remedies, "or"),
            **values,
        )
    return Plan(items=items, need=need, free=free)


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder; 0 if it is not there."""
    return sum(map(_size, folder.glob("*")))


def _look(config: DownloadConfig, archive: Archive, checks: list[Check]) -> Item:
    images = 0
    if archive.images:
        images = max((c.value or 0 for c in checks if c.kind == "images" and c.split in archive.splits), default=0)
        complete = images >= archive.images
    else:
        complete = {c.split for c in checks if c.kind == "annotation_file" and c.ok} >= set(config.splits)
    staged, own = config.staging / archive.name, config.root / archive.name
    part = staged.with_name(f"{staged.name}.part")
    source: Source = "staged" if _size(staged) == archive.bytes else "own" if _size(own) == archive.bytes else "server"
    return Item(
        archive=archive,
        needed=not complete or source == "staged",  # a staged archive is one whose unpacking was not finished
        images=images,
        source=source,
        to_fetch=max(0, archive.bytes - _size(part)) if source == "server" else 0,
        to_unpack=max(0, archive.unpacked - folder_size(config.root / archive.folder)),
    )


def _peak(items: tuple[Item, ...], *, keep: bool) -> int:
    """Peak of the bytes on disk, beyond today's: archives are unpacked one after the other and then deleted."""
    used = peak = 0
    for item in items:
        if not item.needed:
            continue
        used += item.to_fetch + item.to_unpack
        peak = max(peak, used)
        if not keep and item.source != "own":
            used -= item.archive.bytes
    return peak


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
