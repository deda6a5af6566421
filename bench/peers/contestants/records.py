"""A torch DataLoader over our own LMDB records, in our own environment.

Option `level`: augments with OpenCV, which is how one does it without a loader like ours: `cv2.warpAffine` for the
image (bilinear) and for both planes (nearest), then the colours, in `numpy` or in `opencv` as the option `colours`
says; with the very parameters that our loaders draw.
"""

from __future__ import annotations

from contextlib import ExitStack

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from bench.peers.child import Feed
from bench.peers.contestants.common import Tensors, empty_batch, worker_loader
from bench.peers.task import Task
from cache.choices import Level
from cache.reader import CacheReader
from loader.augment import LEVELS, draw_parameters

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

IGNORED = 1
"""Value of the plane `ignore` outside the image."""

DRAWN_EPOCHS = 4
"""Parameters are drawn beforehand, for so many epochs: sample by sample, drawing would cost a tenth of the time."""


class Records(Dataset[Tensors]):
    """The samples of a raw cache, each augmented anew whenever it is taken; a batch at a time."""

    def __init__(self, reader: CacheReader, level: Level, colours: str) -> None:
        self._reader, self._augmented, self._taken, self._colours = reader, level != "none", 0, colours
        numbers = np.arange(len(reader))
        side, config = reader.layout.side, LEVELS[level]
        self._drawn = [draw_parameters(config, side, 0, epoch, numbers) for epoch in range(DRAWN_EPOCHS)]

    def __len__(self) -> int:
        return len(self._reader)

    def __getitems__(self, numbers: list[int]) -> Tensors:
        """Images `(N, S, S, 3)` and both planes `(N, S, S)`, uint8; twice as fast in process as sample by sample."""
        shape = (len(numbers), self._reader.layout.side, self._reader.layout.side)
        image, person, ignore = empty_batch(*shape, 3), empty_batch(*shape), empty_batch(*shape)
        for number, *outs in zip(numbers, image.numpy(), person.numpy(), ignore.numpy(), strict=True):
            self._fill(number, *outs)
        return image, person, ignore

    def _fill(self, number: int, image: U8, person: U8, ignore: U8) -> None:
        layout, fields = self._reader.layout, self._reader.fields(number)
        pixels = fields.image.reshape(image.shape)
        planes = layout.unpack_plane(fields.person), layout.unpack_plane(fields.ignore)
        if not self._augmented:
            image[:], person[:], ignore[:] = pixels, *planes
            return
        self._taken += 1
        drawn = self._drawn[self._taken // len(self) % DRAWN_EPOCHS]
        matrix, colour, out = drawn.matrix[number], drawn.colour[number], (image, person, ignore)
        warp(pixels, *planes, matrix, colour, colours=self._colours, out=out)


def warp(
    image: U8, person: U8, ignore: U8, matrix: F32, colour: F32, *, colours: str = "opencv", out: tuple[U8, U8, U8]
) -> None:
    """Augment a sample.

    Args:
        image: `(S, S, 3)`.
        person, ignore: `(S, S)`.
        matrix, colour: `(2, 3)` and `(3, 4)`, see `loader.augment.Parameters`.
        colours: `numpy` or `opencv`: whose arithmetic maps them.
        out: the same three, filled.
    """
    size = image.shape[:2]
    centred = matrix.astype(np.float64)
    centred[:, 2] += centred[:, :2].sum(1) / 2 - 0.5  # OpenCV has the centres of pixels at whole numbers
    inverse = cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, centred, size, flags=cv2.INTER_LINEAR | inverse)
    if colours == "numpy":
        mapped = warped.astype(np.float32) @ colour[:, :3].T + colour[:, 3]
        out[0][:] = np.clip(np.rint(mapped, out=mapped), 0, 255, out=mapped)
    else:
        cv2.transform(warped, colour, dst=out[0])
    for plane, target, outside in ((person, out[1], 0), (ignore, out[2], IGNORED)):
        cv2.warpAffine(plane, centred, size, dst=target, flags=cv2.INTER_NEAREST | inverse, borderValue=outside)


def open_feed(task: Task, stack: ExitStack) -> Feed:
    """A DataLoader in worker processes, or in this one."""
    cv2.setNumThreads(1)
    reader = stack.enter_context(CacheReader(task.folder / "cache-raw", "train"))
    dataset = Records(reader, task.options.get("level", "none"), task.options.get("colours", ""))
    loader = worker_loader(dataset, task, shuffle=True, collate_fn=_as_it_is)
    return lambda: loader


def _as_it_is(batch: Tensors) -> Tensors:
    return batch
