"""Libraries with datasets of their own, which give torch's tensors.

WebDataset, LitData and MosaicML Streaming share the environment `streams`. They read files from local disk through
worker processes, shuffle, and decode and batch in the workers. MONAI keeps decoded samples, in memory or in LMDB.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from bench.peers.child import Feed
from bench.peers.libraries.common import BUFFER_SAMPLES, Tensors, decode, tar_files, worker_loader, worker_options
from bench.peers.task import Samples, Task

CHUNK_BYTES = "64MB"
"""Size of a chunk of LitData, as in its documentation."""

SHARD_BYTES = 1 << 26
"""Size of a shard of MosaicML Streaming: its default."""

TORCHVISION = {"": "", ".datasets": "VisionDataset", ".transforms": "", ".transforms.functional": "to_tensor"}
"""Modules of torchvision (gigabytes, and another torch), and what MosaicML Streaming imports of them for datasets that
are not used here."""


def open_webdataset(task: Task, _stack: ExitStack) -> Feed:
    """WebDataset's pipeline over tar files in a DataLoader, shuffled by file and within a buffer."""
    import webdataset  # type: ignore[import-not-found]

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


def write_litdata(task: Task, folder: Path) -> None:
    """Write chunks of images, raw or JPEG, and packed planes."""
    import litdata  # type: ignore[import-not-found]

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


def open_litdata(task: Task, _stack: ExitStack) -> Feed:
    """LitData's own dataset and loader."""
    import litdata

    folder = str(task.folder / task.dataset)
    dataset = litdata.StreamingDataset(folder, shuffle=True, drop_last=True, transform=partial(decode, task))
    loader = litdata.StreamingDataLoader(dataset, **worker_options(task))
    return lambda: loader


def write_mosaic(task: Task, folder: Path) -> None:
    """Write MDS shards of images, raw or JPEG, and packed planes."""
    columns = {"image": "bytes", "bits": "bytes"}
    with _import_streaming().MDSWriter(out=str(folder), columns=columns, size_limit=SHARD_BYTES) as writer:
        for number in range(task.samples):
            writer.write(_item(task, number))


def open_mosaic(task: Task, _stack: ExitStack) -> Feed:
    """MosaicML Streaming's own dataset and loader."""
    streaming = _import_streaming()

    class Decoded(streaming.StreamingDataset):  # type: ignore[misc, name-defined]
        def __getitem__(self, number: int) -> Tensors:
            return decode(task, super().__getitem__(number))

    dataset = Decoded(local=str(task.folder / task.dataset), shuffle=True, batch_size=task.batch_size)
    loader = streaming.StreamingDataLoader(dataset, **worker_options(task))
    return lambda: loader


def open_monai(task: Task, _stack: ExitStack) -> Feed:
    """MONAI's dataset in memory, or in LMDB, which it fills if it is not there, as the option `by` says; and a thread.

    As nothing is left to do for a sample but to be taken, MONAI's guide to fast training advises against processes.
    """
    from monai import data, transforms  # type: ignore[import-not-found]

    numbers = list(range(task.samples))
    decoded = transforms.Lambda(lambda number: decode(task, _item(task, number)))  # of a plain function nothing is kept
    if task.options["by"] == "LMDB":
        size = {"map_size": 8 * task.samples * task.side**2 + (1 << 28)}
        dataset = data.LMDBDataset(numbers, decoded, task.folder / "monai", progress=False, lmdb_kwargs=size)
    else:
        dataset = data.CacheDataset(numbers, decoded, progress=False, copy_cache=False)
    loader = data.ThreadDataLoader(dataset, num_workers=0, batch_size=task.batch_size, shuffle=True, drop_last=True)
    return lambda: loader


def _import_streaming() -> Any:
    """MosaicML Streaming, on top of a torchvision with nothing in it."""
    for name, content in TORCHVISION.items():
        module = ModuleType(f"torchvision{name}")
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.__path__ = []
        if content:
            setattr(module, content, object)
        sys.modules[module.__name__] = module
    import streaming  # type: ignore[import-not-found]

    return streaming
