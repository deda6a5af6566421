"""LitData: chunks of binary items, on local disk. In environment `streams`."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import litdata  # type: ignore[import-not-found]

from bench.peers.child import Feed
from bench.peers.contestants.common import decode, worker_options
from bench.peers.samples import Samples
from bench.peers.task import Task

CHUNK_BYTES = "64MB"
"""Size of a chunk, as in its documentation."""


def write_dataset(task: Task, folder: Path) -> None:
    """Write chunks of images, raw or JPEG, and packed planes."""
    litdata.optimize(
        fn=partial(_item, task),
        inputs=list(range(task.samples)),
        output_dir=str(folder),
        chunk_bytes=CHUNK_BYTES,
        num_workers=task.writers,
        start_method="fork",
        mode="overwrite",
    )


def _item(task: Task, number: int) -> dict[str, bytes]:
    samples = Samples(task.folder, task.samples)
    return {"image": samples.encoded(number, task.codec), "bits": samples.bits(number)}


def open_feed(task: Task, _stack: ExitStack) -> Feed:
    """Its own dataset and loader; decoded in the workers."""
    dataset = litdata.StreamingDataset(str(task.path), shuffle=True, drop_last=True, transform=partial(decode, task))
    loader = litdata.StreamingDataLoader(dataset, **worker_options(task))
    return lambda: loader
