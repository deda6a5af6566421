"""DALI without us: its reader of WebDataset's tar files, on the CPU. In our own environment.

That reader is what DALI has for samples of several parts; it shuffles within a buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.contestants.tars import write_tars
from bench.peers.feed import Batch, Feed
from bench.peers.task import Task

BUFFER_SAMPLES = 256
"""Among which the next sample is drawn."""


def write_dataset(task: Task, folder: Path) -> None:
    """Write the tar files."""
    write_tars(task, folder)


@contextmanager
def open_feed(task: Task) -> Iterator[Feed]:
    """Its pipeline."""
    dali: Any = import_module("nvidia.dali")
    torch: Any = import_module("torch")
    pipeline = dali.Pipeline(batch_size=task.batch_size, num_threads=task.threads, device_id=None)
    with pipeline:
        pipeline.set_outputs(*_graph(dali, task))
    pipeline.build()

    def epoch() -> Iterator[Batch]:
        for _ in range(task.samples // task.batch_size):
            image, planes = (torch.from_dlpack(part.as_tensor()) for part in pipeline.run())
            yield image, planes[:, 0], planes[:, 1]

    yield Feed(epoch, f"DALI {dali.__version__}")


def _graph(dali: Any, task: Task) -> tuple[Any, Any]:
    """Images `(S, S, 3)` and planes `(2, S, S)`."""
    fn, types, side = dali.fn, dali.types, task.side
    stored, bits = fn.readers.webdataset(
        paths=sorted(str(path) for path in task.path.glob("*.tar")),
        ext=["img", "bits"],
        random_shuffle=True,
        initial_fill=BUFFER_SAMPLES,
    )
    if task.codec == "jpeg":
        image = fn.decoders.image(stored, device="cpu", output_type=types.RGB)
    else:
        image = fn.reshape(stored, shape=[side, side, 3])
    weights = types.Constant(np.left_shift(1, np.arange(8)).reshape(1, 1, 8), dtype=types.UINT8)
    pixels = fn.cast((fn.reshape(bits, shape=[2 * side, side // 8, 1]) & weights) != 0, dtype=types.UINT8)
    return image, fn.reshape(pixels, shape=[2, side, side])
