"""The task of a worker: make one shard under a temporary name that no other attempt has."""

from __future__ import annotations

import dataclasses
import socket
import uuid
from pathlib import Path

import cv2
from distributed import get_worker

from cache.errors import CacheError
from cache.index import ShardManifest
from cache.messages import message
from cache.spec import CacheSpec
from cache.storage import is_url
from preprocess.build.folder import lock_holder
from preprocess.build.pipeline import make_shards
from preprocess.build.plan import Job
from preprocess.cluster.client import check_environment, environment
from preprocess.errors import ClusterError, DatasetError
from preprocess.photos import photo_path

_SHARE = message("all workers need the dataset and --out at the same paths on a file system that they share, or by URL")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardTask:
    """A shard to be made, and everything that a worker needs for it."""

    environment: dict[str, str]  # versions of the client
    holder: str  # content of the lock on the cache's folder, as the client sees it
    job: Job  # the shard; its split has just the images of the shard
    spec: CacheSpec
    threads: int
    build: str  # a word that all temporary names of a build have in common


def attempt_pattern(build: str) -> str:
    """A pattern for the temporary names of a build's shards."""
    return f".*.{build}.*"


def make_shard(task: ShardTask) -> ShardManifest:
    """Make a shard under a temporary name in its folder, and return its manifest.

    Only the client gives a shard its final name. So it does not matter how often it is made, or whether a worker that
    was believed dead finishes it once more. Raises `ClusterError`: this worker has other versions than the client, or
    does not see the same files. `CacheError`, `DatasetError`: as in a build on one machine.
    """
    worker = socket.gethostname()
    check_environment(task.environment, worker, environment())
    job = dataclasses.replace(task.job, name=f".{task.job.name}.{task.build}.{uuid.uuid4().hex[:12]}")
    # It is not restored: tasks run side by side in one process, and each would restore it while another is at work.
    cv2.setNumThreads(1)
    try:
        _check_files(task)
        ((_, manifest),) = make_shards(
            [job],
            task.spec,
            task.threads,
            on_images=lambda _: None,
            save=False,  # which the client does
            scratch=get_worker().local_directory,  # which Dask removes after a worker was killed
        )
    except (CacheError, ClusterError, DatasetError) as error:
        raise type(error)(message("worker {worker}: {error}", worker=worker, error=error)) from None
    return manifest


def _check_files(task: ShardTask) -> None:
    """Check that this worker sees the client's files: without the photos it would reject them all."""
    out, folder = task.job.directory.parent, task.job.split.folder
    if lock_holder(out) != task.holder:
        raise ClusterError("{out} is not the folder here that it is on the client; {share}", out=out, share=_SHARE)
    seen = next((source for source in task.job.sources if source.file_bytes >= 0), None)
    if seen and not is_url(folder) and not Path(path := photo_path(folder, seen.file_name)).is_file():
        raise ClusterError("{path} is not here, though the client sees it; {share}", path=path, share=_SHARE)
