"""Shards as tasks of a Dask cluster, which chooses the workers, and gives the tasks of a lost one to another.

client    cut out a shard's part of the annotations, submit it     as many as the workers have threads
worker    make the shard under a name of its own                   `task.make_shard`
client    rename it, write its manifest                            only the client does so
"""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import msgspec

from cache import files
from cache.errors import StorageError
from cache.index import ShardManifest
from cache.spec import CacheSpec
from preprocess.build.folder import lock_holder
from preprocess.build.pipeline import FinishedShards
from preprocess.build.plan import Job, split_part
from preprocess.cluster.address import ClusterAddress
from preprocess.cluster.client import WORKER_SECONDS, environment, no_worker, open_client
from preprocess.cluster.task import ShardTask, attempt_pattern, make_shard
from preprocess.errors import ClusterError
from preprocess.interrupt import deferred_interrupt

if TYPE_CHECKING:
    from concurrent.futures import Future as AdoptedFuture

    from distributed import Client, Future

LOOK_SECONDS = 0.5
"""How often to look for Ctrl-C and for new or lost workers while nothing comes in."""

ADOPTERS = 16
"""Shards that the client gives their places at a time."""

RESULT_SECONDS = 10
"""How long a manifest, which is small, may take to come; then its worker is gone and Dask makes it anew."""


def make_shards_on_cluster(
    jobs: list[Job], spec: CacheSpec, threads: int, on_images: Callable[[int], None], *, address: ClusterAddress
) -> FinishedShards:
    """Make shards on the workers of a cluster. Finished shards stay, whatever goes wrong.

    Args:
        jobs: what to make; all workers see photos and shards at the same paths, or URLs.
        spec: of the cache.
        threads: that make the records of one shard; 0 takes one. A worker makes as many shards at a time as it has
            threads.
        on_images: called with the number of a shard's images when it is finished, from the calling thread.
        address: of the cluster.

    Yields:
        Each job with the manifest of its shard, when it is in its place.

    Raises:
        ClusterError: the cluster cannot be used, is lost, or a shard has killed several workers.
        CacheWriteError: writing failed.
        StorageError: photos or shards are in object storage, which fails.
    """
    build = uuid.uuid4().hex[:12]
    with _tidied(jobs, build), deferred_interrupt() as check_interrupt, open_client(address) as client:
        run = _Run(client, address, check_interrupt)
        try:
            tasks = ((job, _task(job, spec, max(1, threads), build)) for job in jobs)
            for job, manifest in _adopted(run.results(tasks)):
                on_images(len(job.rows))
                yield job, manifest
        finally:
            run.cancel()


def _task(job: Job, spec: CacheSpec, threads: int, build: str) -> ShardTask:
    """A job for a worker, which was started in another folder and needs the shard's part of the split alone."""
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


def _adopted(made: FinishedShards) -> FinishedShards:
    """Give workers' shards their places, a few at a time: object storage takes its time to copy one."""
    pending: deque[AdoptedFuture[tuple[Job, ShardManifest]]] = deque()
    with ThreadPoolExecutor(ADOPTERS, thread_name_prefix="adopt") as pool:
        for each in made:
            pending.append(pool.submit(_adopt, *each))
            while pending and (len(pending) > ADOPTERS or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _adopt(job: Job, manifest: ShardManifest) -> tuple[Job, ShardManifest]:
    files.move(job.directory / manifest.shard.name, job.directory / job.name)
    manifest = dataclasses.replace(manifest, shard=dataclasses.replace(manifest.shard, name=job.name))
    manifest.save(job.directory)
    return job, manifest


@contextmanager
def _tidied(jobs: list[Job], build: str) -> Iterator[None]:
    """Remove afterwards what failed attempts have left.

    A worker that is still busy leaves its own; that is no part of the cache, and the end of the next build removes it.
    """
    unreachable = False
    try:
        yield
    except StorageError:
        unreachable = True  # to remove anything would only fail once more
        raise
    finally:
        if not unreachable:
            for directory in {job.directory for job in jobs}:
                for name in files.names(directory):
                    if fnmatch(name, attempt_pattern(build)):
                        files.remove(directory / name)


class _Run:
    """Keeps a cluster supplied with tasks."""

    def __init__(self, client: Client, address: ClusterAddress, check_interrupt: Callable[[], None]) -> None:
        self._client, self._address, self._check_interrupt = client, address, check_interrupt
        self._done: SimpleQueue[Future[bytes]] = SimpleQueue()
        self._pending: dict[Future[bytes], Job] = {}
        self._slots = 0
        self._looked = self._staffed = float("-inf")

    def results(self, tasks: Iterator[tuple[Job, ShardTask]]) -> FinishedShards:
        """Each job with the manifest of its shard, as they are finished; `tasks` are made when they are needed."""
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
                self._supply(tasks)  # before the caller takes its time
                yield job, manifest

    def cancel(self) -> None:
        """Cancel the tasks that are not done yet."""
        if self._pending and self._client.status == "running":
            self._client.cancel(list(self._pending), force=True)

    def _supply(self, tasks: Iterator[tuple[Job, ShardTask]]) -> None:
        """Submit as many tasks as the workers have threads.

        One more would wait at a worker, take memory for its images' outlines, and be blamed where that worker dies.
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

    def _manifest(self, future: Future[bytes]) -> ShardManifest | None:
        """The result of a task; None if it is lost with its worker and will come again."""
        from distributed import KilledWorker

        job = self._pending[future]
        if future.status in ("cancelled", "lost"):
            raise self._lost()
        try:
            return msgspec.json.decode(future.result(timeout=RESULT_SECONDS), type=ShardManifest)
        except TimeoutError:
            self._done.put(future)
            return None
        except KilledWorker as error:
            first, last = job.sources[0].file_name, job.sources[-1].file_name
            raise ClusterError(
                "shard {name}/{name2} ({first} to {last}) has lost {allowed_failures} workers, the last at "
                "{address}: they ran out of memory, or a photo of it crashes them; see the workers' logs, take "
                "that photo out or give them more memory, and run it again: finished shards are kept",
                name=job.split.name,
                name2=job.name,
                first=first,
                last=last,
                allowed_failures=error.allowed_failures + 1,
                address=error.last_worker.address,
            ) from None
