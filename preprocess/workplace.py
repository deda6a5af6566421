"""The folder that a cache is built in: whose turn it is, what is already done, and whether there is room."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cache.atomic import write_atomically
from cache.errors import CacheError, CacheMissingError, CacheStaleError
from cache.index import INDEX_NAME, SAMPLE_DTYPE, CacheIndex, SampleTable, ShardInfo, SourceInfo
from cache.record import RecordLayout
from cache.shards import describe
from cache.spec import CacheSpec
from preprocess.sources import SPLIT_FOLDERS, stale_reasons

ORDER_NAME = "build.json"
LOCK_NAME = "build.lock"
PARTS_NAME = ".parts"

JPEG_BYTES_A_PIXEL = 0.45
"""Quality 95 without subsampling, in LMDB: measured on 740 of COCO's photos at side 384. For estimates of space."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """An image that was left out, and why; or an annotation without an image, by its file and with an id of -1."""

    split: str
    image_id: int
    file_name: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What is known of a finished shard until the index is written."""

    shard: ShardInfo
    rejections: tuple[Rejection, ...]
    samples: list[list[Any]]

    def table(self) -> SampleTable:
        """The shard's rows of the sample table."""
        return np.array([tuple(row) for row in self.samples], SAMPLE_DTYPE)


@contextmanager
def lock_folder(out: Path) -> Iterator[None]:
    """One build at a time in a folder; the kernel lets go of the lock when its holder dies.

    Raises:
        CacheError: the folder cannot be written in, or another process holds the lock.
    """
    path = out / LOCK_NAME
    while True:
        try:
            file = path.open("a+")
        except OSError as error:
            raise CacheError(f"cannot write in {out}: {error.strerror}; choose another --out") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise CacheError(f"{out} is being built by process {holder}; wait for it, or stop it") from None
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            break
        file.close()  # its last holder removed it while we waited: take the new one
    with file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def finished_index(
    out: Path, spec: CacheSpec, fingerprint: str, sources: dict[str, SourceInfo], *, force: bool
) -> CacheIndex | None:
    """The index of a cache that is already what was asked for; None when there is work to do, as always by `force`."""
    if force:
        return None
    try:
        index = CacheIndex.load(out)
    except CacheMissingError:
        return None
    if index.fingerprint == fingerprint:
        return index
    reasons = stale_reasons(index, spec, sources)
    raise CacheStaleError(
        f"{out} holds a cache made otherwise ({'; '.join(reasons)}); use another --out, or --force to replace it"
    )


def open_order(out: Path, fingerprint: str, *, force: bool) -> None:
    """Begin a build, or go on with one of the same fingerprint; clear away what `force` allows to."""
    order = out / ORDER_NAME
    foreign = {path.name for path in out.iterdir()} - {ORDER_NAME, LOCK_NAME, INDEX_NAME, *SPLIT_FOLDERS}
    if foreign:
        raise CacheError(f"{out} holds other things ({sorted(foreign)[0]}); give --out a folder of its own")
    if order.exists():
        if json.loads(order.read_text()).get("fingerprint") == fingerprint:
            return
        if not force and any(out.glob(f"*/{PARTS_NAME}/*.json")):  # without a finished shard nothing is lost
            raise CacheStaleError(
                f"{out} holds an unfinished build of something else; use another --out, or --force to replace it"
            )
    (out / INDEX_NAME).unlink(missing_ok=True)  # first: from here on there is no cache
    for name in SPLIT_FOLDERS:
        if (out / name).exists():
            shutil.rmtree(out / name)
    write_atomically(order, json.dumps({"fingerprint": fingerprint}).encode())


def resolve_codec(spec: CacheSpec, images: int, memory: int) -> CacheSpec:
    """Raw pixels when the cache then fits in half of `memory` (bytes), so that later epochs never touch the disk."""
    fits = images * RecordLayout(spec.side, "raw").raw_bytes <= memory // 2
    return dataclasses.replace(spec, codec="raw" if fits or spec.store == "zarr" else "jpeg")


def estimate_bytes(spec: CacheSpec, images: int) -> int:
    """About how much disk a cache takes."""
    layout = RecordLayout.of(spec)
    if spec.codec == "raw":
        return images * layout.raw_bytes
    return images * (int(spec.side**2 * JPEG_BYTES_A_PIXEL) + 2 * layout.plane_bytes)


def check_space(out: Path, spec: CacheSpec, images: int) -> None:
    """Refuse to begin what cannot end.

    Raises:
        CacheError: the estimate exceeds the free space, what a resumed build already holds included.
    """
    need = estimate_bytes(spec, images)
    have = shutil.disk_usage(out).free + sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if need > have:
        raise CacheError(
            f"the cache needs about {need / 1e6:,.0f} MB and {out} has room for {have / 1e6:,.0f} MB; "
            "free some space, or use --image-codec jpeg or a smaller --side"
        )


def part_path(directory: Path, number: int) -> Path:
    """The file that says, while a build goes on, that a shard is finished."""
    return directory / PARTS_NAME / f"{number:05d}.json"


def read_part(directory: Path, number: int) -> Part | None:
    """What an interrupted build says of a shard; None when it had not finished it."""
    try:
        part = msgspec.json.decode(part_path(directory, number).read_bytes(), type=Part)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    path = directory / part.shard.name
    return part if path.exists() and describe(path, part.shard.rows) == part.shard else None


def read_rejections(path: Path) -> list[Rejection]:
    """The lines of a `rejected.jsonl`."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Rejection) for line in lines]
