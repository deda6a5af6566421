"""What surfaces look like: clouds of noise, cloth and wall patterns, walls, ground."""

from __future__ import annotations

import cv2
import numpy as np

from preprocess.drawing.colour import SKIN, Colour, cloth_colour, jitter, towards
from preprocess.drawing.paint import Bytes, Floats, as_weight, dim, ramp, to_bytes

PATTERNS = ("stripes", "checks", "plaid", "dots", "noise", "gradient", "bricks")
_GROUND: tuple[Colour, ...] = ((92, 128, 62), (134, 152, 84), (150, 122, 88), (194, 172, 130), (120, 118, 114),
                               (84, 82, 84), (186, 182, 176), (112, 84, 62))  # fmt: skip


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
    low, high = (towards(towards(c, grey, (sum(c) // 3,) * 3), pale) for c in (first, cloth_colour(rng)))
    high = towards(low, rng.uniform(0, 0.55), high)
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
