"""Painted figures with their keypoints, and things that are not persons: they stand about and hide people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from preprocess.synth.figure import Figure
from preprocess.synth.painting import (
    SKIN,
    Bytes,
    Floats,
    Layer,
    as_weight,
    cloud,
    dim,
    ground,
    jitter,
    look_up,
    mix,
    pattern,
    surface,
    to_bytes,
)

THINGS = ("box", "ball", "pole", "trunk", "bush", "table", "chair", "barrel", "coat", "log", "panel")
OCCLUDERS = ("box", "bush", "table", "pole", "barrel", "panel", "chair", "trunk")


@dataclass(frozen=True, kw_only=True)
class Sprite(Layer):
    """A painted figure. `keypoints` (17, 2) float32 in image pixels, pixel i spanning [i, i + 1)."""

    keypoints: Floats


def paint_figure(
    rng: np.random.Generator, figure: Figure, x: float, y: float, size: float, frame: tuple[int, int]
) -> Sprite | None:
    """Paint `figure` with its hips at (x, y), its stature `size` pixels, cut to `frame` (height, width).

    It is drawn at two to four times the resolution and averaged down, so that `alpha` is the pixel's coverage.
    None when nothing of it lies in the frame.
    """
    x0, y0 = max(0, int(x + size * figure.bounds[0]) - 1), max(0, int(y + size * figure.bounds[1]) - 1)
    x1 = min(frame[1], int(x + size * figure.bounds[2]) + 2)
    y1 = min(frame[0], int(y + size * figure.bounds[3]) + 2)
    if x1 <= x0 or y1 <= y0:
        return None
    fine = 2 if size > 130 else 4
    height, width = (y1 - y0) * fine, (x1 - x0) * fine
    part: Bytes = np.zeros((height, width), np.uint8)
    shade: Bytes = np.full((height, width), 128, np.uint8)
    offset = np.array([(x - x0) * fine - 0.5, (y - y0) * fine - 0.5], np.float32)
    # Four fractional bits of a pixel: enough for fillConvexPoly to look smooth.
    points = np.rint((figure.points * (size * fine) + offset) * 16).astype(np.int32)
    for start, stop, number, grey in figure.strokes:
        if number >= 0:
            cv2.fillConvexPoly(part, points[start:stop], number + 1, shift=4)
        cv2.fillConvexPoly(shade, points[start:stop], grey, shift=4)
    soft = max(1, int(size * fine * 0.012)) | 1
    shade = np.asarray(cv2.blur(cv2.blur(shade, (soft, soft)), (soft, soft)), np.uint8)
    # The folds of the cloth are soft: a quarter of the resolution is enough.
    folds = to_bytes(128 + 55 * cloud(rng, height // 4 + 1, width // 4 + 1, size * fine * 0.0225, 2))
    folds = np.asarray(cv2.resize(folds, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    shade = np.asarray(cv2.multiply(shade, folds, scale=1 / 128), np.uint8)
    colour = look_up(part, _table(figure, 0))
    if figure.patterns:
        weight: Bytes = np.zeros_like(part)
        for garment, kind in figure.patterns.items():
            cloth = pattern(rng, kind, height, width, max(2.0, size * fine * rng.uniform(0.022, 0.075)))
            worn = np.array([0, *(255 * name.startswith(garment + ":") for name in figure.parts)], np.uint8)
            weight |= cloth & np.take(worn, part)
        colour = mix(colour, look_up(part, _table(figure, 1)), weight)
    colour = dim(colour, shade, 190)
    low = (x1 - x0, y1 - y0)
    alpha = cv2.resize(as_weight(part > 0), low, interpolation=cv2.INTER_AREA)
    keypoints = figure.keypoints * np.float32(size) + np.array([x, y], np.float32)
    small = np.asarray(cv2.resize(colour, low, interpolation=cv2.INTER_AREA), np.uint8)
    return Sprite(x=x0, y=y0, colour=small, alpha=np.asarray(alpha, np.uint8), keypoints=keypoints)


def _table(figure: Figure, side: int) -> Bytes:
    """First (0) or second (1) colour of each part, at its number + 1 in (256, 3); 0, the background, stays black."""
    table: Bytes = np.zeros((256, 3), np.uint8)
    for number, name in enumerate(figure.parts, 1):
        table[number] = figure.colours[name.split(":")[0]][side]
    return table


def draw_thing(
    rng: np.random.Generator, kind: str, x: float, y: float, size: float, frame: tuple[int, int]
) -> Layer | None:
    """A thing of a kind in `THINGS`, `size` pixels high, standing at (x, y), cut to `frame` (height, width).

    None when next to nothing of it lies in the frame.
    """
    shapes = [(np.asarray(points, np.float64) * size + (x, y), light) for points, light in _shapes(rng, kind)]
    corners = np.concatenate([points for points, _ in shapes])
    (x0, y0), (x1, y1) = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int) + 1
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(frame[1], x1), min(frame[0], y1)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None
    alpha: Bytes = np.zeros((y1 - y0, x1 - x0), np.uint8)
    shade: Bytes = np.zeros_like(alpha)
    for points, light in shapes:
        fixed = np.rint((points - (x0, y0) - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(alpha, [fixed], 255, cv2.LINE_AA, 4)
        cv2.fillPoly(shade, [fixed], 200 * light, cv2.LINE_AA, 4)
    round_off = np.linspace(1.0, rng.uniform(0.45, 0.95), x1 - x0) * (0.75 + 0.5 * rng.random())
    colour = surface(rng, y1 - y0, x1 - x0)
    if kind in ("bush", "trunk"):
        colour = ground(rng, y1 - y0, x1 - x0)
    elif kind == "log":  # the colours and the shape of an arm or a leg
        colour[:] = jitter(rng, SKIN[rng.integers(len(SKIN))], 10)
    shade = to_bytes(shade * round_off)
    colour = dim(colour, shade, 200)
    colour = dim(colour, alpha, 255)
    return Layer(x=x0, y=y0, colour=colour, alpha=alpha)


def _bar(x: float, half: float, top: float) -> list[tuple[float, float]]:
    """An upright bar around `x`, from the ground to `top`."""
    return [(x - half, 0), (x - half, -top), (x + half, -top), (x + half, 0)]


def _shapes(rng: np.random.Generator, kind: str) -> list[tuple[Any, float]]:
    """Polygons (n, 2) of a thing one unit high that stands at (0, 0), y down, each with its brightness."""
    u = rng.uniform
    circle = np.stack([np.cos(np.linspace(0, 2 * np.pi, 24)), np.sin(np.linspace(0, 2 * np.pi, 24))], 1)
    if kind == "ball":
        return [(circle * 0.5 - (0, 0.5), 1.0), (circle * 0.3 - (0.1, 0.6), 1.15)]
    if kind == "bush":
        blobs = [circle * u(0.18, 0.34) + (u(-0.45, 0.45), -u(0.25, 0.75)) for _ in range(9)]
        return [(blob, u(0.7, 1.2)) for blob in [circle * (0.5, 0.35) - (0, 0.35), *blobs]]
    if kind in ("pole", "trunk"):
        half, top = (u(0.012, 0.035), 1.6) if kind == "pole" else (u(0.06, 0.13), 1.3)
        return [([(-half, 0), (-half * u(0.5, 1), -top), (half * u(0.5, 1), -top), (half, 0)], 1.0)]
    if kind == "barrel":
        half = u(0.25, 0.4)
        return [([(-half, 0), (-half * 1.12, -0.5), (-half, -1), (half, -1), (half * 1.12, -0.5), (half, 0)], 1.0),
                (circle * (half, 0.08) - (0, 1), 1.2)]  # fmt: skip
    if kind == "table":
        half, thick = u(0.6, 1.1), u(0.05, 0.12)
        legs = [_bar(side * half * 0.9, 0.04, 1) for side in (-1, 1)]
        rim = [(-half, -1), (-half * 0.85, -1 - 2 * thick), (half * 0.85, -1 - 2 * thick), (half, -1)]
        return [(legs[0], 0.8), (legs[1], 0.8), ([*rim, (half, thick - 1), (-half, thick - 1)], 1.1)]
    if kind == "chair":
        seat = [(-0.32, -0.42), (-0.32, -0.52), (0.31, -0.52), (0.31, -0.42)]
        return [(_bar(-0.28, 0.03, 0.5), 0.8), (_bar(0.28, 0.03, 1), 0.9), (seat, 1.1)]
    if kind == "coat":  # a garment without a wearer
        flare, sleeve = u(0.24, 0.4), u(0.5, 0.9)
        right = [(0.07, -1), (0.26, -0.92), (0.22, -0.4), (flare, 0)]
        body = right + [(-bx, by) for bx, by in reversed(right)]
        return [(body, 1.0)] + [
            ([(s * 0.2, -0.95), (s * 0.3, -0.9), (s * 0.42, -1 + sleeve), (s * 0.3, -1 + sleeve)], 0.9) for s in (-1, 1)
        ]
    if kind in ("log", "panel"):
        half, bend, turn = u(0.05, 0.11), u(-0.15, 0.15), u(0, np.pi)
        points = np.concatenate([circle * half - (0, 0.5), circle * half + (bend, 0.5)])
        if kind == "panel":
            points = np.array([(-0.5, -0.35), (0.5, -0.35), (0.5, 0.35), (-0.5, 0.35)]) * u(0.5, 1, 2)
            turn = rng.normal(0, 0.2)
        hull = cv2.convexHull(points.astype(np.float32))[:, 0]
        spin = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
        return [(hull @ spin - (0, 0.45), 1.0)]
    half, deep = u(0.35, 0.75), u(0.08, 0.25)  # a box with a lit top and a dark side
    return [([(-half, 0), (-half, -1), (half, -1), (half, 0)], 1.0),
            ([(-half, -1), (deep - half, -1 - deep), (half + deep, -1 - deep), (half, -1)], 1.2),
            ([(half, 0), (half, -1), (half + deep, -1 - deep), (half + deep, -deep)], 0.7)]  # fmt: skip
