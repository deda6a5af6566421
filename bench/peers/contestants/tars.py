"""Tar files in the layout of WebDataset. Standard library and NumPy only."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from bench.peers.samples import Samples
from bench.peers.task import Task

SHARD_SAMPLES = 128
"""As in our caches."""


def write_tars(task: Task, folder: Path) -> None:
    """Write files of images (`img`: raw or JPEG) and packed planes (`bits`)."""
    samples = Samples(task.folder, task.samples)
    for first in range(0, len(samples), SHARD_SAMPLES):
        with tarfile.open(folder / f"{first // SHARD_SAMPLES:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(first, min(first + SHARD_SAMPLES, len(samples))):
                for kind, data in (("img", samples.encoded(number, task.codec)), ("bits", samples.bits(number))):
                    member = tarfile.TarInfo(f"{number:08d}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
