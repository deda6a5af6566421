"""WebDataset: tar files read from end to end, shuffled by file and within a buffer. In environment `streams`."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
import webdataset  # type: ignore[import-not-found]

from bench.peers.child import Feed
from bench.peers.contestants.common import BUFFER_SAMPLES, Tensors, decode, tar_files, worker_loader, write_tars
from bench.peers.task import Task

write_dataset = write_tars


def open_feed(task: Task, _stack: ExitStack) -> Feed:
    """Its pipeline in a DataLoader: decoded and batched in the workers."""
    shards = tar_files(task)
    dataset = webdataset.WebDataset(shards, shardshuffle=len(shards))
    dataset = dataset.shuffle(BUFFER_SAMPLES).map(partial(_sample, task))
    dataset = dataset.batched(task.batch_size, partial=False, collation_fn=_stack_samples)
    loader = worker_loader(dataset, task, batch_size=None, drop_last=False)  # the dataset makes batches
    return lambda: loader


def _sample(task: Task, item: dict[str, Any]) -> Tensors:
    return decode(task, {"image": item["img"], "bits": item["bits"]})


def _stack_samples(samples: list[Tensors]) -> Tensors:
    image, person, ignore = (torch.stack(parts) for parts in zip(*samples, strict=True))
    return image, person, ignore
