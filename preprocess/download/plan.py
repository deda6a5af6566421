"""What of COCO is missing, and whether there is room for it."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Literal

from preprocess.download.archives import Archive
from preprocess.download.config import DownloadConfig
from preprocess.errors import DownloadError
from preprocess.structure import Check, check_structure
from preprocess.synth import MARKER

Source = Literal["server", "staged", "own"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """An archive and what is there of it.

    Attributes:
        archive: which.
        needed: whether something of it is missing.
        images: of its folder, that are there.
        source: the server; or, whole, the folder of what is not finished; or, whole, beside the dataset's folders.
        to_fetch: bytes.
        to_unpack: bytes on disk, about.
    """

    archive: Archive
    needed: bool
    images: int
    source: Source
    to_fetch: int
    to_unpack: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done.

    Attributes:
        items: the archives of the splits, in the order in which they are fetched.
        need: bytes that it takes on disk at its peak, beyond those that are taken now.
        free: bytes.
    """

    items: tuple[Item, ...]
    need: int
    free: int

    @property
    def needed(self) -> tuple[Item, ...]:
        """The archives of which something is missing."""
        return tuple(item for item in self.items if item.needed)


def make_plan(config: DownloadConfig) -> Plan:
    """Look at what is there. A split's images are whole if they are as many as COCO has.

    Raises:
        DownloadError: the folder holds a synthetic dataset.
    """
    if (config.root / MARKER).exists():
        raise DownloadError(f"{config.root} holds a synthetic dataset ({MARKER}); give --dir a folder of its own")
    checks = check_structure(config.root, config.splits)
    items = tuple(
        _look(config, archive, checks) for archive in config.archives if set(archive.splits) & set(config.splits)
    )
    need = _peak([item for item in items if item.needed], keep=config.keep_archives)
    return Plan(items=items, need=need, free=shutil.disk_usage(config.root).free)


def check_space(config: DownloadConfig, plan: Plan) -> None:
    """Refuse to begin what cannot end.

    Raises:
        DownloadError: the archives and what is in them need more than is free.
    """
    if plan.need > plan.free:
        remedies = ["free some space", "choose another --dir"]
        if {"train", "val"} <= set(config.splits):
            remedies.append("fetch one split with --split val")
        if config.keep_archives:
            remedies.append("leave out --keep-archives")
        raise DownloadError(
            f"downloading and unpacking needs about {plan.need / 1e9:,.1f} GB ({plan.need:,} bytes) and {config.root} "
            f"has {plan.free / 1e9:,.1f} GB free ({plan.free:,}); {', '.join(remedies[:-1])} or {remedies[-1]}"
        )


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder; 0 if it is not there."""
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.is_file())


def _look(config: DownloadConfig, archive: Archive, checks: list[Check]) -> Item:
    kind = "images" if archive.images else "annotation_file"
    found = [check for check in checks if check.kind == kind and check.split in archive.splits]
    if archive.images:
        images = max((check.value or 0 for check in found), default=0)
        whole = images >= archive.images
    else:
        images = 0
        whole = {check.split for check in found if check.ok} >= set(config.splits)
    staged, own = config.staging / archive.name, config.root / archive.name
    part = staged.with_name(f"{staged.name}.part")
    source: Source = "staged" if _size(staged) == archive.bytes else "own" if _size(own) == archive.bytes else "server"
    return Item(
        archive=archive,
        needed=not whole or source == "staged",  # an archive there is one whose unpacking was not finished
        images=images,
        source=source,
        to_fetch=max(0, archive.bytes - _size(part)) if source == "server" else 0,
        to_unpack=max(0, archive.unpacked - folder_size(config.root / archive.folder)),
    )


def _peak(items: list[Item], *, keep: bool) -> int:
    """Bytes on disk, beyond today's, when there are most of them: one archive after the other, each then deleted."""
    used = peak = 0
    for item in items:
        used += item.to_fetch + item.to_unpack
        peak = max(peak, used)
        if not keep and item.source != "own":
            used -= item.archive.bytes
    return peak


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
