"""WebDataset: tar files read from end to end, shuffled by file and within a buffer. In environment `streams`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import webdataset  # type: ignore[import-not-found]

from bench.peers.contestants.decoding import decode
from bench.peers.contestants.tars import write_tars
from bench.peers.contestants.worker_loader import Tensors, worker_loader
from bench.peers.feed import Feed
from bench.peers.task import Task

BUFFER_SAMPLES = 256
"""Among which a worker draws the next sample."""


def write_dataset(task: Task, folder: Path) -> None:
    """Write the tar files."""
    write_tars(task, folder)


@contextmanager
def open_feed(task: Task) -> Iterator[Feed]:
    """Its pipeline in a DataLoader: decoded and batched in the workers."""
    shards = sorted(str(path) for path in task.path.glob("*.tar"))
    dataset = webdataset.WebDataset(shards, shardshuffle=len(shards))
    dataset = dataset.shuffle(BUFFER_SAMPLES).map(partial(_sample, task.codec, task.side))
    dataset = dataset.batched(task.batch_size, partial=False, collation_fn=_stack)
    loader = worker_loader(dataset, None, task.threads)
    yield Feed(lambda: loader, f"webdataset {webdataset.__version__}")


def _sample(codec: str, side: int, found: dict[str, Any]) -> Tensors:
    return decode(found["img"], found["bits"], codec, side)


def _stack(samples: list[Tensors]) -> Tensors:
    import torch

    image, person, ignore = (torch.stack(parts) for parts in zip(*samples, strict=True))
    return image, person, ignore
