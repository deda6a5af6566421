"""Entries that run in this project's environment: limits, our loaders, torch's DataLoader over our data, DALI alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from torch.utils import dlpack

from bench.ceilings import copy_samples, each, thread_pool
from bench.peers.child import Batch, Feed
from bench.peers.libraries.common import BUFFER_SAMPLES, Tensors, empty_batch, tar_files, worker_loader
from bench.peers.task import Task
from cache.choices import Level
from cache.reader import CacheReader
from cache.spec import CacheSpec

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

RING_BATCHES = 3
"""Batches that the reused buffers of a limit hold, as in our loaders."""

CHUNK = 256
"""Images that are decoded between two readings of the clock."""

DRAWN_EPOCHS = 4
"""Epochs for which augmentation is drawn beforehand: drawn sample by sample, it would cost a tenth of the time."""


def open_limit(task: Task, stack: ExitStack) -> Feed:
    """What no loader can beat: copying the same bytes or, of JPEGs, decoding them; both by `task.threads` threads."""
    pool = stack.enter_context(thread_pool(task.threads))
    ring = RING_BATCHES * task.batch_size
    if task.codec == "raw":
        work = copy_samples(pool, task.threads, task.side, task.samples, ring)
        return lambda: _endless(work.run, task.samples)
    reader = stack.enter_context(CacheReader(task.folder / "cache-jpeg", "train"))
    order = np.random.default_rng(0).permutation(len(reader)).tolist()
    jpegs = [reader.fields(sample).image for sample in order]  # views, spread over as many bytes as there are records
    stack.callback(jpegs.clear)
    rows = np.zeros((ring, 3 * task.side**2), np.uint8)
    starts = count(0, CHUNK)

    def decode(numbers: range) -> None:
        for number in numbers:
            simplejpeg.decode_jpeg(jpegs[number % len(jpegs)], "RGB", buffer=rows[number % ring])

    def run() -> None:
        start = next(starts)
        each(pool, decode, [range(start + thread, start + CHUNK, task.threads) for thread in range(task.threads)])()

    return lambda: _endless(run, CHUNK)


def _endless(run: Callable[[], object], samples: int) -> Iterator[int]:
    while True:
        run()
        yield samples


def open_ours(task: Task, stack: ExitStack) -> Feed:
    """One of our loaders, in random order. Options: `cache`, its folder; `backend`; `level` of augmentation."""
    from loader.augment import LEVELS
    from loader.batch import LoaderConfig
    from loader.loader import open_loader

    config = LoaderConfig(
        cache=task.folder / task.options["cache"],
        batch_size=task.batch_size,
        backend=task.options["backend"],
        augment=LEVELS[task.options["level"]],
        threads=task.threads,
    )
    loader = stack.enter_context(open_loader(config))
    return lambda: ((batch.image, batch.person, batch.ignore) for batch in loader)


def open_photos(task: Task, _stack: ExitStack) -> Feed:
    """The usual way: a DataLoader that decodes, draws with pycocotools and resizes photos in every epoch.

    Options: `coco`, the dataset's folder, and `photos`, how many of it.
    """
    from bench.baseline import CocoMasks, OnTheFly, plain_loader
    from preprocess.build.plan import read_split

    coco = Path(task.options["coco"])
    split = read_split(coco, "train", CacheSpec(side=task.side, limit=task.options["photos"]))
    paths = [Path(split.photo(row)) for row in split.rows]
    dataset = OnTheFly(paths, CocoMasks(split), task.side, task.samples)
    loader = plain_loader(dataset, task.batch_size, task.threads)
    return lambda: loader


def open_lmdb(task: Task, stack: ExitStack) -> Feed:
    """A DataLoader over our raw LMDB records, in worker processes or in this one.

    The option `level` is that of augmentation.
    """
    cv2.setNumThreads(1)
    reader = stack.enter_context(CacheReader(task.folder / "cache-raw", "train"))
    dataset = LmdbSamples(reader, task.options.get("level", "none"))
    loader = worker_loader(dataset, task, shuffle=True, collate_fn=tuple)  # it is a batch already
    return lambda: loader


class LmdbSamples:
    """The samples of a raw cache, a batch at a time, each augmented anew whenever it is taken.

    They are augmented with OpenCV, which is how one does it without a loader like ours, with the very parameters that
    our loaders draw.
    """

    def __init__(self, reader: CacheReader, level: Level) -> None:
        from loader.augment import LEVELS, draw_parameters

        self._reader, self._augmented, self._taken = reader, level != "none", 0
        numbers, side = np.arange(len(reader)), reader.layout.side
        self._drawn = [draw_parameters(LEVELS[level], side, 0, epoch, numbers) for epoch in range(DRAWN_EPOCHS)]

    def __len__(self) -> int:
        return len(self._reader)

    def __getitems__(self, numbers: list[int]) -> Tensors:
        """A batch; in process this is twice as fast as sample by sample."""
        shape = (len(numbers), self._reader.layout.side, self._reader.layout.side)
        image, person, ignore = empty_batch(*shape, 3), empty_batch(*shape), empty_batch(*shape)
        unpack = self._reader.layout.unpack_plane
        for number, *out in zip(numbers, image.numpy(), person.numpy(), ignore.numpy(), strict=True):
            fields = self._reader.fields(number)
            sample = fields.image.reshape(out[0].shape), unpack(fields.person), unpack(fields.ignore)
            if self._augmented:
                self._taken += 1
                drawn = self._drawn[self._taken // len(self) % DRAWN_EPOCHS]
                warp(*sample, drawn.matrix[number], drawn.colour[number], out=out)
            else:
                for target, source in zip(out, sample, strict=True):
                    target[:] = source
        return image, person, ignore


def warp(image: U8, person: U8, ignore: U8, matrix: F32, colour: F32, *, out: Sequence[U8]) -> None:
    """Augment a sample by OpenCV: the image bilinear, both planes nearest, then the colours.

    Args:
        image: `(S, S, 3)`.
        person, ignore: `(S, S)`.
        matrix, colour: `(2, 3)` and `(3, 4)`, see `loader.augment.Parameters`.
        out: the same three, filled.
    """
    size = image.shape[:2]
    centred = matrix.astype(np.float64)
    centred[:, 2] += centred[:, :2].sum(1) / 2 - 0.5  # OpenCV has the centres of pixels at whole numbers
    inverse = cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, centred, size, flags=cv2.INTER_LINEAR | inverse)
    cv2.transform(warped, colour, dst=out[0])
    for plane, target, outside in ((person, out[1], 0), (ignore, out[2], 1)):  # what lies outside is ignored
        cv2.warpAffine(plane, centred, size, dst=target, flags=cv2.INTER_NEAREST | inverse, borderValue=outside)


def open_dali(task: Task, _stack: ExitStack) -> Feed:
    """DALI without our loader, on the CPU: its reader of WebDataset's tar files, which shuffles within a buffer.

    That reader is what DALI has for samples of several parts.
    """
    dali: Any = import_module("nvidia.dali")
    fn, types, side = dali.fn, dali.types, task.side
    pipeline = dali.Pipeline(batch_size=task.batch_size, num_threads=task.threads, device_id=None)
    with pipeline:
        stored, bits = fn.readers.webdataset(
            paths=tar_files(task), ext=["img", "bits"], random_shuffle=True, initial_fill=BUFFER_SAMPLES
        )
        if task.codec == "jpeg":
            image = fn.decoders.image(stored, device="cpu", output_type=types.RGB)
        else:
            image = fn.reshape(stored, shape=[side, side, 3])
        weights = types.Constant(np.left_shift(1, np.arange(8)).reshape(1, 1, 8), dtype=types.UINT8)
        pixels = fn.cast((fn.reshape(bits, shape=[2 * side, side // 8, 1]) & weights) != 0, dtype=types.UINT8)
        pipeline.set_outputs(image, fn.reshape(pixels, shape=[2, side, side]))
    pipeline.build()

    def epoch() -> Iterator[Batch]:
        for _ in range(task.samples // task.batch_size):
            image, planes = (dlpack.from_dlpack(part.as_tensor()) for part in pipeline.run())
            yield image, planes[:, 0], planes[:, 1]

    return epoch
