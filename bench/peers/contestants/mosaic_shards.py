"""MosaicML Streaming: MDS shards, on local disk. In environment `streams`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.peers.contestants.decoding import decode
from bench.peers.contestants.worker_loader import Tensors, settle
from bench.peers.feed import Feed
from bench.peers.samples import Samples
from bench.peers.task import Task

SHARD_BYTES = 1 << 26
"""Its own."""

TORCHVISION = {"datasets": "VisionDataset", "transforms.functional": "to_tensor"}
"""What it imports of torchvision, for datasets of its own that nobody asks for here: gigabytes, and another torch."""


def _import_streaming() -> Any:
    """The library, on top of a torchvision with nothing in it."""
    for name in ("", *(f".{part}" for part in ("datasets", "transforms", "transforms.functional"))):
        module = ModuleType(f"torchvision{name}")
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.__path__ = []
        sys.modules[module.__name__] = module
    for name, content in TORCHVISION.items():
        setattr(sys.modules[f"torchvision.{name}"], content, object)
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


@contextmanager
def open_feed(task: Task) -> Iterator[Feed]:
    """Its own dataset and loader; decoded in the workers."""

    class Decoded(streaming.StreamingDataset):  # type: ignore[misc, name-defined]
        def __getitem__(self, number: int) -> Tensors:
            found = super().__getitem__(number)
            return decode(found["image"], found["bits"], task.codec, task.side)

    dataset = Decoded(local=str(task.path), shuffle=True, batch_size=task.batch_size)
    loader = streaming.StreamingDataLoader(
        dataset,
        batch_size=task.batch_size,
        num_workers=task.threads,
        persistent_workers=True,
        drop_last=True,
        worker_init_fn=settle,
    )
    yield Feed(lambda: loader, f"mosaicml-streaming {streaming.__version__}")
