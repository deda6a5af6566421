"""The threads of a build: many make records, one packs them in order, one makes full shards durable.

    workers   read, decode, draw, resize, encode, hash     one image at a time, into a buffer of a small pool
    caller    append the records to the open shard          in order, so that the same build gives the same bytes
    closer    sync, hash, rename, write the manifest        while the next shard is being filled

Everything that takes time happens without the interpreter lock. Memory is that of the buffers, whatever the number of
images: the window of images under way moves over the shards' borders without a pause.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from cache.files import AT_ONCE
from cache.index import ShardInfo
from cache.manifest import COLUMNS, ImageSource, Rejection, ShardManifest
from cache.place import StorageUrl
from cache.record import U8, RecordLayout
from cache.shards import ShardDraft
from cache.spec import CacheSpec
from preprocess.errors import ImageError
from preprocess.image import opencv_threads, quiet_pillow
from preprocess.interrupt import deferred_interrupt
from preprocess.plan import PlannedShard, SplitPlan
from preprocess.sample import make_record
from preprocess.sources import Split, content_digest

CLOSING_AHEAD = 1
"""Full shards that may wait for a closer: more would only hide that the disk is the slower."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A shard to be made: the number of it in the plan of a split, and the folder that it goes to."""

    plan: SplitPlan
    number: int
    directory: PurePath

    @property
    def shard(self) -> PlannedShard:
        """What is planned."""
        return self.plan.shards[self.number]


class _Outcome(NamedTuple):
    """What has become of an image: a row of the sample table, or the reason why not."""

    source: ImageSource
    sample: tuple[Any, ...]
    reason: str


def enter(job: Job, manifest: ShardManifest) -> None:
    """Say that a shard is finished, on disk and in its plan."""
    manifest.save(job.directory)
    job.plan.shards[job.number] = dataclasses.replace(job.shard, manifest=manifest)


def make_shards(
    jobs: list[Job],
    spec: CacheSpec,
    workers: int,
    on_image: Callable[[], None],
    on_shard: Callable[[Job, ShardManifest], None] = enter,
    closers: int = 1,
) -> None:
    """Make shards one after the other, with all threads at work on the images of the next ones.

    Whatever goes wrong, no thread and no unfinished file is left; finished shards stay.

    Args:
        jobs: what to make, in this order.
        spec: of the cache.
        workers: threads that make records; 0 takes one a processor.
        on_image: called after each image, from the calling thread.
        on_shard: called with each finished shard, by a closer.
        closers: threads that make full shards durable.

    Raises:
        CacheWriteError: writing failed.
        StorageError: photos are in object storage, which cannot be read.
    """
    layout = RecordLayout.of(spec)
    workers = workers or os.cpu_count() or 1
    window = 8 * workers  # so that one large photo, or a slow disk, does not keep the others waiting
    if any(isinstance(job.plan.split.folder, StorageUrl) for job in jobs):
        window = max(window, 2 * AT_ONCE)
    buffers: SimpleQueue[U8] = SimpleQueue()
    for _ in range(window):
        buffers.put(np.empty(layout.most_bytes, np.uint8))
    stop = threading.Event()

    def make(split: Split, row: int, source: ImageSource, read: Callable[[], bytes]) -> tuple[_Outcome, U8, U8 | None]:
        if stop.is_set():
            raise InterruptedError
        buffer = buffers.get()  # as many as images under way: there is one
        try:
            data = read()
            source = source._replace(content=content_digest(data))
            record, entry = make_record(spec, layout, split, row, data, buffer)
        except ImageError as error:
            return _Outcome(source, (), str(error)), buffer, None
        return _Outcome(source, tuple(entry[name] for name in COLUMNS), ""), buffer, record

    def finish(job: Job, draft: ShardDraft, outcomes: list[_Outcome]) -> None:
        try:
            shard = dataclasses.replace(draft.finish(), key=job.shard.key)
        except BaseException:
            draft.give_up()
            raise
        on_shard(job, _manifest(job, shard, outcomes))

    with (
        deferred_interrupt() as check_interrupt,  # so that every file that was opened is known, and tidied up
        opencv_threads(1),  # the workers are the parallelism; OpenCV's own threads would only fight with them
        quiet_pillow(),
        ThreadPoolExecutor(AT_ONCE, thread_name_prefix="preprocess-reader") as readers,
        ThreadPoolExecutor(closers, thread_name_prefix="preprocess-closer") as closer,
        ThreadPoolExecutor(workers, thread_name_prefix="preprocess") as pool,
    ):

        def reader(split: Split, row: int) -> Callable[[], bytes]:
            """What gives a photo's bytes: at once from a disk, and asked for beforehand from far away."""
            read = partial(split.read, row)
            return readers.submit(read).result if isinstance(split.folder, StorageUrl) else read

        images = (
            (job.plan.split, row, source, reader(job.plan.split, row))
            for job in jobs
            for row, source in zip(job.shard.rows, job.shard.sources, strict=True)
        )
        ahead = deque(pool.submit(make, *image) for image in islice(images, window - 1))
        closing: deque[Future[None]] = deque()
        draft = None
        try:
            for job in jobs:
                draft = ShardDraft(Path(job.directory), job.shard.name, spec.store, layout, len(job.shard.rows))
                outcomes = []
                for _ in job.shard.rows:
                    outcome, buffer, record = ahead.popleft().result()
                    if record is not None:
                        draft.append(record)
                    buffers.put(buffer)
                    ahead.extend(pool.submit(make, *image) for image in islice(images, 1))
                    outcomes.append(outcome)
                    on_image()
                    check_interrupt()
                closing.append(closer.submit(finish, job, draft, outcomes))
                draft = None  # from here on the closer's
                if len(closing) > closers + CLOSING_AHEAD:
                    closing.popleft().result()
            while closing:
                closing.popleft().result()
                check_interrupt()
        finally:
            stop.set()
            readers.shutdown(wait=False, cancel_futures=True)
            if draft is not None:
                draft.give_up()


def _manifest(job: Job, shard: ShardInfo, outcomes: list[_Outcome]) -> ShardManifest:
    rejections = tuple(
        Rejection(
            split=job.plan.split.name,
            image_id=outcome.source.image_id,
            file_name=outcome.source.file_name,
            reason=outcome.reason,
        )
        for outcome in outcomes
        if outcome.reason
    )
    return ShardManifest(
        shard=shard,
        sources=tuple(outcome.source for outcome in outcomes),
        samples=tuple(outcome.sample for outcome in outcomes if not outcome.reason),
        rejections=rejections,
    )
