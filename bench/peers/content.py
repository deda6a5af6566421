"""Whether a contestant delivers what it should: an epoch is compared with the samples, so that none skips work.

Runs in any environment: standard library and NumPy only.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.peers.feed import Batch, Feed
from bench.peers.samples import Samples, key_of
from bench.peers.task import Task

COMPARED = 64
"""At least so many images of an epoch are compared pixel by pixel; the planes of all samples are."""

CLOSE, CLOSE_IMAGE = 3.0, 12.0
"""Grey levels on average by which images that are only to be close may differ, all together and each: JPEG with colours
of half the resolution differs by about two, and by four where clothes are bright."""


class ContentError(ValueError):
    """A batch is not what it should be."""


@dataclasses.dataclass
class Epoch:
    """What an epoch was.

    Attributes:
        samples: how many came.
        missing, extra: records that did not come, and samples that came once too often, where planes are unchanged.
        mean, largest: grey levels by which the compared images differ from the samples.
    """

    samples: int = 0
    missing: int = 0
    extra: int = 0
    mean: float = 0.0
    largest: int = 0


def check_epoch(feed: Feed, task: Task) -> Epoch:
    """Pull an epoch, comparing.

    Raises:
        ContentError: see there.
    """
    epoch, expected, found = Epoch(), Samples(task.folder, task.samples), Counter[int]()
    keys, means = expected.keys(), list[float]()
    for batch in feed.epoch():
        if isinstance(batch, int):  # a limit: nothing to be shown
            return epoch
        image, planes = _arrays(batch, task)
        for row in range(len(image)):
            if task.check != "shape":
                key = key_of(np.packbits(planes[row], bitorder="little"))
                if key not in keys:
                    raise ContentError(f"sample {epoch.samples} has planes that no record has")
                found[key] += 1
                if epoch.samples < COMPARED:
                    means.append(_compare(image[row], expected, keys[key], task, epoch))
            epoch.samples += 1
    if task.check != "shape":
        counts = expected.key_counts()
        epoch.missing, epoch.extra = (counts - found).total(), (found - counts).total()
    epoch.mean = float(np.mean(means)) if means else 0.0
    if epoch.mean > CLOSE:
        raise ContentError(f"images are off by {epoch.mean:.2f} grey levels on average; at most {CLOSE} is expected")
    return epoch


def _arrays(batch: Batch, task: Task) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images `(N, S, S, 3)` and planes `(N, 2, S, S)` of a batch, whatever the order of its axes."""
    image, person, ignore = (_array(part) for part in batch)
    side = task.side
    if image.shape[1:] == (3, side, side):
        image = image.transpose(0, 2, 3, 1)
    shape = (task.batch_size, side, side)
    if image.shape != (*shape, 3) or any(plane.size != np.prod(shape) for plane in (person, ignore)):
        raise ContentError(f"a batch has shapes {image.shape}, {person.shape} and {ignore.shape}, not {shape}")
    planes = np.stack([person.reshape(shape), ignore.reshape(shape)], axis=1)
    if planes.max() > 1:
        raise ContentError(f"a plane has the value {planes.max()}, not 0 and 1")
    return image, planes


def _array(part: Any) -> npt.NDArray[np.uint8]:
    array = np.asarray(part)
    if array.dtype != np.uint8:
        raise ContentError(f"a batch has type {array.dtype}, not uint8")
    return array


def _compare(image: npt.NDArray[np.uint8], expected: Samples, number: int, task: Task, epoch: Epoch) -> float:
    """Grey levels on average by which an image is off."""
    target = expected.decoded(number) if task.codec == "jpeg" else expected.image(number)
    off = np.abs(image.astype(np.int16) - target)
    epoch.largest = max(epoch.largest, int(off.max()))
    if off.mean() > (CLOSE_IMAGE if task.check == "close" else 0):
        raise ContentError(f"an image is off by {off.mean():.2f} grey levels on average, {off.max()} at most")
    return float(off.mean())
