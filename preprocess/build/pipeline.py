"""Make shards with threads: many make records, one packs them in order, one makes full shards durable.

    workers   read, decode, draw, resize, encode, hash     one image at a time, into a buffer of a small pool
    caller    append the records to the open shard          in order, so that the same build gives the same bytes
    closer    sync, hash, rename, write the manifest        while the next shard is being filled

Everything that takes time happens without the interpreter lock. The buffers take the same memory for any number of
images: the window of pending images moves over the shards' borders without a pause. Shards for object storage are made
on this machine's disk, and sent by the closers.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from cache import files
from cache.arrays import U8
from cache.index import COLUMNS, ImageSource, Rejection, ShardManifest, manifest_path
from cache.machine import processors
from cache.process import deferred_interrupt
from cache.record import RecordLayout
from cache.shards import ShardDraft
from cache.spec import CacheSpec
from cache.storage import StorageUrl
from preprocess.build.plan import Job, Split, content_digest
from preprocess.build.record import make_record
from preprocess.errors import ImageError
from preprocess.image import opencv_threads, quiet_pillow

PENDING_SHARDS = 1
"""Full shards that may wait for a closer: more would only hide that the disk is slower than the workers."""

SENDERS = 4
"""Shards that are sent to object storage at a time: one connection alone seldom uses the whole bandwidth."""

FinishedShards = Iterator[tuple[Job, ShardManifest]]


class _Outcome(NamedTuple):
    """The result of an image: a row of the sample table, or a rejection."""

    source: ImageSource
    sample: tuple[Any, ...] = ()
    rejection: Rejection | None = None


def remove_stale_manifests(jobs: list[Job]) -> None:
    """Remove the manifests of shards that are about to be made in object storage.

    Otherwise, if a build were killed between a shard and its manifest, the manifest of an older shard of the same name
    and size would pass for that of the new one. On a disk the checksum shows it.
    """
    for directory in {job.directory for job in jobs if isinstance(job.directory, StorageUrl)}:
        there = set(files.names(directory))
        for path in (manifest_path(directory, job.name) for job in jobs if job.directory == directory):
            if path.name in there:
                files.remove(path)


def make_shards(
    jobs: list[Job],
    spec: CacheSpec,
    threads: int,
    on_images: Callable[[int], None],
    *,
    scratch: str | None = None,
    save: bool = True,
) -> FinishedShards:
    """Make shards one after the other, while all threads work on the images of the next ones.

    Whatever goes wrong, no thread and no unfinished file is left; finished shards stay.

    Args:
        jobs: what to make, in this order; their directories are folders of one cache.
        threads: number of threads that make records; 0 takes one per processor.
        on_images: called with the number of images that were done since the last call, from the calling thread.
        scratch: folder for the shards that then go to object storage; the system's by default.
        save: write the manifest beside each shard, which says that it is finished.

    Yields:
        Each job with the manifest of its shard, in the order of the jobs.

    Raises:
        CacheWriteError: writing failed.
        StorageError: object storage cannot be read or written.
    """
    if not jobs:
        return
    layout = RecordLayout.of(spec)
    threads = threads or processors()
    out = jobs[0].directory.parent
    closers = min(SENDERS, files.at_once(out))
    requests = max(files.at_once(job.split.folder) for job in jobs)
    # Long enough that one large photo, a slow disk or a distant storage does not keep the others waiting.
    window = max(8 * threads, 2 * requests)
    buffers: SimpleQueue[U8] = SimpleQueue()
    for _ in range(window):
        buffers.put(np.empty(layout.most_bytes, np.uint8))
    stop = threading.Event()
    make = partial(_make_image, spec, layout, buffers, stop)
    with (
        deferred_interrupt() as check_interrupt,  # so that every file that was opened is known, and removed
        files.staging(out, scratch) as here,
        opencv_threads(1),  # OpenCV's own threads would compete with the workers
        quiet_pillow(),
        ThreadPoolExecutor(requests, thread_name_prefix="preprocess-reader") as readers,
        ThreadPoolExecutor(closers, thread_name_prefix="preprocess-closer") as closer,
        ThreadPoolExecutor(threads, thread_name_prefix="preprocess") as pool,
    ):

        def reader(split: Split, row: int) -> Callable[[], bytes]:
            # A photo in object storage is requested now, and awaited by the worker.
            read = partial(split.read, row)
            return readers.submit(read).result if requests > 1 else read

        images = (
            (job.split, row, source, reader(job.split, row))
            for job in jobs
            for row, source in zip(job.rows, job.sources, strict=True)
        )
        pending = deque(pool.submit(make, *image) for image in islice(images, window - 1))
        closing: deque[Future[tuple[Job, ShardManifest]]] = deque()
        draft = None
        try:
            for job in jobs:
                folder = here / job.split.name
                folder.mkdir(exist_ok=True)
                draft = ShardDraft(folder, job.name, spec.store, layout, len(job.rows))
                outcomes = []
                for _ in job.rows:
                    outcome, buffer, record = pending.popleft().result()
                    if record is not None:
                        draft.append(record)
                    buffers.put(buffer)
                    pending.extend(pool.submit(make, *image) for image in islice(images, 1))
                    outcomes.append(outcome)
                    on_images(1)
                    check_interrupt()
                closing.append(closer.submit(_finish, job, draft, outcomes, folder, save))
                draft = None  # which from now on belongs to the closer
                if len(closing) > closers + PENDING_SHARDS:
                    yield closing.popleft().result()
            while closing:
                yield closing.popleft().result()
                check_interrupt()
        finally:
            stop.set()
            readers.shutdown(wait=False, cancel_futures=True)
            if draft is not None:
                draft.discard()


def _make_image(
    spec: CacheSpec,
    layout: RecordLayout,
    buffers: SimpleQueue[U8],
    stop: threading.Event,
    split: Split,
    row: int,
    source: ImageSource,
    read: Callable[[], bytes],
) -> tuple[_Outcome, U8, U8 | None]:
    """Make an image's record in one of the buffers; give that buffer, and the record if there is one."""
    if stop.is_set():
        raise InterruptedError
    buffer = buffers.get()  # never waits: there are as many buffers as pending images
    try:
        data = read()
        source = source._replace(content=content_digest(data))
        record, entry = make_record(spec, layout, split, row, data, buffer)
    except ImageError as error:
        image_id, file_name = source.image_id, source.file_name
        rejection = Rejection(split=split.name, image_id=image_id, file_name=file_name, reason=str(error))
        return _Outcome(source, rejection=rejection), buffer, None
    return _Outcome(source, tuple(entry[name] for name in COLUMNS)), buffer, record


def _finish(
    job: Job, draft: ShardDraft, outcomes: list[_Outcome], folder: Path, save: bool
) -> tuple[Job, ShardManifest]:
    """Make a full shard durable, bring it from the folder to where it belongs, and write its manifest."""
    try:
        shard = dataclasses.replace(draft.finish(), key=job.key)
    except BaseException:
        draft.discard()
        raise
    files.deliver(folder / job.name, job.directory / job.name)
    manifest = ShardManifest(
        shard=shard,
        sources=tuple(outcome.source for outcome in outcomes),
        samples=tuple(outcome.sample for outcome in outcomes if outcome.sample),
        rejections=tuple(outcome.rejection for outcome in outcomes if outcome.rejection),
    )
    if save:
        manifest.save(job.directory)
    return job, manifest
