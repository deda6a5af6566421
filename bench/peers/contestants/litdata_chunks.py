"""LitData: chunks of binary items, on local disk. In environment `streams`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import litdata  # type: ignore[import-not-found]

from bench.peers.contestants.decoding import decode
from bench.peers.contestants.worker_loader import Tensors, settle
from bench.peers.feed import Feed
from bench.peers.samples import Samples
from bench.peers.task import Task

CHUNK_BYTES = "64MB"
"""Its documentation's."""


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


@contextmanager
def open_feed(task: Task) -> Iterator[Feed]:
    """Its own dataset and loader; decoded in the workers."""
    dataset = litdata.StreamingDataset(
        str(task.path), shuffle=True, drop_last=True, transform=partial(_sample, task.codec, task.side)
    )
    loader = litdata.StreamingDataLoader(
        dataset,
        batch_size=task.batch_size,
        num_workers=task.threads,
        persistent_workers=True,
        drop_last=True,
        worker_init_fn=settle,
    )
    yield Feed(lambda: loader, f"litdata {litdata.__version__}")


def _sample(codec: str, side: int, found: dict[str, Any]) -> Tensors:
    return decode(found["image"], found["bits"], codec, side)
