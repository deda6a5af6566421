"""A procedural person: a posed and dressed body, projected to outlines and ready to paint at any size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.drawing.body import Body
from preprocess.drawing.clothing import draw_colours
from preprocess.drawing.colour import Colour
from preprocess.drawing.paint import Floats
from preprocess.drawing.pose import draw_pose

KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip


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


def pose_figure(rng: np.random.Generator, pose: str | None = None) -> Figure:
    """Draw a person: build, pose, view and clothes. `pose` is one of the poses' names, or None for a random one.

    The projection is a weak perspective: the near is up to a tenth larger. The parts are painted from far to near.
    """
    drawn = draw_pose(rng, pose)
    body = Body(rng, drawn)
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
        pose=drawn.name,
        points=corners,
        strokes=strokes,
        parts=tuple(part.name for part in parts),
        colours=colours,
        patterns=patterns,
        keypoints=_project(joints),
        hidden=_turned_away(body, joints),
        bounds=(float(x0), float(y0), float(x1), float(y1)),
    )


def _turned_away(body: Body, joints: Floats) -> NDArray[np.bool_]:
    """Which keypoints (17,) are behind the head or the trunk: of the face, the shoulders and the hips."""
    hidden: NDArray[np.bool_] = np.zeros(17, np.bool_)
    hidden[:3] = body.facing < 0.1
    centre = body.joints["left_ear"] / 2 + body.joints["right_ear"] / 2
    hidden[1:5] |= joints[1:5, 2] < centre[2] - 0.012
    trunk = [5, 6, 11, 12]
    hidden[trunk] = joints[trunk, 2] < np.repeat((joints[[5, 11], 2] + joints[[6, 12], 2]) / 2, 2) - 0.05
    return hidden


def _project(points: Floats) -> Floats:
    """Points (n, 3) along the viewer's axes as (n, 2), y down; what is near looks larger."""
    near = 1 / (1 - np.float32(0.22) * points[:, 2])
    return np.stack([points[:, 0] * near, -points[:, 1] * near], 1).astype(np.float32)
