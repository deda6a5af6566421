"""Make shards on a Dask cluster, which chooses the worker for each shard, and another one where a worker is lost.

client    take a shard's part of the annotations and submit it     as many as the workers have threads
worker    make the shard under a temporary name                    `task.make_shard`
client    rename it and write its manifest                         only the client does so
"""

from __future__ import annotations

import dataclasses
import fnmatch
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from cache import files
from cache.errors import StorageError
from cache.index import ShardManifest
from cache.process import deferred_interrupt
from cache.spec import CacheSpec
from preprocess.build.folder import lock_holder
from preprocess.build.pipeline import FinishedShards
from preprocess.build.plan import Job, split_part
from preprocess.cluster.client import WORKER_SECONDS, ClusterAddress, environment, no_worker, open_client
from preprocess.cluster.task import ShardTask, attempt_pattern, make_shard
from preprocess.errors import ClusterError

if TYPE_CHECKING:
    from concurrent.futures import Future as RenameFuture

    from distributed import Client, Future

LOOK_SECONDS = 0.5
"""Seconds between two looks for Ctrl-C and for new or lost workers while no result arrives."""

RENAMERS = 16
"""Shards that the client renames at a time."""

RESULT_SECONDS = 10
"""Seconds that a manifest, which is small, may take to arrive; then its worker is lost and Dask makes it again."""


def make_shards_on_cluster(
    jobs: list[Job], spec: CacheSpec, threads: int, on_images: Callable[[int], None], *, address: ClusterAddress
) -> FinishedShards:
    """Make shards on the workers of a cluster. Finished shards stay, whatever goes wrong.

    Args:
        jobs: the shards; all workers see photos and shards at the same paths, or URLs.
        spec: the cache's.
        threads: number of threads that make the records of one shard; 0 takes one. A worker makes as many shards at a
            time as it has threads.
        on_images: called with the number of a shard's images when it is finished, from the calling thread.
        address: the cluster's.

    Yields:
        Each job with the manifest of its shard, when the shard has its final name.

    Raises:
        ClusterError: the cluster cannot be used, is lost, or a shard has killed several workers.
        CacheWriteError: writing failed.
        StorageError: photos or shards are in object storage, which fails.
    """
    build = uuid.uuid4().hex[:12]
    with _without_leftovers(jobs, build), deferred_interrupt() as check_interrupt, open_client(address) as client:
        run = _Run(client, address, check_interrupt)
        try:
            tasks = ((job, _task(job, spec, max(1, threads), build)) for job in jobs)
            for job, manifest in _renamed(run.results(tasks)):
                on_images(len(job.rows))
                yield job, manifest
        finally:
            run.cancel()


def _task(job: Job, spec: CacheSpec, threads: int, build: str) -> ShardTask:
    """The task of a worker, which needs absolute paths, and only the shard's part of the split."""
    part = split_part(job.split, job.rows)
    split = dataclasses.replace(part, folder=files.absolute(part.folder))
    return ShardTask(
        environment=environment(),
        holder=lock_holder(job.directory.parent),
        job=dataclasses.replace(job, split=split, rows=split.rows, directory=files.absolute(job.directory)),
        spec=spec,
        threads=threads,
        build=build,
    )


def _renamed(made: FinishedShards) -> FinishedShards:
    """Give workers' shards their names, a few at a time: object storage copies a shard to rename it."""
    pending: deque[RenameFuture[tuple[Job, ShardManifest]]] = deque()
    with ThreadPoolExecutor(RENAMERS, thread_name_prefix="rename") as pool:
        for each in made:
            pending.append(pool.submit(_rename, *each))
            while pending and (len(pending) > RENAMERS or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _rename(job: Job, manifest: ShardManifest) -> tuple[Job, ShardManifest]:
    files.move(job.directory / manifest.shard.name, job.directory / job.name)
    manifest = dataclasses.replace(manifest, shard=dataclasses.replace(manifest.shard, name=job.name))
    manifest.save(job.directory)
    return job, manifest


@contextmanager
def _without_leftovers(jobs: list[Job], build: str) -> Iterator[None]:
    """Remove the files of failed attempts at the end.

    A worker that is still busy may leave a file: it is no part of the cache, and the end of the next build removes it.
    """
    reachable = True
    try:
        yield
    except StorageError:
        reachable = False  # to remove anything would only fail once more
        raise
    finally:
        for directory in {job.directory for job in jobs if reachable}:
            for name in fnmatch.filter(files.names(directory), attempt_pattern(build)):
                files.remove(directory / name)


class _Run:
    """Keeps a cluster supplied with tasks."""

    def __init__(self, client: Client, address: ClusterAddress, check_interrupt: Callable[[], None]) -> None:
        self._client, self._address, self._check_interrupt = client, address, check_interrupt
        self._done: SimpleQueue[Future[ShardManifest]] = SimpleQueue()
        self._pending: dict[Future[ShardManifest], Job] = {}
        self._slots = 0
        self._looked = self._staffed = float("-inf")

    def results(self, tasks: Iterator[tuple[Job, ShardTask]]) -> FinishedShards:
        """Each job with its shard's manifest, in the order in which they finish; `tasks` are made as needed."""
        while True:
            self._look()
            self._supply(tasks)
            if not self._pending:
                return
            try:
                future = self._done.get(timeout=LOOK_SECONDS)
            except Empty:
                continue
            manifest = self._manifest(future)
            if manifest:
                job = self._pending.pop(future)
                self._supply(tasks)  # now, since the caller may take long with this result
                yield job, manifest

    def cancel(self) -> None:
        """Cancel the tasks that are not done yet."""
        if self._pending and self._client.status == "running":
            self._client.cancel(list(self._pending), force=True)

    def _supply(self, tasks: Iterator[tuple[Job, ShardTask]]) -> None:
        """Submit as many tasks as the workers have threads.

        One more would wait at a worker, take memory for its annotations, and be blamed if that worker died.
        """
        for job, task in islice(tasks, max(0, max(1, self._slots) - len(self._pending))):
            key = f"{job.split.name}/{job.name}-{task.build}"
            future = self._client.submit(make_shard, task, key=key, pure=False)
            self._pending[future] = job
            future.add_done_callback(self._done.put)

    def _look(self) -> None:
        """Look for Ctrl-C and, every `LOOK_SECONDS`, for the number of the workers' threads."""
        self._check_interrupt()
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            self._slots = sum(self._client.nthreads().values())
        except OSError:
            raise self._lost() from None
        if self._slots:
            self._staffed = now
        elif now - self._staffed > WORKER_SECONDS:
            raise no_worker(self._address)

    def _lost(self) -> ClusterError:
        return ClusterError(
            "the connection to the scheduler of {text} is lost; see its log, then run the same command "
            "again: finished shards are kept",
            text=self._address.text,
        )

    def _manifest(self, future: Future[ShardManifest]) -> ShardManifest | None:
        """The result of a task; None if it is lost with its worker, in which case Dask makes it again."""
        from distributed import KilledWorker

        job = self._pending[future]
        if future.status in ("cancelled", "lost"):
            raise self._lost()
        try:
            return future.result(timeout=RESULT_SECONDS)
        except TimeoutError:
            self._done.put(future)
            return None
        except KilledWorker as error:
            sources = {"first": job.sources[0].file_name, "last": job.sources[-1].file_name}
            raise ClusterError(
                "shard {shard} ({first} to {last}) has lost {count} workers, the last at {address}: they ran out of "
                "memory, or a photo of it crashes them; see the workers' logs, take that photo out or give them more "
                "memory, and run it again: finished shards are kept",
                shard=f"{job.split.name}/{job.name}",
                **sources,
                count=error.allowed_failures + 1,
                address=error.last_worker.address,
            ) from None
