"""How far an exported file's answers are from the checkpoint's.

Suffixes: N images, 3 RGB, 1 the person probability, H and W pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np

from export.config import FILES, ExportError, Format
from export.metadata import THRESHOLD
from export.network import LEAST_STRIDES
from export.runtime import U8, Answer
from preprocess.synth import SynthConfig, render

TOLERANCE = 1e-4
"""Largest difference of a probability: a fortieth of a grey level of an 8-bit mask. Sums in another order give 1e-6."""

SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A file's answers beside those of the checkpoint's network in fp32.

    Attributes:
        shapes: of the batches that were compared, `(N, 3, H, W)`.
        pixels: in them.
        largest, mean: absolute difference of the probability.
        decisions: share of pixels that only one of both takes for a person, at a probability of a half.
    """

    shapes: tuple[tuple[int, int, int, int], ...]
    pixels: int
    largest: float
    mean: float
    decisions: float


def batches(side: int, stride: int) -> Iterator[U8]:
    """Give images to compare on: drawn scenes with persons and noise by turns, single and several, square and not.

    The same each time.

    Args:
        side: of the squares, a multiple of `stride`.
        stride: of the network.
    """
    least = LEAST_STRIDES * stride
    half = max(least, side // 2 // stride * stride)
    counts_sizes = (
        (1, side, side),
        (2, side, side),
        (1, side, half),
        (2, half, side + stride),
        (4, least, least + stride),
    )
    rng = np.random.default_rng(SEED)
    drawn = 0
    for count, height, width in counts_sizes:
        batch_NHW3 = np.empty((count, height, width, 3), np.uint8)
        for image_HW3 in batch_NHW3:
            if drawn % 2:
                image_HW3[:] = rng.integers(0, 256, image_HW3.shape, np.uint8)
            else:
                scene = render(drawn, SynthConfig(seed=SEED)).image
                image_HW3[:] = cv2.resize(scene, (width, height), interpolation=cv2.INTER_AREA)
            drawn += 1
        yield np.ascontiguousarray(batch_NHW3.transpose(0, 3, 1, 2))


def compare(answer: Answer, reference: Answer, side: int, stride: int) -> Difference:
    """Ask both about `batches`."""
    shapes, largest, total, pixels, decisions = [], 0.0, 0.0, 0, 0
    for image_N3HW in batches(side, stride):
        mine_N1HW, true_N1HW = answer(image_N3HW), reference(image_N3HW)
        apart_N1HW = np.abs(mine_N1HW.astype(np.float64) - true_N1HW)
        shapes.append(image_N3HW.shape)
        largest = float(np.maximum(largest, apart_N1HW.max()))  # unlike `max`, it keeps what is no number
        total += float(apart_N1HW.sum())
        pixels += apart_N1HW.size
        decisions += int(np.count_nonzero((mine_N1HW > THRESHOLD) != (true_N1HW > THRESHOLD)))
    return Difference(
        shapes=tuple(shapes), pixels=pixels, largest=largest, mean=total / pixels, decisions=decisions / pixels
    )


def check(difference: Difference, kind: Format) -> None:
    """Refuse a file that answers otherwise than its checkpoint.

    Raises:
        ExportError: see `TOLERANCE`; or there are answers that are no numbers.
    """
    if difference.largest <= TOLERANCE:
        return
    raise ExportError(
        f"{FILES[kind]} answers otherwise than the checkpoint: probabilities differ by up to {difference.largest:.2g}, "
        f"and {TOLERANCE:g} is the limit; nothing was written: try another --format, or another --opset"
    )
