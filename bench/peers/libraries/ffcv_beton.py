"""FFCV: one file, read by compiled threads, in the environment `ffcv`.

The order is random, and the file stays in the system's page cache, as FFCV's guide advises for what fits in memory.
Planes are packed, as ours are stored, and unpacked by an operation of the user's, which is how FFCV is extended: of its
own field for arrays only one thread makes a batch. The option `chroma` of JPEGs is `full`, the very JPEGs of our
caches, or `half`, those of FFCV's encoder, which halves the resolution of colours.

FFCV decodes with the fast, less exact DCT of libjpeg-turbo (`TJFLAG_FASTDCT`) and its usual, smooth upsampling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from ffcv.fields import NDArrayField, RGBImageField, rgb_image  # type: ignore[import-not-found]
from ffcv.fields.decoders import NDArrayDecoder, SimpleRGBImageDecoder  # type: ignore[import-not-found]
from ffcv.loader import Loader, OrderOption  # type: ignore[import-not-found]
from ffcv.pipeline.allocation_query import AllocationQuery  # type: ignore[import-not-found]
from ffcv.pipeline.compiler import Compiler  # type: ignore[import-not-found]
from ffcv.pipeline.operation import Operation  # type: ignore[import-not-found]
from ffcv.transforms import ToTensor  # type: ignore[import-not-found]
from ffcv.writer import DatasetWriter  # type: ignore[import-not-found]

from bench.peers.child import Feed
from bench.peers.task import U8, Samples, Task

QUALITY = 95
"""Quality of the JPEGs that FFCV's encoder writes, as in our caches."""

NAME = "samples.beton"


def write_file(task: Task, folder: Path) -> None:
    """Write FFCV's file."""
    if task.options["chroma"] == "full":
        rgb_image.encode_jpeg = lambda pixels, _quality: np.frombuffer(pixels.jpeg, np.uint8)
    fields = {
        "image": RGBImageField(write_mode="jpg" if task.codec == "jpeg" else "raw", jpeg_quality=QUALITY),
        "planes": NDArrayField(np.dtype(np.uint8), (2, task.side, task.side // 8)),
    }
    writer = DatasetWriter(str(folder / NAME), fields, num_workers=task.writers)
    writer.from_indexed_dataset(Indexed(task), chunksize=min(64, task.samples))


def open_file(task: Task, _stack: ExitStack) -> Feed:
    """FFCV's loader of that file."""
    loader = Loader(
        str(task.folder / task.dataset / NAME),
        batch_size=task.batch_size,
        num_workers=task.threads,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={"image": [SimpleRGBImageDecoder(), ToTensor()], "planes": [ParallelArrays(), Unpack(), ToTensor()]},
    )
    return lambda: ((image, planes[:, 0], planes[:, 1]) for image, planes in loader)


class Unpack(Operation):  # type: ignore[misc]
    """From a bit per pixel, least significant bit first, to a byte per pixel."""

    def declare_state_and_memory(self, before: Any) -> tuple[Any, Any]:
        """The last axis grows to eight times its length."""
        shape = (*before.shape[:-1], before.shape[-1] * 8)
        return dataclasses.replace(before, shape=shape, jit_mode=True), AllocationQuery(shape, before.dtype)

    def generate_code(self) -> Callable[..., Any]:
        """The operation for a batch, in all threads."""
        each = Compiler.get_iterator()

        def unpack(bits: U8, out: U8) -> U8:
            for sample in each(bits.shape[0]):
                source, target = bits[sample].reshape(-1), out[sample].reshape(-1)
                for number in range(source.size):
                    for bit in range(8):
                        target[8 * number + bit] = (source[number] >> bit) & 1
            return out[: bits.shape[0]]

        unpack.is_parallel = True  # type: ignore[attr-defined]
        return unpack


class ParallelArrays(NDArrayDecoder):  # type: ignore[misc]
    """FFCV's decoder of arrays, in all threads."""

    def generate_code(self) -> Callable[..., Any]:
        """The usual operation, marked as parallel."""
        code: Callable[..., Any] = super().generate_code()
        code.is_parallel = True  # type: ignore[attr-defined]
        return code


class WithJpeg(np.ndarray[Any, np.dtype[np.uint8]]):
    """Pixels with the JPEG that is to be stored for them."""

    jpeg: bytes


class Indexed:
    """The samples as FFCV's writer takes them: pixels, then planes."""

    def __init__(self, task: Task) -> None:
        self._samples = Samples(task.folder, task.samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> tuple[U8, ...]:
        samples, number = self._samples, int(number)
        pixels = samples.image(number).view(WithJpeg)
        pixels.jpeg = samples.jpeg(number)
        return pixels, np.frombuffer(samples.bits(number), np.uint8).reshape(2, samples.side, samples.side // 8)
