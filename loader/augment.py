"""Random augmentation as numbers: what is done to a sample depends on (seed, epoch, sample) and on nothing else.

Every backend applies the same numbers, so that they can be compared, and so that a resumed run sees the same pictures.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cache.arrays import F32, F64
from cache.choices import Level
from cache.messages import UserError

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""

MIDDLE_GRAY = 127.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How strongly to augment."""

    flip: float = 0.0  # probability of a horizontal flip
    zoom: tuple[float, float] = (1.0, 1.0)  # smallest and largest magnification; the window is placed at random
    rotate: float = 0.0  # largest rotation either way, degrees
    # brightness, contrast, saturation: largest relative change either way.
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise UserError("flip={flip} is not a probability; use 0 to 1", flip=self.flip)
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise UserError("zoom={zoom} is not a range of magnifications; use e.g. (0.8, 1.5)", zoom=self.zoom)
        if not 0 <= self.rotate <= 180:
            raise UserError("rotate={rotate} is not within 0..180 degrees", rotate=self.rotate)
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise UserError("{name}={value} is not within 0 (unchanged) and 1 (excluded)", name=name, value=value)

    @property
    def identity(self) -> bool:
        """Whether nothing is ever changed."""
        return self == AugmentConfig()


LEVELS: dict[Level, AugmentConfig] = {
    "none": AugmentConfig(),
    "light": AugmentConfig(flip=0.5, zoom=(0.9, 1.4), rotate=7.0, brightness=0.15, contrast=0.15, saturation=0.2),
    "heavy": AugmentConfig(flip=0.5, zoom=(0.8, 2.6), rotate=25.0, brightness=0.3, contrast=0.3, saturation=0.5),
}
"""The levels by name."""


class Parameters(NamedTuple):
    """What to do to each sample of a batch."""

    # `(N, 2, 3)` float32: output -> source position (x, y, 1). Positions are continuous, in pixels; the centre of pixel
    # i is at i + 0.5. Images are sampled bilinearly, planes by nearest neighbour (floor); outside the source an image
    # is black and a plane is `ignore`.
    matrix: F32
    # `(N, 3, 4)` float32: after sampling, new RGB = colour[:, :3] @ RGB + colour[:, 3], then rounded and clipped to
    # 0..255.
    colour: F32


def draw_parameters(
    config: AugmentConfig, side: int, seed: int, epoch: int, samples: npt.NDArray[np.int64]
) -> Parameters:
    """Draw the parameters of `samples`, `(N,)` sample numbers, at a side in pixels."""
    flip, zoom, rotate, x, y, brightness, contrast, saturation = _uniform(8, seed, epoch, samples)
    mirror = np.where(flip < config.flip, -1.0, 1.0)
    low, high = np.log(config.zoom[0]), np.log(config.zoom[1])
    shrink = np.exp(-(low + (high - low) * zoom))  # source pixels per output pixel; zoom is uniform in its logarithm
    angle = np.deg2rad(config.rotate) * (2 * rotate - 1)
    cosine, sine = np.cos(angle) * shrink, np.sin(angle) * shrink
    linear = np.stack([np.stack([cosine * mirror, -sine]), np.stack([sine * mirror, cosine])])  # (2, 2, N)
    centre = side / 2
    # The window keeps within the picture when it magnifies, the picture within the window when it does not.
    slack = np.abs(1 - shrink) * centre
    offset = centre + slack * (2 * np.stack([x, y]) - 1) - centre * linear.sum(1)  # (2, N)
    matrix = np.concatenate([linear, offset[:, None]], axis=1).transpose(2, 0, 1)
    return Parameters(
        np.ascontiguousarray(matrix, np.float32),
        _colour(
            1 + config.brightness * (2 * brightness - 1),
            1 + config.contrast * (2 * contrast - 1),
            1 + config.saturation * (2 * saturation - 1),
        ),
    )


def _colour(brightness: F64, contrast: F64, saturation: F64) -> F32:
    """Brightness, then contrast about middle gray, then saturation about luma, as one `(N, 3, 4)` affine map."""
    gray = np.broadcast_to(np.array(LUMA), (3, 3))
    mixing = saturation[:, None, None] * np.eye(3) + (1 - saturation[:, None, None]) * gray
    gain = mixing * (brightness * contrast)[:, None, None]
    # Every row of `mixing` sums to one, so the gray shift of the contrast passes through it unchanged.
    shift = np.broadcast_to((MIDDLE_GRAY * (1 - contrast))[:, None, None], (len(contrast), 3, 1))
    return np.ascontiguousarray(np.concatenate([gain, shift], axis=2), np.float32)


def _uniform(count: int, seed: int, epoch: int, samples: npt.NDArray[np.int64]) -> F64:
    """`(count, N)` numbers in [0, 1): a hash of (seed, epoch, sample, position), so that no draw depends on another."""
    key = _mix(_mix(np.uint64(seed % 2**64)) ^ np.uint64(epoch))
    rows = _mix(key ^ samples.astype(np.uint64))
    columns = _mix(np.arange(1, count + 1, dtype=np.uint64))[:, None]
    bits = _mix(rows[None, :] ^ columns)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: np.uint64 | npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every input bit changes half of the output bits."""
    z = np.array(value, np.uint64, ndmin=1) + np.uint64(0x9E3779B97F4A7C15)  # arrays wrap silently, scalars warn
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)
