"""The solids that a body is made of, each as convex pieces that are ready for projection."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preprocess.drawing.paint import Floats

_CIRCLE: Floats = np.stack([f(np.arange(14) * (2 * np.pi / 14)) for f in (np.cos, np.sin)], 1).astype(np.float32)
_RING: Floats = np.stack([_CIRCLE[:, 0], 0 * _CIRCLE[:, 0], _CIRCLE[:, 1]], 1)
_DISC: Floats = np.stack([_CIRCLE[:, 0], _CIRCLE[:, 1], 0 * _CIRCLE[:, 0]], 1)
# Seven latitudes of a unit sphere: the hull of its projection is an ellipsoid's outline to within a percent.
_SPHERE: Floats = np.concatenate(
    [_RING * np.cos(a) + np.array([0, np.sin(a), 0], np.float32) for a in np.radians((-75, -50, -25, 0, 25, 50, 75))]
).astype(np.float32)


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
    """Consecutive elliptical rings (centre, frame, half width, half depth), filled pair by pair."""
    cuts = [(c, (_RING * np.array([w, 1, d], np.float32)) @ frame.T) for c, frame, w, d in rings]
    pairs = list(itertools.pairwise(cuts))
    return Solid(
        name=name,
        depth=float(np.mean([c[2] for c, _ in cuts])) + bias,
        centres=[np.repeat(np.stack([c0, c1]), len(_RING), axis=0) for (c0, _), (c1, _) in pairs],
        offsets=[np.concatenate([o0, o1]) for (_, o0), (_, o1) in pairs],
    )
