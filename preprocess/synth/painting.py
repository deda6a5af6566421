"""Painting on uint8 images: colours, blending, layers with soft edges, and the texture of surfaces.

A colour is (red, green, blue), each 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Bytes: TypeAlias = NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]

SKIN: tuple[Colour, ...] = (
    (250, 220, 196), (240, 200, 168), (226, 180, 143), (205, 155, 115),
    (176, 124, 86), (141, 96, 64), (104, 68, 46), (74, 50, 38),
)  # fmt: skip
HAIR: tuple[Colour, ...] = (
    (28, 24, 22), (52, 36, 26), (84, 54, 34), (128, 86, 48), (190, 152, 92), (226, 202, 150), (150, 148, 146),
    (212, 210, 206), (140, 58, 30),
)  # fmt: skip
PATTERNS = ("stripes", "checks", "plaid", "dots", "noise", "gradient", "bricks")
_GROUND: tuple[Colour, ...] = ((92, 128, 62), (134, 152, 84), (150, 122, 88), (194, 172, 130), (120, 118, 114),
                               (84, 82, 84), (186, 182, 176), (112, 84, 62))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Something painted: `colour` (h, w, 3) uint8 RGB premultiplied by `alpha` (h, w) uint8, top left at (x, y)."""

    x: int
    y: int
    colour: Bytes
    alpha: Bytes


def to_bytes(values: NDArray[np.floating]) -> Bytes:
    """Round down to uint8, saturating at 0 and 255."""
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def mix(below: Bytes, above: Bytes, weight: Bytes) -> Bytes:
    """Blend two (h, w, 3) uint8 images by `weight` (h, w) uint8: 0 keeps `below`, 255 gives `above`."""
    return np.asarray(cv2.add(dim(below, ~weight), dim(above, weight)), np.uint8)


def dim(image: Bytes, plane: Bytes, full: float = 255) -> Bytes:
    """Multiply (h, w, 3) uint8 by `plane` (h, w) uint8 over `full`, saturating."""
    return np.asarray(cv2.multiply(image, cv2.merge((plane, plane, plane)), scale=1 / full), np.uint8)


def ramp(low: Colour, high: Colour, weight: Bytes) -> Bytes:
    """An image (h, w, 3) uint8 between two colours by `weight` (h, w) uint8: 0 is `low`, 255 is `high`."""
    steps = np.linspace(np.array(low, np.float64), np.array(high, np.float64), 256)
    return look_up(weight, np.rint(steps).astype(np.uint8))


def look_up(plane: Bytes, table: Bytes) -> Bytes:
    """Each value of `plane` (h, w) uint8 replaced by its row of `table` (256, 3) uint8."""
    return np.asarray(cv2.LUT(cv2.merge((plane, plane, plane)), table[None]), np.uint8)


def as_weight(inside: NDArray[np.bool_]) -> Bytes:
    """255 where `inside` (h, w) bool holds, else 0."""
    return inside.view(np.uint8) * np.uint8(255)


def paste(image: Bytes, layer: Layer) -> None:
    """Put `layer` over `image` (H, W, 3) in place; it must lie within."""
    h, w = layer.alpha.shape
    place = image[layer.y : layer.y + h, layer.x : layer.x + w]
    below = dim(place, ~layer.alpha)
    place[:] = cv2.add(below, layer.colour)


def cloth_colour(rng: np.random.Generator) -> Colour:
    """A garment's colour, RGB: a good third of them muted or near grey, as clothes and walls both are."""
    hue, value = rng.integers(0, 180), rng.uniform(45, 245)
    saturation = rng.uniform(0, 70) if rng.random() < 0.35 else rng.uniform(60, 220)
    red, green, blue = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(red), int(green), int(blue)


def jitter(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """`colour` with each channel moved by up to `amount` grey levels."""
    red, green, blue = np.clip(np.array(colour) + rng.uniform(-amount, amount, 3), 0, 255)
    return int(red), int(green), int(blue)


def _towards(colour: Colour, share: float, goal: Colour = (240, 240, 240)) -> Colour:
    """`colour` moved towards `goal` by `share` (0 to 1) of the way; without a goal towards a bright grey."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(colour, goal, strict=True))
    return red, green, blue


def cloud(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 3) -> Floats:
    """Value noise (height, width) float32 of standard deviation about 0.3 around 0; `cell` is its coarsest grain, px.

    Random grids, each at twice the frequency and 0.55 of the strength of the one before, summed from coarse to fine so
    that only the last step touches every pixel.
    """
    total: Floats = np.zeros((2, 2), np.float32)
    strength = np.float32(1)
    for _ in range(octaves):
        rows, columns = min(height, int(height / cell) + 2), min(width, int(width / cell) + 2)
        grid = (rng.random((rows, columns), np.float32) - np.float32(0.5)) * strength
        total = grid + cv2.resize(total, (columns, rows), interpolation=cv2.INTER_CUBIC)
        strength, cell = strength * np.float32(0.55), cell / 2
    return np.asarray(cv2.resize(total, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def pattern(rng: np.random.Generator, kind: str, height: int, width: int, period: float) -> Bytes:
    """Blending weights (height, width) uint8 of a cloth or wall pattern named in `PATTERNS`; `period` in pixels."""
    if kind == "noise":
        return to_bytes(127 + 330 * cloud(rng, height, width, max(2.0, period)))
    angle = rng.choice([0.0, 90.0, rng.uniform(0, 180)]) if kind in ("stripes", "gradient") else rng.uniform(-12, 12)
    cos, sin = np.float32(np.cos(np.radians(angle))), np.float32(np.sin(np.radians(angle)))
    x, y = np.arange(width, dtype=np.float32) / period, np.arange(height, dtype=np.float32) / period
    u: Floats = np.add.outer(y * sin, x * cos) + np.float32(rng.random())
    if kind == "gradient":
        return to_bytes(255 * (u - u.min()) / (np.ptp(u) + 1e-3))
    u1 = u - np.floor(u)
    if kind == "stripes":
        return as_weight(u1 < rng.uniform(0.25, 0.6))
    v: Floats = np.add.outer(y * cos, -x * sin) + np.float32(rng.random())
    if kind == "bricks":  # mortar lines; every other row is shifted by half a brick
        v2 = 2 * v
        half = (u + np.floor(v2)) / 2
        half -= np.floor(half)
        return as_weight((half < 0.06) | (v2 - np.floor(v2) < 0.14))
    v1 = v - np.floor(v)
    if kind == "checks":
        return as_weight((u1 < 0.5) ^ (v1 < 0.5))
    if kind == "plaid":
        return as_weight(u1 < 0.4) // 2 + as_weight(v1 < 0.4) // 2
    return as_weight((u1 - 0.5) ** 2 + (v1 - 0.5) ** 2 < 0.08)


def surface(rng: np.random.Generator, height: int, width: int, pale: float = 0.0) -> Bytes:
    """A wall, floor or curtain: two colours, a pattern, uneven light; `pale` (0 to 1) moves it towards white."""
    first = jitter(rng, SKIN[rng.integers(4)], 20) if rng.random() < 0.15 else cloth_colour(rng)
    # Walls and floors are seldom as bright as clothes are, and their patterns seldom as strong.
    grey = rng.uniform(0.35, 0.9)
    low, high = (_towards(_towards(c, grey, (sum(c) // 3,) * 3), pale) for c in (first, cloth_colour(rng)))
    high = _towards(low, rng.uniform(0, 0.55), high)
    weight: Bytes = np.zeros((height, width), np.uint8)
    if rng.random() < 0.55:
        weight = pattern(rng, str(rng.choice(PATTERNS)), height, width, rng.uniform(7, 90))
    # Light changes slowly: half the resolution is enough.
    light = to_bytes(128 + 70 * cloud(rng, height // 2 + 1, width // 2 + 1, max(height, width) / 4, 5))
    light = np.asarray(cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    return dim(ramp(low, high, weight), light, 128)


def ground(rng: np.random.Generator, height: int, width: int) -> Bytes:
    """Grass, sand, earth or asphalt, coarser towards the viewer."""
    far = jitter(rng, _GROUND[rng.integers(len(_GROUND))], 22)
    near = jitter(rng, far if rng.random() < 0.6 else _GROUND[rng.integers(len(_GROUND))], 30)
    weight = np.linspace(0, 200, height, dtype=np.float32)[:, None] + 170 * cloud(rng, height, width, 60, 5)
    earth = ramp(far, near, to_bytes(weight))
    grain = to_bytes(128 + rng.uniform(20, 110) * cloud(rng, height, width, rng.uniform(2, 6), 2))
    return dim(earth, grain, 128)
