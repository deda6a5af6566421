"""Shards for object storage: made on this machine's disk, and sent when they are whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from cache import files
from cache.manifest import ShardManifest, manifest_path
from cache.place import StorageUrl
from cache.shards import remove
from cache.spec import CacheSpec
from preprocess.pipeline import Job, enter, make_shards

SENDERS = 4
"""Shards that are sent at a time: one connection alone seldom fills the line."""


def make_and_send_shards(jobs: list[Job], spec: CacheSpec, workers: int, on_image: Callable[[], None]) -> None:
    """As `make_shards`, for jobs whose folders are in object storage.

    Raises:
        CacheWriteError: the disk of this machine, which holds a few shards at a time, cannot be written.
        StorageError: object storage fails.
    """
    targets = {job.plan.split.name: job for job in jobs}
    with TemporaryDirectory(prefix="maskcache-") as scratch:
        here = {name: Path(scratch) / name for name in targets}
        for folder in here.values():
            folder.mkdir()

        def send(job: Job, manifest: ShardManifest) -> None:
            made, target = Path(job.directory) / manifest.shard.name, targets[job.plan.split.name].directory
            assert isinstance(target, StorageUrl)
            files.upload(made, target / manifest.shard.name)
            remove(made)
            enter(dataclasses.replace(job, directory=target), manifest)

        made_here = [dataclasses.replace(job, directory=here[job.plan.split.name]) for job in jobs]
        make_shards(made_here, spec, workers, on_image, send, SENDERS)


def forget_stale(jobs: list[Job]) -> None:
    """Remove the manifests of shards that are about to be made.

    Else, were a build killed between a shard and its manifest, the manifest of an older shard of the same name and size
    would vouch for the new one. On a disk, that is seen by the checksum.
    """
    for directory in {job.directory for job in jobs}:
        there = set(files.names(directory))
        for job in jobs:
            path = manifest_path(directory, job.shard.name)
            if job.directory == directory and path.name in there:
                files.remove(path)
