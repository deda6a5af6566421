"""What several libraries need: samples as tensors, torch's DataLoader, tar files. It imports torch."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from bench.peers.task import Samples, Task, unpack

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Image `(S, S, 3)` and the planes person and ignore `(S, S)`, uint8; of a batch with N in front."""

BUFFER_SAMPLES = 256
"""Size of the buffer from which readers of tar files draw the next sample."""

TAR_SAMPLES = 128
"""Samples in a tar file, as in a shard of our caches."""


def decode(task: Task, item: Mapping[str, bytes]) -> Tensors:
    """Decode a stored sample, for libraries that leave that to their users.

    Args:
        task: codec and side.
        item: `image`, raw pixels or a JPEG; `bits`, both planes, packed as in `bench.peers.task`.
    """
    if task.codec == "jpeg":
        import simplejpeg

        pixels = simplejpeg.decode_jpeg(item["image"], "RGB")
    else:  # a copy, as torch wants to write to it
        pixels = np.frombuffer(bytearray(item["image"]), np.uint8).reshape(task.side, task.side, 3)
    person, ignore = unpack(item["bits"], task.side)
    return torch.from_numpy(pixels), torch.from_numpy(person), torch.from_numpy(ignore)


def worker_options(task: Task) -> dict[str, Any]:
    """Options of a DataLoader whose worker processes stay."""
    return {
        "batch_size": task.batch_size,
        "num_workers": task.threads,
        "persistent_workers": True,
        "drop_last": True,
        "worker_init_fn": _use_one_thread,
    }


def worker_loader(dataset: Any, task: Task, **options: Any) -> DataLoader[Tensors]:
    """Torch's DataLoader, for libraries that have none of their own; `options` replace those of `worker_options`."""
    return DataLoader(dataset, **worker_options(task) | options)


def _use_one_thread(_worker: int) -> None:
    torch.set_num_threads(1)  # the workers are the parallelism


def write_tars(task: Task, folder: Path) -> None:
    """Write tar files in the layout of WebDataset: images (`img`: raw or JPEG) and packed planes (`bits`)."""
    samples = Samples(task.folder, task.samples)
    for first in range(0, len(samples), TAR_SAMPLES):
        with tarfile.open(folder / f"{first // TAR_SAMPLES:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(first, min(first + TAR_SAMPLES, len(samples))):
                for kind, data in (("img", samples.encoded(number, task.codec)), ("bits", samples.bits(number))):
                    member = tarfile.TarInfo(f"{number:08d}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def tar_files(task: Task) -> list[str]:
    """The tar files of a dataset."""
    return sorted(map(str, (task.folder / task.dataset).glob("*.tar")))
