"""A painted figure: its colours with soft edges, and where its keypoints are."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.drawing.figure import KEYPOINTS, Figure
from preprocess.drawing.paint import Bytes, Floats, Layer, as_weight, dim, look_up, mix, to_bytes
from preprocess.drawing.texture import cloud, pattern

# A keypoint is in sight where one of these limbs is what was painted last.
_LIMBS: dict[str, tuple[str, ...]] = {
    "nose": ("head", "face"), "eye": ("head", "face"), "ear": ("head", "hair", "face"),
    "shoulder": ("torso", "upper"), "elbow": ("upper", "fore"), "wrist": ("fore", "hand"),
    "hip": ("hips", "torso", "thigh", "skirt"), "knee": ("thigh", "shin", "skirt"), "ankle": ("shin", "foot"),
}  # fmt: skip
_SIDED = ("upper", "fore", "hand", "thigh", "shin", "foot")


@dataclass(frozen=True, kw_only=True)
class Sprite(Layer):
    """A painted figure. `keypoints` (17, 2) float32 in image pixels, pixel i spanning [i, i + 1).

    `shown` (17,) bool: the body's own limbs leave the keypoint in sight.
    """

    keypoints: Floats
    shown: NDArray[np.bool_]


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
    shown = _in_sight(figure, part, keypoints * fine - np.array([x0, y0], np.float32) * fine)
    small = np.asarray(cv2.resize(colour, low, interpolation=cv2.INTER_AREA), np.uint8)
    return Sprite(x=x0, y=y0, colour=small, alpha=np.asarray(alpha, np.uint8), keypoints=keypoints, shown=shown)


def _table(figure: Figure, side: int) -> Bytes:
    """First (0) or second (1) colour of each part, at its number + 1 in (256, 3); 0, the background, stays black."""
    table: Bytes = np.zeros((256, 3), np.uint8)
    for number, name in enumerate(figure.parts, 1):
        table[number] = figure.colours[name.split(":")[0]][side]
    return table


def _in_sight(figure: Figure, part: Bytes, points: Floats) -> NDArray[np.bool_]:
    """Which keypoints (17,), at `points` of the map of parts, their own limb leaves in sight."""
    shown = ~figure.hidden
    height, width = part.shape
    for k, keypoint in enumerate(KEYPOINTS):
        px, py = int(np.floor(points[k, 0])), int(np.floor(points[k, 1]))
        if not shown[k] or not (0 <= px < width and 0 <= py < height):
            continue
        side, _, joint = keypoint.rpartition("_")
        number = int(part[py, px])
        limb, _, limb_side = figure.parts[number - 1].split(":")[1].partition("_") if number else ("", "", "")
        shown[k] = limb in _LIMBS[joint] and (limb not in _SIDED or limb_side == side)
    return shown
