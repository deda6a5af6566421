"""Poses: how the trunk is turned, and how the limbs are bent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from preprocess.drawing.paint import Floats

Range: TypeAlias = tuple[float, float]

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


@dataclass(frozen=True, kw_only=True)
class Pose:
    """One drawn pose. Body axes are right-handed: x to the person's left, y up, z to the front.

    `arms` holds the left and the right arm's angles (forward, outward, inward twist, elbow), `legs` each leg's
    (forward, outward, knee), all in degrees. `pelvis`, `torso` and `head` (3, 3) turn body axes to the viewer's:
    x to the right, y up, z towards the viewer.
    """

    name: str
    arms: tuple[Sequence[float], Sequence[float]]
    legs: tuple[Sequence[float], Sequence[float]]
    pelvis: Floats
    torso: Floats
    head: Floats


def draw_pose(rng: np.random.Generator, name: str | None = None) -> Pose:
    """Draw angles, view and the turns of trunk and head. `name` is a pose of the table, or None for a random one."""
    name = name or str(rng.choice(_POSE_NAMES, p=_POSE_WEIGHTS / _POSE_WEIGHTS.sum()))
    angles = [rng.uniform(low, high) for low, high in _POSES[name]]
    lean, arms, legs = angles[0], [angles[1:5], angles[5:9]], [angles[9:12], angles[12:15]]
    if rng.random() < 0.5:
        arms.reverse()
        legs.reverse()
    # Mostly towards the camera, a good share from the side, some from behind.
    yaw = rng.choice(
        [rng.normal(0, 28), rng.choice([-1, 1]) * rng.normal(80, 22), rng.normal(180, 35)], p=[0.5, 0.32, 0.18]
    )
    spin = rng.choice([rng.normal(0, 4), rng.choice([-1, 1]) * rng.uniform(60, 110)], p=[0.985, 0.015])
    view = turn(2, spin) @ turn(0, rng.uniform(-4, 14)) @ turn(1, yaw)
    pelvis = view @ turn(0, 0.12 * lean)
    torso = pelvis @ turn(0, 0.88 * lean) @ turn(2, rng.normal(0, 4)) @ turn(1, rng.normal(0, 8))
    head = (
        torso @ turn(1, rng.normal(0, 22)) @ turn(0, rng.normal(0, 9) - 0.5 * max(lean, 0)) @ turn(2, rng.normal(0, 5))
    )
    return Pose(
        name=name,
        arms=(arms[0], arms[1]),
        legs=(legs[0], legs[1]),
        pelvis=pelvis,
        torso=torso,
        head=head,
    )


def turn(axis: int, degrees: float) -> Floats:
    """Rotation matrix (3, 3) about axis 0 (x, to the viewer's right), 1 (y, up) or 2 (z, towards the viewer)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    if axis == 0:
        return np.array(((1, 0, 0), (0, cos, -sin), (0, sin, cos)), np.float32)
    if axis == 1:
        return np.array(((cos, 0, sin), (0, 1, 0), (-sin, 0, cos)), np.float32)
    return np.array(((cos, -sin, 0), (sin, cos, 0), (0, 0, 1)), np.float32)


def vector(x: float, y: float, z: float) -> Floats:
    """A point or direction (3,) float32."""
    return np.array([x, y, z], np.float32)
