"""DALI without our loader: its reader of WebDataset's tar files, on the CPU. In our own environment.

That reader is what DALI has for samples of several parts; it shuffles within a buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import numpy as np
from torch.utils import dlpack

from bench.peers.child import Batch, Feed
from bench.peers.contestants.common import BUFFER_SAMPLES, tar_files, write_tars
from bench.peers.task import Task

write_dataset = write_tars


def open_feed(task: Task, _stack: ExitStack) -> Feed:
    """DALI's pipeline."""
    dali: Any = import_module("nvidia.dali")
    pipeline = dali.Pipeline(batch_size=task.batch_size, num_threads=task.threads, device_id=None)
    with pipeline:
        pipeline.set_outputs(*_graph(dali, task))
    pipeline.build()

    def epoch() -> Iterator[Batch]:
        for _ in range(task.samples // task.batch_size):
            image, planes = (dlpack.from_dlpack(part.as_tensor()) for part in pipeline.run())
            yield image, planes[:, 0], planes[:, 1]

    return epoch


def _graph(dali: Any, task: Task) -> tuple[Any, Any]:
    """Images `(S, S, 3)` and planes `(2, S, S)`."""
    fn, types, side = dali.fn, dali.types, task.side
    stored, bits = fn.readers.webdataset(
        paths=tar_files(task), ext=["img", "bits"], random_shuffle=True, initial_fill=BUFFER_SAMPLES
    )
    if task.codec == "jpeg":
        image = fn.decoders.image(stored, device="cpu", output_type=types.RGB)
    else:
        image = fn.reshape(stored, shape=[side, side, 3])
    weights = types.Constant(np.left_shift(1, np.arange(8)).reshape(1, 1, 8), dtype=types.UINT8)
    pixels = fn.cast((fn.reshape(bits, shape=[2 * side, side // 8, 1]) & weights) != 0, dtype=types.UINT8)
    return image, fn.reshape(pixels, shape=[2, side, side])
