"""MosaicML Streaming: MDS shards, on local disk. In environment `streams`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.peers.child import Feed
from bench.peers.contestants.common import Tensors, decode, worker_options
from bench.peers.samples import Samples
from bench.peers.task import Task

SHARD_BYTES = 1 << 26
"""Size of a shard: its default."""

TORCHVISION = {"": "", ".datasets": "VisionDataset", ".transforms": "", ".transforms.functional": "to_tensor"}
"""Modules of torchvision (gigabytes, and another torch), and what it imports of them for datasets not used here."""


def _import_streaming() -> Any:
    """The library, on top of a torchvision with nothing in it."""
    for name, content in TORCHVISION.items():
        module = ModuleType(f"torchvision{name}")
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.__path__ = []
        if content:
            setattr(module, content, object)
        sys.modules[module.__name__] = module
    import streaming  # type: ignore[import-not-found]

    return streaming


streaming = _import_streaming()


def write_dataset(task: Task, folder: Path) -> None:
    """Write shards of images, raw or JPEG, and packed planes."""
    samples = Samples(task.folder, task.samples)
    columns = {"image": "bytes", "bits": "bytes"}
    with streaming.MDSWriter(out=str(folder), columns=columns, size_limit=SHARD_BYTES) as writer:
        for number in range(len(samples)):
            writer.write({"image": samples.encoded(number, task.codec), "bits": samples.bits(number)})


def open_feed(task: Task, _stack: ExitStack) -> Feed:
    """Its own dataset and loader; decoded in the workers."""

    class Decoded(streaming.StreamingDataset):  # type: ignore[misc, name-defined]
        def __getitem__(self, number: int) -> Tensors:
            return decode(task, super().__getitem__(number))

    dataset = Decoded(local=str(task.path), shuffle=True, batch_size=task.batch_size)
    loader = streaming.StreamingDataLoader(dataset, **worker_options(task))
    return lambda: loader
