"""COCO -> cache: plan the shards, work on them side by side, resume what was interrupted, commit the index last."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import psutil

from cache.atomic import write_atomically
from cache.errors import CacheError
from cache.index import REJECTED_NAME, SAMPLE_DTYPE, SAMPLES_NAME, CacheIndex, SplitInfo, encode_table
from cache.record import RecordLayout
from cache.shards import describe, shard_name, write_shard
from cache.spec import CacheSpec
from preprocess.errors import DatasetError, ImageError
from preprocess.sample import make_record
from preprocess.sources import SPLIT_FOLDERS, Split, read_split
from preprocess.workplace import (
    ORDER_NAME,
    PARTS_NAME,
    Part,
    Rejection,
    check_space,
    finished_index,
    lock_folder,
    open_order,
    part_path,
    read_part,
    read_rejections,
    resolve_codec,
)

Progress = Callable[[int, int], None]
"""Called with (images done, images in all), from any worker, one call at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to build, from what.

    Attributes:
        coco: folder that holds `annotations/`, `train2017/`, `val2017/`.
        out: the cache's folder.
        spec: the cache's specification.
        auto_codec: choose between raw and JPEG by the size of memory, whatever the spec says.
        splits: which of `train` and `val`.
        workers: threads; 0 takes one a processor.
        force: build anew whatever cache is there, be it damaged or of something else; an unfinished build of the same
            is still gone on with.
    """

    coco: Path
    out: Path
    spec: CacheSpec
    auto_codec: bool = False
    splits: tuple[str, ...] = ("train", "val")
    workers: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise DatasetError(f"workers={self.workers} is negative; 0 takes one a processor")
        unknown = [split for split in self.splits if split not in SPLIT_FOLDERS]
        if unknown or not self.splits:
            raise DatasetError(f"splits={self.splits} is not known; use {' and '.join(SPLIT_FOLDERS)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did.

    Attributes:
        index: the committed index.
        rejections: of all splits, resumed shards included.
        written: images that this run worked on.
        resumed: images in shards that an interrupted run had finished.
        fresh: the cache was already complete and from the same sources: nothing was done.
    """

    index: CacheIndex
    rejections: tuple[Rejection, ...]
    written: int
    resumed: int
    fresh: bool


def build_cache(config: BuildConfig, progress: Progress | None = None) -> BuildReport:
    """Make a cache, go on with an interrupted one, or find that it is already there.

    Each shard is written by one worker under a temporary name, synced and renamed; the index comes last.

    Raises:
        DatasetError: the dataset is incomplete or unreadable, or no image is left.
        CacheStaleError: `out` holds a cache, or an unfinished build, from something else, and `force` is not set.
        CacheError: `out` is not a place for a cache, is in use by another build, or lacks the space.
        CacheWriteError: writing failed; finished shards stay and the next run goes on from them.
    """
    splits = [read_split(config.coco, name, config.spec) for name in config.splits]
    images = sum(len(split.rows) for split in splits)
    spec = resolve_codec(config.spec, images, psutil.virtual_memory().total) if config.auto_codec else config.spec
    sources = {split.name: split.source for split in splits}
    fingerprint = spec.fingerprint(json.dumps({name: dataclasses.asdict(source) for name, source in sources.items()}))

    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(f"cannot create {config.out}: {error.strerror}; choose another --out") from None
    with lock_folder(config.out):
        finished = finished_index(config.out, spec, fingerprint, sources, force=config.force)
        if finished:
            known = chain(*(read_rejections(config.out / name / REJECTED_NAME) for name in finished.splits))
            return BuildReport(index=finished, rejections=tuple(known), written=0, resumed=0, fresh=True)
        check_space(config.out, spec, images)
        open_order(config.out, fingerprint, force=config.force)
        parts, resumed = _run(config, spec, splits, images, progress)
        index = _commit(config.out, spec, fingerprint, splits, parts)
    rejections = tuple(chain(*(_rejections(split, parts[split.name]) for split in splits)))
    return BuildReport(index=index, rejections=rejections, written=images - resumed, resumed=resumed, fresh=False)


def _run(
    config: BuildConfig, spec: CacheSpec, splits: list[Split], images: int, progress: Progress | None
) -> tuple[dict[str, list[Part]], int]:
    """Do every shard that is not yet done; returns all parts by split, and the number of images found done."""
    stop, lock = threading.Event(), threading.Lock()
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress:
                progress(done, images)

    parts: dict[str, list[Part | None]] = {}
    tasks, resumed = [], 0
    for split in splits:
        directory = config.out / split.name
        (directory / PARTS_NAME).mkdir(parents=True, exist_ok=True)
        chunks = [split.rows[at : at + spec.shard_samples] for at in range(0, len(split.rows), spec.shard_samples)]
        parts[split.name] = [read_part(directory, number) for number in range(len(chunks))]
        for number, chunk in enumerate(chunks):
            if parts[split.name][number]:
                resumed += len(chunk)
            else:
                tasks.append((split, number, chunk))
    if resumed:
        advance(resumed)  # at once: the rate is that of the work to come

    def work(split: Split, number: int, chunk: list[int]) -> None:
        parts[split.name][number] = _write_part(config.out / split.name, spec, split, number, chunk, stop, advance)

    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the workers are the parallelism; OpenCV's own threads would only fight with them
    pool = ThreadPoolExecutor(config.workers or os.cpu_count() or 1, thread_name_prefix="preprocess")
    try:
        futures = [pool.submit(work, *task) for task in tasks]
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()  # a worker's error ends the build with its own traceback
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        cv2.setNumThreads(threads_before)
    return {name: [part for part in found if part] for name, found in parts.items()}, resumed


def _write_part(
    directory: Path,
    spec: CacheSpec,
    split: Split,
    number: int,
    rows: list[int],
    stop: threading.Event,
    advance: Callable[[int], None],
) -> Part:
    """Write one shard and, after it, the file that says it is finished."""
    layout = RecordLayout.of(spec)
    samples: list[list[Any]] = []
    rejections: list[Rejection] = []
    with write_shard(directory, number, spec.store, layout, len(rows)) as writer:
        for row in rows:
            if stop.is_set():
                raise InterruptedError
            try:
                record, entry = make_record(spec, layout, split, row)
            except ImageError as error:
                rejections.append(
                    Rejection(
                        split=split.name,
                        image_id=int(split.table.image_id[row]),
                        file_name=split.table.file_name[row],
                        reason=str(error),
                    )
                )
            else:
                entry["shard"], entry["row"] = number, len(samples)
                writer.append(record)
                samples.append([entry[name] for name in SAMPLE_DTYPE.names or ()])
            advance(1)
    shard = describe(directory / shard_name(number, spec.store), len(samples))
    part = Part(shard=shard, rejections=tuple(rejections), samples=samples)
    write_atomically(part_path(directory, number), msgspec.json.encode(part))
    return part


def _rejections(split: Split, parts: list[Part]) -> list[Rejection]:
    """Everything of a split that was left out: annotations without an image, then images."""
    orphans = [
        Rejection(split=split.name, image_id=-1, file_name=split.annotations.name, reason=reason)
        for reason in split.orphans
    ]
    return [*orphans, *(rejection for part in parts for rejection in part.rejections)]


def _commit(
    out: Path, spec: CacheSpec, fingerprint: str, splits: list[Split], parts: dict[str, list[Part]]
) -> CacheIndex:
    """Write the sample tables, the rejections and, last, the index; then clear away what resuming needed."""
    infos: dict[str, SplitInfo] = {}
    for split in splits:
        table = np.concatenate([part.table() for part in parts[split.name]])
        rejections = _rejections(split, parts[split.name])
        if not len(table):
            first = parts[split.name][0].rejections[0]
            raise DatasetError(
                f"every one of the {len(split.rows)} images of {split.folder} was rejected; "
                f"the first, {first.file_name}: {first.reason}"
            )
        data, table_checksum = encode_table(table)
        write_atomically(out / split.name / SAMPLES_NAME, data)
        lines = b"".join(msgspec.json.encode(rejection) + b"\n" for rejection in rejections)
        write_atomically(out / split.name / REJECTED_NAME, lines)
        infos[split.name] = SplitInfo(
            samples=len(table),
            rejected=len(split.rows) - len(table),
            table_checksum=table_checksum,
            shards=tuple(part.shard for part in parts[split.name]),
            source=split.source,
        )
    tools = {name: version(name) for name in ("numpy", "opencv-python-headless", "simplejpeg", "lmdb", "zarr")}
    index = CacheIndex(spec=spec, fingerprint=fingerprint, tools=tools, splits=infos)
    index.save(out)
    for split in splits:
        shutil.rmtree(out / split.name / PARTS_NAME)
    (out / ORDER_NAME).unlink()
    return index
