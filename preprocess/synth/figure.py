"""A procedural person: a posed and dressed body, projected to outlines and ready to paint at any size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from preprocess.synth.painting import HAIR, PATTERNS, SKIN, Colour, Floats, cloth_colour, jitter

KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip

# Degrees, each drawn uniformly: lean of the torso, then arm A and arm B (forward, outward, inward twist, elbow),
# then leg A and leg B (forward, outward, knee). A and B become left and right by the toss of a coin.
_HANG: tuple[tuple[float, float], ...] = ((-14, 20), (4, 16), (-10, 40), (5, 40))
_UPRIGHT: tuple[tuple[float, float], ...] = ((-7, 9), (1, 8), (0, 10))
_POSES: dict[str, tuple[tuple[float, float], ...]] = {
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
    `parts` holds the names of the parts, "material:limb"; `bounds` is (x0, y0, x1, y1).
    """

    pose: str
    points: Floats
    strokes: tuple[tuple[int, int, int, float], ...]
    parts: tuple[str, ...]
    colours: dict[str, tuple[Colour, Colour]]
    patterns: dict[str, str]
    keypoints: Floats
    bounds: tuple[float, float, float, float]


def pose_figure(rng: np.random.Generator, pose: str | None = None) -> Figure:
    """Draw a person: build, pose, view and clothes. `pose` is one of the poses' names, or None for a random one.

    The projection is a weak perspective: near parts are up to a tenth larger. Parts are painted from far to near.
    """
    body = Body(rng, pose)
    parts = sorted(body.solids, key=lambda part: part.depth)
    pieces: list[Floats] = []
    offsets: list[Floats] = []
    tags: list[tuple[int, float]] = []
    for number, part in enumerate(parts):
        light = min(1.1, max(0.78, 1 + 0.9 * part.depth))
        pieces += part.centres * 2
        offsets += part.offsets * 2
        tags += [(number, 128 * light)] * len(part.centres) + [(-1, 205 * light)] * len(part.centres)
    lengths = [len(piece) for piece in pieces]
    starts = np.cumsum([0, *lengths[:-1]])
    offset = np.concatenate(offsets)
    reach = np.maximum.reduceat(np.abs(offset).max(1), starts)
    lit = np.array([number < 0 for number, _ in tags])
    shift = body.light * (reach * lit)[:, None].astype(np.float32)
    scale = np.where(lit, np.float32(0.62), np.float32(1))[:, None]
    points = np.concatenate(pieces) + offset * np.repeat(scale, lengths, axis=0) + np.repeat(shift, lengths, axis=0)
    projected = np.split(_project(points), starts[1:])
    hulls = [cv2.convexHull(piece)[:, 0] for piece in projected]
    stops = np.cumsum([len(hull) for hull in hulls]).tolist()
    strokes = tuple((stop - len(hull), stop, *tag) for stop, hull, tag in zip(stops, hulls, tags, strict=True))
    corners = np.concatenate(hulls).astype(np.float32)
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    joints = np.stack([body.joints[name] for name in KEYPOINTS])
    colours, patterns = draw_colours(rng)
    return Figure(
        pose=body.pose,
        points=corners,
        strokes=strokes,
        parts=tuple(part.name for part in parts),
        colours=colours,
        patterns=patterns,
        keypoints=_project(joints),
        bounds=(float(x0), float(y0), float(x1), float(y1)),
    )


def _project(points: Floats) -> Floats:
    """Points (n, 3) along the viewer's axes as (n, 2), y down; what is near looks larger."""
    near = 1 / (1 - np.float32(0.22) * points[:, 2])
    return np.stack([points[:, 0] * near, -points[:, 1] * near], 1).astype(np.float32)


def turn(axis: int, degrees: float) -> Floats:
    """Rotation matrix (3, 3) about axis 0 (x, to the viewer's right), 1 (y, up) or 2 (z, towards the viewer)."""
    return np.asarray(cv2.Rodrigues(math.radians(degrees) * np.eye(3)[axis])[0], np.float32)


def vector(x: float, y: float, z: float) -> Floats:
    """A point or direction (3,) float32."""
    return np.array([x, y, z], np.float32)


@dataclass(frozen=True, kw_only=True)
class Solid:
    """One part of a body, named "material:limb". Each of its pieces is the convex hull of `centres` + `offsets`.

    Both are lists of (n, 3) in body units along the viewer's axes. Centre and offset stand apart because the lit area
    of a piece has the same centre and smaller offsets. The larger `depth`, the later it is painted.
    """

    name: str
    depth: float
    centres: list[Floats]
    offsets: list[Floats]


def capsule(name: str, start: Floats, end: Floats, radii: tuple[float, float], bias: float = 0.0) -> Solid:
    """A tapered limb between two joints; its depth is their mean, plus `bias`."""
    offsets = np.concatenate([_DISC * radii[0], _DISC * radii[1]])
    centres = np.repeat(np.stack([start, end]), len(_DISC), axis=0)
    depth = float(start[2] + end[2]) / 2 + bias
    return Solid(name=name, depth=depth, centres=[centres], offsets=[offsets])


def ellipsoid(name: str, centre: Floats, frame: Floats, radii: tuple[float, float, float], bias: float = 0.0) -> Solid:
    """An ellipsoid with its axes along the columns of `frame` (3, 3)."""
    offsets = (_SPHERE * np.array(radii, np.float32)) @ frame.T
    centres = np.broadcast_to(centre, offsets.shape)
    return Solid(name=name, depth=float(centre[2]) + bias, centres=[centres], offsets=[offsets])


def tube(name: str, rings: Sequence[tuple[Floats, Floats, float, float]], bias: float) -> Solid:
    """A solid through elliptical rings (centre, frame, half width, half depth), convex between two neighbours."""
    cuts = [(c, (_RING * np.array([w, 1, d], np.float32)) @ frame.T) for c, frame, w, d in rings]
    pairs = list(itertools.pairwise(cuts))
    return Solid(
        name=name,
        depth=float(np.mean([c[2] for c, _ in cuts])) + bias,
        centres=[np.repeat(np.stack([c0, c1]), len(_RING), axis=0) for (c0, _), (c1, _) in pairs],
        offsets=[np.concatenate([o0, o1]) for (_, o0), (_, o1) in pairs],
    )


class Body:
    """A person of random build and clothes, in a pose.

    Body axes are right-handed: x to the person's left, y up, z to the front; the viewer's are x to the right, y up, z
    towards the viewer.

    Attributes:
        arms, legs: angles in degrees of the left and the right arm (forward, outward, inward twist, elbow) and leg
            (forward, outward, knee).
        pelvis, torso, head: rotations (3, 3) from body axes to the viewer's.
        solids: its parts, in the order in which they were put on; `depth` tells which hides which.
        joints: each of COCO's keypoints (3,), in body units along the viewer's axes.
        facing: cosine of the angle between the face and the viewer.
        light: (3,) offset of the lit area of a part from its centre, in shares of its half width.
    """

    def __init__(self, rng: np.random.Generator, pose: str | None) -> None:
        self.rng = rng
        self._draw_pose(pose)
        self.girth = rng.uniform(0.85, 1.3)
        self.shoulder, self.hip = rng.uniform(0.104, 0.128), rng.uniform(0.050, 0.066)
        self.child = rng.uniform(1.2, 1.5) if rng.random() < 0.15 else rng.uniform(0.96, 1.12)
        light = rng.uniform(-1, 1, 2)
        self.light = vector(0.3 * light[0], 0.25 + 0.1 * light[1], 0)
        self.solids: list[Solid] = []
        self.joints: dict[str, Floats] = {}
        self.skirt, self.shorts = rng.random() < 0.2, rng.random() < 0.25
        # Length of the sleeves: 0 leaves the arm bare, 1 covers the upper arm, 2 all of it.
        self.sleeve = rng.choice([0.0, 0.55, 1.0, 2.0], p=[0.15, 0.35, 0.05, 0.45])
        self._trunk()
        for index, (label, side) in enumerate((("left", 1), ("right", -1))):
            self._leg(label, side, self.legs[index], self.girth)
            self._arm(label, side, self.arms[index], self.girth)
        self._skull()

    def _draw_pose(self, name: str | None) -> None:
        """Draw the angles of the limbs, and how the view, the trunk and the head are turned."""
        rng = self.rng
        self.pose = name or str(rng.choice(_POSE_NAMES, p=_POSE_WEIGHTS / _POSE_WEIGHTS.sum()))
        angles = [rng.uniform(low, high) for low, high in _POSES[self.pose]]
        lean, self.arms, self.legs = angles[0], [angles[1:5], angles[5:9]], [angles[9:12], angles[12:15]]
        if rng.random() < 0.5:
            self.arms.reverse()
            self.legs.reverse()
        # Mostly towards the camera, a good share from the side, some from behind.
        yaw = rng.choice(
            [rng.normal(0, 28), rng.choice([-1, 1]) * rng.normal(80, 22), rng.normal(180, 35)], p=[0.5, 0.32, 0.18]
        )
        spin = rng.choice([rng.normal(0, 4), rng.choice([-1, 1]) * rng.uniform(60, 110)], p=[0.985, 0.015])
        view = turn(2, spin) @ turn(0, rng.uniform(-4, 14)) @ turn(1, yaw)
        self.pelvis = view @ turn(0, 0.12 * lean)
        self.torso = self.pelvis @ turn(0, 0.88 * lean) @ turn(2, rng.normal(0, 4)) @ turn(1, rng.normal(0, 8))
        sideways, nod, tilt = rng.normal(0, 22), rng.normal(0, 9) - 0.5 * max(lean, 0), rng.normal(0, 5)
        self.head = self.torso @ turn(1, sideways) @ turn(0, nod) @ turn(2, tilt)

    def _trunk(self) -> None:
        add, g, s, t, p = self.solids.append, self.girth, self.shoulder, self.torso, self.pelvis
        up = t @ vector(0, 1, 0)
        zero = vector(0, 0, 0)
        belt = (0.045 * up, t, 0.088 * g, 0.070 * g)
        hips = [(p @ vector(0, -0.045, 0), p, 0.072 * g, 0.06 * g), (zero, p, 0.092 * g, 0.076 * g), belt]
        add(tube("bottom:hips", hips, 0.004))
        heights = ((0.03, 0.090, 0.072), (0.12, 0.080, 0.066), (0.21, 0.78 * s / g + 0.012, 0.076),
                   (0.275, 0.95 * s / g, 0.064), (0.305, 0.80 * s / g, 0.052), (0.325, 0.042, 0.042))  # fmt: skip
        add(tube("top:torso", [(np.multiply(h, up), t, w * g, d * g) for h, w, d in heights], 0.006))
        if self.skirt:
            hem = self.rng.uniform(0.14, 0.42)
            knees = [self._hip_joint(side) + hem * self._thigh(side)[0] for side in (1, -1)]
            across = (self._thigh(1)[1] + self._thigh(-1)[1]) / 2  # the thighs, also when they are raised
            rings = [
                belt,
                (zero, p, 0.096 * g, 0.08 * g),
                (0.55 * (knees[0] + knees[1]) / 2, (p + across) / 2, 0.132 * g, 0.095 * g),
            ]
            spread = 0.5 * float(np.linalg.norm(knees[0] - knees[1])) + 0.06
            rings.append(((knees[0] + knees[1]) / 2, across, spread * g, 0.09 * g))
            add(tube("bottom:skirt", rings, 0.068))
        base = 0.30 * up
        self.neck = base + self.head @ vector(0, 0.065, 0.008)
        add(capsule("skin:neck", base, self.neck, (0.034 * g, 0.031 * g), 0.012))

    def _hip_joint(self, side: int) -> Floats:
        return np.asarray(self.pelvis @ vector(side * self.hip * self.girth, -0.01, 0), np.float32)

    def _thigh(self, side: int) -> tuple[Floats, Floats]:
        """Direction of the thigh (3,) and its frame (3, 3)."""
        forward, outward, _ = self.legs[0 if side == 1 else 1]
        frame = self.pelvis @ turn(2, side * outward) @ turn(0, -forward)
        return frame @ vector(0, -1, 0), frame

    def _leg(self, label: str, side: int, angles: Sequence[float], g: float) -> None:
        add = self.solids.append
        hip, (direction, frame) = self._hip_joint(side), self._thigh(side)
        length = 0.245 / self.child**0.3
        knee = hip + length * direction
        shin = frame @ turn(0, angles[2])
        ankle = knee + length * (shin @ vector(0, -1, 0))
        upper = "skin" if self.skirt and not self.shorts else "bottom"
        lower = "skin" if self.skirt or self.shorts else "bottom"
        loose = 1.12 if lower == "bottom" else 1.0
        add(capsule(f"{upper}:thigh_{label}", hip, knee, (0.066 * g, 0.046 * g)))
        calf = knee + 0.3 * (ankle - knee) - 0.008 * (shin @ vector(0, 0, 1))
        add(capsule(f"{lower}:shin_{label}", calf, ankle, (0.043 * g * loose, 0.026 * g * loose), -0.004))
        add(capsule(f"{lower}:shin_{label}", knee, calf, (0.044 * g, 0.043 * g * loose), -0.003))
        foot = shin @ turn(0, 8)
        heel, toe = ankle + foot @ vector(0, -0.02, -0.012), ankle + foot @ vector(0, -0.034, 0.088)
        add(capsule(f"shoe:foot_{label}", heel, toe, (0.031, 0.023), 0.006))
        self.joints |= {f"{label}_hip": hip, f"{label}_knee": knee, f"{label}_ankle": ankle}

    def _arm(self, label: str, side: int, angles: Sequence[float], g: float) -> None:
        add = self.solids.append
        forward, outward, twist, bend = angles
        shoulder = self.torso @ vector(side * self.shoulder, 0.275, 0)
        frame = self.torso @ turn(2, side * outward) @ turn(0, -forward)
        length = 0.172 / self.child**0.3
        elbow = shoulder + length * (frame @ vector(0, -1, 0))
        lower = frame @ turn(1, -side * twist) @ turn(0, -bend)
        wrist = elbow + 0.9 * length * (lower @ vector(0, -1, 0))
        # Seen from the front an arm hangs beside the trunk, not in it, so it is painted later unless it is behind.
        bias = 0.075 if (shoulder[2] + wrist[2]) / 2 > -0.055 else 0.0
        sleeve = self.sleeve
        upper, fore = "skin" if sleeve < 1 else "top", "top" if sleeve > 1 else "skin"
        add(capsule(f"{upper}:upper_{label}", shoulder, elbow, (0.040 * g, 0.032 * g), bias))
        if 0 < sleeve < 1:
            hem = shoulder + sleeve * (elbow - shoulder)
            add(capsule(f"top:upper_{label}", shoulder, hem, (0.045 * g, 0.043 * g), bias + 0.001))
        add(capsule(f"{fore}:fore_{label}", elbow, wrist, (0.032 * g, 0.022 * g), bias + 0.012))
        hand = lower @ vector(0, -0.038, 0)
        add(ellipsoid(f"skin:hand_{label}", wrist + hand, lower, (0.020, 0.044, 0.026), bias + 0.010))
        self.joints |= {f"{label}_shoulder": shoulder, f"{label}_elbow": elbow, f"{label}_wrist": wrist}

    def _skull(self) -> None:
        add, rng, c, frame = self.solids.append, self.rng, self.child, self.head
        centre = self.neck + frame @ vector(0, 0.052 * c, 0.006)

        def at(x: float, y: float, z: float) -> Floats:
            return np.asarray(centre + c * (frame @ vector(x, y, z)), np.float32)

        add(ellipsoid("skin:head", at(0, 0, 0), frame, (0.054 * c, 0.074 * c, 0.064 * c), 0.03))
        style = rng.choice(["bald", "short", "long", "bun", "hat"], p=[0.06, 0.42, 0.26, 0.1, 0.16])
        if style != "bald":
            add(ellipsoid("hair:hair", at(0, 0.018, -0.016), frame, (0.060 * c, 0.068 * c, 0.062 * c), 0.03))
            add(ellipsoid("hair:hair", at(0, 0.052, 0.010), frame, (0.054 * c, 0.030 * c, 0.056 * c), 0.045))
        if style == "long":
            drop = rng.uniform(0.06, 0.15)
            radii = (0.060 * c, 0.05 * c + drop / 2, 0.036 * c)
            add(ellipsoid("hair:hair", at(0, -drop / 2, -0.036), frame, radii, 0.03))
        if style == "bun":
            add(ellipsoid("hair:hair", at(0, 0.078, -0.03), frame, (0.028 * c, 0.026 * c, 0.028 * c), 0.03))
        if style == "hat":
            add(ellipsoid("hat:hair", at(0, 0.055, -0.004), frame, (0.063 * c, 0.042 * c, 0.068 * c), 0.05))
            add(ellipsoid("hat:hair", at(0, 0.040, 0.022), frame, (0.066 * c, 0.008 * c, 0.082 * c), 0.052))
        face = {"nose": (0.0, -0.010, 0.068), "left_eye": (0.022, 0.010, 0.056), "right_eye": (-0.022, 0.010, 0.056),
                "left_ear": (0.054, 0.0, -0.004), "right_ear": (-0.054, 0.0, -0.004)}  # fmt: skip
        self.joints |= {name: at(*place) for name, place in face.items()}
        self.facing = float(frame[2, 2])
        for name, place in face.items():
            if name.endswith("ear"):
                add(ellipsoid("skin:face", at(*place), frame, (0.009 * c, 0.018 * c, 0.013 * c), 0.034))
            elif self.facing > 0.1:
                material = "nose" if name == "nose" else "eye"
                x, y, z = (0.008, 0.016, 0.012) if name == "nose" else (0.009, 0.006, 0.006)
                add(ellipsoid(f"{material}:face", at(*place), frame, (x * c, y * c, z * c), 0.036))
        if self.facing > 0.1:
            add(ellipsoid("mouth:face", at(0, -0.040, 0.056), frame, (0.018 * c, 0.005 * c, 0.008 * c), 0.036))


def draw_colours(rng: np.random.Generator) -> tuple[dict[str, tuple[Colour, Colour]], dict[str, str]]:
    """Draw two colours per material, and the patterns that mix them on some garments."""
    skin = jitter(rng, SKIN[rng.integers(len(SKIN))], 10)
    lips = (int(skin[0] * 0.78), int(skin[1] * 0.55), int(skin[2] * 0.55))
    dark = (int(skin[0] * 0.9), int(skin[1] * 0.84), int(skin[2] * 0.82))
    plain = {"skin": skin, "nose": dark, "mouth": lips, "eye": (30, 26, 26), "hat": cloth_colour(rng),
             "hair": jitter(rng, HAIR[rng.integers(len(HAIR))], 8), "shoe": cloth_colour(rng)}  # fmt: skip
    colours = {name: (colour, colour) for name, colour in plain.items()}
    patterns: dict[str, str] = {}
    for garment, share in (("top", 0.6), ("bottom", 0.3)):
        colours[garment] = (cloth_colour(rng), cloth_colour(rng))
        if rng.random() < share:
            patterns[garment] = str(rng.choice(PATTERNS[:-1]))
    return colours, patterns
