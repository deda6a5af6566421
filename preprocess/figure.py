"""A procedural person: a posed 3-D skeleton, dressed, projected and painted with soft edges."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Bytes: TypeAlias = NDArray[np.uint8]
Range: TypeAlias = tuple[float, float]
Colour: TypeAlias = tuple[int, int, int]

KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip

SKIN: tuple[Colour, ...] = (
    (250, 220, 196), (240, 200, 168), (226, 180, 143), (205, 155, 115),
    (176, 124, 86), (141, 96, 64), (104, 68, 46), (74, 50, 38),
)  # fmt: skip
_HAIR: tuple[Colour, ...] = (
    (28, 24, 22), (52, 36, 26), (84, 54, 34), (128, 86, 48), (190, 152, 92), (226, 202, 150), (150, 148, 146),
    (212, 210, 206), (140, 58, 30),
)  # fmt: skip
PATTERNS = ("stripes", "checks", "plaid", "dots", "noise", "gradient", "bricks")

# Degrees, each drawn uniformly: lean of the torso, then arm A and arm B (forward, outward, inward twist, elbow),
# then leg A and leg B (forward, outward, knee). A and B become left and right by the toss of a coin.
_HANG: tuple[Range, ...] = ((-14, 20), (4, 16), (-10, 40), (5, 40))
_UPRIGHT: tuple[Range, ...] = ((-7, 9), (1, 8), (0, 10))
_POSES: dict[str, tuple[Range, ...]] = {
    "stand": ((-4, 6), *_HANG, *_HANG, *_UPRIGHT, *_UPRIGHT),
    "walk": ((0, 9), (18, 42), (3, 10), (0, 30), (10, 45), (-42, -18), (3, 10), (0, 20), (5, 30),
             (-30, -14), (0, 4), (6, 30), (16, 36), (0, 4), (0, 18)),
    "run": ((8, 22), (25, 60), (5, 16), (0, 40), (70, 110), (-62, -30), (5, 16), (0, 30), (70, 110),
            (-40, -10), (0, 5), (40, 105), (40, 78), (0, 5), (30, 90)),
    "sit": ((-8, 14), (20, 60), (4, 18), (0, 50), (20, 85), (10, 60), (4, 18), (0, 50), (20, 85),
            (74, 96), (2, 16), (66, 100), (74, 96), (2, 16), (66, 100)),
    "cheer": ((-8, 5), (-12, 25), (115, 172), (-60, 40), (0, 60), (-12, 25), (115, 172), (-60, 40), (0, 60),
              *_UPRIGHT, *_UPRIGHT),
    "wave": ((-4, 6), (-10, 30), (95, 160), (-90, 0), (10, 80), *_HANG, *_UPRIGHT, *_UPRIGHT),
    "akimbo": ((-4, 6), (-30, -10), (34, 52), (70, 100), (85, 115), (-30, -10), (34, 52), (70, 100), (85, 115),
               *_UPRIGHT, (-8, 14), (6, 16), (0, 20)),
    "point": ((-4, 8), (60, 110), (0, 50), (-20, 30), (0, 25), *_HANG, *_UPRIGHT, *_UPRIGHT),
    "bend": ((32, 75), (25, 85), (2, 14), (0, 30), (0, 45), (25, 85), (2, 14), (0, 30), (0, 45),
             (-4, 12), (2, 10), (0, 22), (-4, 12), (2, 10), (0, 22)),
    "squat": ((14, 38), (30, 80), (4, 20), (0, 60), (10, 80), (30, 80), (4, 20), (0, 60), (10, 80),
              (82, 118), (6, 28), (95, 135), (82, 118), (6, 28), (95, 135)),
    "jump": ((-6, 14), (-10, 60), (50, 150), (-40, 40), (0, 60), (-10, 60), (50, 150), (-40, 40), (0, 60),
             (0, 40), (12, 40), (5, 90), (-20, 20), (12, 40), (5, 90)),
    "kick": ((-14, 6), (20, 60), (20, 60), (0, 30), (10, 50), (-50, -10), (20, 60), (0, 30), (10, 50),
             (35, 85), (0, 12), (0, 40), (-8, 6), (0, 6), (4, 20)),
}  # fmt: skip
_POSE_NAMES = tuple(_POSES)
_POSE_WEIGHTS = np.array([4, 3, 2, 3, 1.3, 1.3, 1.3, 1.3, 1, 0.8, 0.8, 0.8])

_CIRCLE: Floats = np.stack([f(np.arange(14) * (2 * np.pi / 14)) for f in (np.cos, np.sin)], 1).astype(np.float32)
_RING: Floats = np.stack([_CIRCLE[:, 0], 0 * _CIRCLE[:, 0], _CIRCLE[:, 1]], 1)
_DISC: Floats = np.stack([_CIRCLE[:, 0], _CIRCLE[:, 1], 0 * _CIRCLE[:, 0]], 1)
# Seven latitudes of a unit sphere: the hull of its projection is an ellipsoid's outline to within a percent.
_SPHERE: Floats = np.concatenate(
    [_RING * np.cos(a) + np.array([0, np.sin(a), 0], np.float32) for a in np.radians((-75, -50, -25, 0, 25, 50, 75))]
).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A posed and dressed person in body units: 1 is the upright stature, x to the right, y down, hips at (0, 0).

    `strokes` are convex polygons painted in order, each as (start, stop, part, grey): the rows start..stop of `points`
    (n, 2), the part whose outline it is, or -1 for a lit area within one, and its brightness (grey, 0 to 255).
    `parts` names them as "material:limb". `hidden` tells the keypoints that the body's own turn hides; `bounds` is
    (x0, y0, x1, y1).
    """

    pose: str
    points: Floats
    strokes: tuple[tuple[int, int, int, float], ...]
    parts: tuple[str, ...]
    colours: dict[str, tuple[Colour, Colour]]
    patterns: dict[str, str]
    keypoints: Floats
    hidden: NDArray[np.bool_]
    bounds: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Something painted: `colour` (h, w, 3) uint8 RGB premultiplied by `alpha` (h, w) uint8, top left at (x, y)."""

    x: int
    y: int
    colour: Bytes
    alpha: Bytes


@dataclass(frozen=True, kw_only=True)
class Sprite(Layer):
    """A painted figure. `keypoints` (17, 2) float32 in image pixels, pixel i spanning [i, i + 1).

    `shown` (17,) bool: the body's own limbs leave the keypoint in sight.
    """

    keypoints: Floats
    shown: NDArray[np.bool_]


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
        return _as_weight(u1 < rng.uniform(0.25, 0.6))
    v: Floats = np.add.outer(y * cos, -x * sin) + np.float32(rng.random())
    if kind == "bricks":  # mortar lines; every other row is shifted by half a brick
        v2 = 2 * v
        half = (u + np.floor(v2)) / 2
        half -= np.floor(half)
        return _as_weight((half < 0.06) | (v2 - np.floor(v2) < 0.14))
    v1 = v - np.floor(v)
    if kind == "checks":
        return _as_weight((u1 < 0.5) ^ (v1 < 0.5))
    if kind == "plaid":
        return _as_weight(u1 < 0.4) // 2 + _as_weight(v1 < 0.4) // 2
    return _as_weight((u1 - 0.5) ** 2 + (v1 - 0.5) ** 2 < 0.08)


def _as_weight(inside: NDArray[np.bool_]) -> Bytes:
    return inside.view(np.uint8) * np.uint8(255)


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


def pose_figure(rng: np.random.Generator, pose: str | None = None) -> Figure:
    """Draw a person: build, pose, view and clothes. `pose` is one of the poses' names, or None for a random one."""
    name = pose or str(rng.choice(_POSE_NAMES, p=_POSE_WEIGHTS / _POSE_WEIGHTS.sum()))
    body = _Body(rng, name)
    body.build()
    return body.figure(name)


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
    alpha = cv2.resize(_as_weight(part > 0), low, interpolation=cv2.INTER_AREA)
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


# A keypoint is in sight where one of these limbs is what was painted last.
_LIMBS: dict[str, tuple[str, ...]] = {
    "nose": ("head", "face"), "eye": ("head", "face"), "ear": ("head", "hair", "face"),
    "shoulder": ("torso", "upper"), "elbow": ("upper", "fore"), "wrist": ("fore", "hand"),
    "hip": ("hips", "torso", "thigh", "skirt"), "knee": ("thigh", "shin", "skirt"), "ankle": ("shin", "foot"),
}  # fmt: skip
_SIDED = ("upper", "fore", "hand", "thigh", "shin", "foot")


def _in_sight(figure: Figure, part: Bytes, points: Floats) -> NDArray[np.bool_]:
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


def _turn(axis: int, degrees: float) -> Floats:
    """Rotation matrix (3, 3) about axis 0 (x, to the viewer's right), 1 (y, up) or 2 (z, towards the viewer)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    if axis == 0:
        return np.array(((1, 0, 0), (0, cos, -sin), (0, sin, cos)), np.float32)
    if axis == 1:
        return np.array(((cos, 0, sin), (0, 1, 0), (-sin, 0, cos)), np.float32)
    return np.array(((cos, -sin, 0), (sin, cos, 0), (0, 0, 1)), np.float32)


def _vector(x: float, y: float, z: float) -> Floats:
    return np.array([x, y, z], np.float32)


class _Body:
    """Forward kinematics of one person. Right-handed body axes: x to the person's left, y up, z to the front."""

    def __init__(self, rng: np.random.Generator, pose: str) -> None:
        self.rng = rng
        angles = [rng.uniform(low, high) for low, high in _POSES[pose]]
        lean, arms, legs = angles[0], [angles[1:5], angles[5:9]], [angles[9:12], angles[12:15]]
        if rng.random() < 0.5:
            arms.reverse()
            legs.reverse()
        self.arms, self.legs = arms, legs
        # Mostly towards the camera, a good share from the side, some from behind.
        yaw = rng.choice(
            [rng.normal(0, 28), rng.choice([-1, 1]) * rng.normal(80, 22), rng.normal(180, 35)], p=[0.5, 0.32, 0.18]
        )
        spin = rng.choice([rng.normal(0, 4), rng.choice([-1, 1]) * rng.uniform(60, 110)], p=[0.985, 0.015])
        view = _turn(2, spin) @ _turn(0, rng.uniform(-4, 14)) @ _turn(1, yaw)
        self.pelvis = view @ _turn(0, 0.12 * lean)
        self.torso = self.pelvis @ _turn(0, 0.88 * lean) @ _turn(2, rng.normal(0, 4)) @ _turn(1, rng.normal(0, 8))
        self.head = (
            self.torso
            @ _turn(1, rng.normal(0, 22))
            @ _turn(0, rng.normal(0, 9) - 0.5 * max(lean, 0))
            @ _turn(2, rng.normal(0, 5))
        )
        self.girth = rng.uniform(0.85, 1.3)
        self.shoulder, self.hip = rng.uniform(0.104, 0.128), rng.uniform(0.050, 0.066)
        self.child = rng.uniform(1.2, 1.5) if rng.random() < 0.15 else rng.uniform(0.96, 1.12)
        light = rng.uniform(-1, 1, 2)
        self.light = _vector(0.3 * light[0], 0.25 + 0.1 * light[1], 0)
        self.parts: list[tuple[float, list[Floats], list[Floats], str]] = []
        self.joints: dict[str, Floats] = {}

    def limb(self, name: str, start: Floats, end: Floats, radii: Range, bias: float = 0.0) -> None:
        """A tapered capsule between two joints."""
        offsets = np.concatenate([_DISC * radii[0], _DISC * radii[1]])
        centres = np.repeat(np.stack([start, end]), len(_DISC), axis=0)
        self.parts.append((float(start[2] + end[2]) / 2 + bias, [centres], [offsets], name))

    def ball(
        self, name: str, centre: Floats, frame: Floats, radii: tuple[float, float, float], bias: float = 0.0
    ) -> None:
        """An ellipsoid with its axes along `frame`'s columns."""
        offsets = (_SPHERE * np.array(radii, np.float32)) @ frame.T
        self.parts.append((float(centre[2]) + bias, [np.broadcast_to(centre, offsets.shape)], [offsets], name))

    def tube(self, name: str, rings: Sequence[tuple[Floats, Floats, float, float]], bias: float) -> None:
        """Consecutive elliptical rings (centre, frame, half width, half depth), filled pair by pair."""
        cuts = [(c, (_RING * np.array([w, 1, d], np.float32)) @ frame.T) for c, frame, w, d in rings]
        depth = float(np.mean([c[2] for c, _ in cuts])) + bias
        pairs = list(itertools.pairwise(cuts))
        centres = [np.repeat(np.stack([c0, c1]), len(_RING), axis=0) for (c0, _), (c1, _) in pairs]
        self.parts.append((depth, centres, [np.concatenate([o0, o1]) for (_, o0), (_, o1) in pairs], name))

    def build(self) -> None:
        """Fill `parts` and `joints`: trunk, legs, arms, head, in this person's clothes."""
        rng, g = self.rng, self.girth
        self.skirt, self.shorts = rng.random() < 0.2, rng.random() < 0.25
        self.sleeve = rng.choice([0.0, 0.55, 1.0, 2.0], p=[0.15, 0.35, 0.05, 0.45])  # 1 covers the upper arm
        self.trunk()
        for index, side in enumerate((1, -1)):
            label = "left" if side == 1 else "right"
            self.leg(label, side, self.legs[index], g)
            self.arm(label, side, self.arms[index], g)
        self.skull()

    def trunk(self) -> None:
        g, s, t, p = self.girth, self.shoulder, self.torso, self.pelvis
        up = t @ _vector(0, 1, 0)
        zero = _vector(0, 0, 0)
        belt = (0.045 * up, t, 0.088 * g, 0.070 * g)
        self.tube(
            "bottom:hips",
            [(p @ _vector(0, -0.045, 0), p, 0.072 * g, 0.06 * g), (zero, p, 0.092 * g, 0.076 * g), belt],
            0.004,
        )
        heights = ((0.03, 0.090, 0.072), (0.12, 0.080, 0.066), (0.21, 0.78 * s / g + 0.012, 0.076),
                   (0.275, 0.95 * s / g, 0.064), (0.305, 0.80 * s / g, 0.052), (0.325, 0.042, 0.042))  # fmt: skip
        self.tube("top:torso", [(np.multiply(h, up), t, w * g, d * g) for h, w, d in heights], 0.006)
        if self.skirt:
            hem = self.rng.uniform(0.14, 0.42)
            knees = [self.hip_joint(side) + hem * self.thigh(side)[0] for side in (1, -1)]
            cut = (self.thigh(1)[1] + self.thigh(-1)[1]) / 2  # rings across the thighs, also when they are raised
            rings = [
                belt,
                (zero, p, 0.096 * g, 0.08 * g),
                (0.55 * (knees[0] + knees[1]) / 2, (p + cut) / 2, 0.132 * g, 0.095 * g),
            ]
            spread = 0.5 * float(np.linalg.norm(knees[0] - knees[1])) + 0.06
            rings.append(((knees[0] + knees[1]) / 2, cut, spread * g, 0.09 * g))
            self.tube("bottom:skirt", rings, 0.068)
        base = 0.30 * up
        self.neck = base + self.head @ _vector(0, 0.065, 0.008)
        self.limb("skin:neck", base, self.neck, (0.034 * g, 0.031 * g), 0.012)

    def hip_joint(self, side: int) -> Floats:
        return np.asarray(self.pelvis @ _vector(side * self.hip * self.girth, -0.01, 0), np.float32)

    def thigh(self, side: int) -> tuple[Floats, Floats]:
        """Direction of the thigh (3,) and its frame (3, 3)."""
        forward, outward, _ = self.legs[0 if side == 1 else 1]
        frame = self.pelvis @ _turn(2, side * outward) @ _turn(0, -forward)
        return frame @ _vector(0, -1, 0), frame

    def leg(self, label: str, side: int, angles: Sequence[float], g: float) -> None:
        hip, (direction, frame) = self.hip_joint(side), self.thigh(side)
        length = 0.245 / self.child**0.3
        knee = hip + length * direction
        shin = frame @ _turn(0, angles[2])
        ankle = knee + length * (shin @ _vector(0, -1, 0))
        upper = "skin" if self.skirt and not self.shorts else "bottom"
        lower = "skin" if self.skirt or self.shorts else "bottom"
        loose = 1.12 if lower == "bottom" else 1.0
        self.limb(f"{upper}:thigh_{label}", hip, knee, (0.066 * g, 0.046 * g))
        calf = knee + 0.3 * (ankle - knee) - 0.008 * (shin @ _vector(0, 0, 1))
        self.limb(f"{lower}:shin_{label}", calf, ankle, (0.043 * g * loose, 0.026 * g * loose), -0.004)
        self.limb(f"{lower}:shin_{label}", knee, calf, (0.044 * g, 0.043 * g * loose), -0.003)
        foot = shin @ _turn(0, 8)
        self.limb(
            f"shoe:foot_{label}",
            ankle + foot @ _vector(0, -0.02, -0.012),
            ankle + foot @ _vector(0, -0.034, 0.088),
            (0.031, 0.023),
            0.006,
        )
        self.joints |= {f"{label}_hip": hip, f"{label}_knee": knee, f"{label}_ankle": ankle}

    def arm(self, label: str, side: int, angles: Sequence[float], g: float) -> None:
        forward, outward, twist, bend = angles
        shoulder = self.torso @ _vector(side * self.shoulder, 0.275, 0)
        frame = self.torso @ _turn(2, side * outward) @ _turn(0, -forward)
        length = 0.172 / self.child**0.3
        elbow = shoulder + length * (frame @ _vector(0, -1, 0))
        lower = frame @ _turn(1, -side * twist) @ _turn(0, -bend)
        wrist = elbow + 0.9 * length * (lower @ _vector(0, -1, 0))
        # Seen from the front an arm hangs beside the trunk, not in it, so it is painted later unless it is behind.
        bias = 0.075 if (shoulder[2] + wrist[2]) / 2 > -0.055 else 0.0
        bare = self.sleeve < 1
        self.limb(f"{'skin' if bare else 'top'}:upper_{label}", shoulder, elbow, (0.040 * g, 0.032 * g), bias)
        if bare and self.sleeve > 0:
            self.limb(
                f"top:upper_{label}",
                shoulder,
                shoulder + self.sleeve * (elbow - shoulder),
                (0.045 * g, 0.043 * g),
                bias + 0.001,
            )
        self.limb(
            f"{'top' if self.sleeve > 1 else 'skin'}:fore_{label}", elbow, wrist, (0.032 * g, 0.022 * g), bias + 0.012
        )
        hand = lower @ _vector(0, -0.038, 0)
        self.ball(f"skin:hand_{label}", wrist + hand, lower, (0.020, 0.044, 0.026), bias + 0.010)
        self.joints |= {f"{label}_shoulder": shoulder, f"{label}_elbow": elbow, f"{label}_wrist": wrist}

    def skull(self) -> None:
        rng, c, frame = self.rng, self.child, self.head
        centre = self.neck + frame @ _vector(0, 0.052 * c, 0.006)

        def at(x: float, y: float, z: float) -> Floats:
            return np.asarray(centre + c * (frame @ _vector(x, y, z)), np.float32)

        self.ball("skin:head", at(0, 0, 0), frame, (0.054 * c, 0.074 * c, 0.064 * c), 0.03)
        style = rng.choice(["bald", "short", "long", "bun", "hat"], p=[0.06, 0.42, 0.26, 0.1, 0.16])
        if style != "bald":
            self.ball("hair:hair", at(0, 0.018, -0.016), frame, (0.060 * c, 0.068 * c, 0.062 * c), 0.03)
            self.ball("hair:hair", at(0, 0.052, 0.010), frame, (0.054 * c, 0.030 * c, 0.056 * c), 0.045)
        if style == "long":
            drop = rng.uniform(0.06, 0.15)
            self.ball("hair:hair", at(0, -drop / 2, -0.036), frame, (0.060 * c, 0.05 * c + drop / 2, 0.036 * c), 0.03)
        if style == "bun":
            self.ball("hair:hair", at(0, 0.078, -0.03), frame, (0.028 * c, 0.026 * c, 0.028 * c), 0.03)
        if style == "hat":
            self.ball("hat:hair", at(0, 0.055, -0.004), frame, (0.063 * c, 0.042 * c, 0.068 * c), 0.05)
            self.ball("hat:hair", at(0, 0.040, 0.022), frame, (0.066 * c, 0.008 * c, 0.082 * c), 0.052)
        face = {"nose": (0.0, -0.010, 0.068), "left_eye": (0.022, 0.010, 0.056), "right_eye": (-0.022, 0.010, 0.056),
                "left_ear": (0.054, 0.0, -0.004), "right_ear": (-0.054, 0.0, -0.004)}  # fmt: skip
        self.joints |= {name: at(*place) for name, place in face.items()}
        self.facing = float(frame[2, 2])
        for name, place in face.items():
            if name.endswith("ear"):
                self.ball("skin:face", at(*place), frame, (0.009 * c, 0.018 * c, 0.013 * c), 0.034)
            elif self.facing > 0.1:
                radii = (0.008, 0.016, 0.012) if name == "nose" else (0.009, 0.006, 0.006)
                self.ball(
                    "nose:face" if name == "nose" else "eye:face",
                    at(*place),
                    frame,
                    (radii[0] * c, radii[1] * c, radii[2] * c),
                    0.036,
                )
        if self.facing > 0.1:
            self.ball("mouth:face", at(0, -0.040, 0.056), frame, (0.018 * c, 0.005 * c, 0.008 * c), 0.036)

    def figure(self, pose: str) -> Figure:
        """Project (a weak perspective: the near is up to a tenth larger), sort far to near, choose the colours."""
        rng = self.rng
        self.parts.sort(key=lambda part: part[0])
        pieces: list[Floats] = []
        offsets: list[Floats] = []
        tags: list[tuple[int, float]] = []
        for number, (depth, centres, around, _) in enumerate(self.parts):
            light = min(1.1, max(0.78, 1 + 0.9 * depth))
            pieces += centres * 2
            offsets += around * 2
            tags += [(number, 128 * light)] * len(centres) + [(-1, 205 * light)] * len(centres)
        lengths = [len(piece) for piece in pieces]
        starts = np.cumsum([0, *lengths[:-1]])
        offset = np.concatenate(offsets)
        reach = np.maximum.reduceat(np.abs(offset).max(1), starts)
        lit = np.array([number < 0 for number, _ in tags])
        shift = self.light * (reach * lit)[:, None].astype(np.float32)
        scale = np.where(lit, np.float32(0.62), np.float32(1))[:, None]
        points = np.concatenate(pieces) + offset * np.repeat(scale, lengths, axis=0) + np.repeat(shift, lengths, axis=0)
        projected = np.split(_project(points), starts[1:])
        hulls = [cv2.convexHull(piece)[:, 0] for piece in projected]
        stops = np.cumsum([len(hull) for hull in hulls]).tolist()
        strokes = tuple((stop - len(hull), stop, *tag) for stop, hull, tag in zip(stops, hulls, tags, strict=True))
        corners = np.concatenate(hulls).astype(np.float32)
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
        joints = np.stack([self.joints[name] for name in KEYPOINTS])
        hidden: NDArray[np.bool_] = np.zeros(17, np.bool_)
        hidden[:3] = self.facing < 0.1
        centre = self.joints["left_ear"] / 2 + self.joints["right_ear"] / 2
        hidden[1:5] |= joints[1:5, 2] < centre[2] - 0.012
        hidden[[5, 6, 11, 12]] = (
            joints[[5, 6, 11, 12], 2] < np.repeat((joints[[5, 11], 2] + joints[[6, 12], 2]) / 2, 2) - 0.05
        )
        colours, patterns = self.clothes(rng)
        return Figure(
            pose=pose,
            points=corners,
            strokes=strokes,
            parts=tuple(name for _, _, _, name in self.parts),
            colours=colours,
            patterns=patterns,
            keypoints=_project(joints),
            hidden=hidden,
            bounds=(float(x0), float(y0), float(x1), float(y1)),
        )

    def clothes(self, rng: np.random.Generator) -> tuple[dict[str, tuple[Colour, Colour]], dict[str, str]]:
        """Two colours a material, and the pattern that mixes them on the garments that have one."""
        skin = jitter(rng, SKIN[rng.integers(len(SKIN))], 10)
        lips = (int(skin[0] * 0.78), int(skin[1] * 0.55), int(skin[2] * 0.55))
        dark = (int(skin[0] * 0.9), int(skin[1] * 0.84), int(skin[2] * 0.82))
        plain = {"skin": skin, "nose": dark, "mouth": lips, "eye": (30, 26, 26), "hat": cloth_colour(rng),
                 "hair": jitter(rng, _HAIR[rng.integers(len(_HAIR))], 8), "shoe": cloth_colour(rng)}  # fmt: skip
        colours = {name: (colour, colour) for name, colour in plain.items()}
        patterns: dict[str, str] = {}
        for garment, share in (("top", 0.6), ("bottom", 0.3)):
            colours[garment] = (cloth_colour(rng), cloth_colour(rng))
            if rng.random() < share:
                patterns[garment] = str(rng.choice(PATTERNS[:-1]))
        return colours, patterns


def _project(points: Floats) -> Floats:
    near = 1 / (1 - np.float32(0.22) * points[:, 2])
    return np.stack([points[:, 0] * near, -points[:, 1] * near], 1).astype(np.float32)
