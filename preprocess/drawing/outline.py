"""Masks as COCO writes them: polygons along their outlines, or run lengths."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def trace(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Polygons [x0, y0, x1, y1, ...] around a mask (H, W), along the edges of its pixels; pixel i spans [i, i + 1).

    A hole is joined to its outline by a slit of no width, which COCO's even-odd filling cancels. Specks of fewer than
    three pixels are left out.
    """
    # Contours run through pixel centres. Doubling the mask and rounding odd coordinates up puts them on pixel edges.
    double = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, hierarchy = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons: list[list[float]] = []
    for number, contour in enumerate(contours):
        if hierarchy[0][number][3] >= 0:
            continue
        outline = _simplify(contour)
        if outline is None:
            continue
        hole = hierarchy[0][number][2]
        while hole >= 0:
            inner = _simplify(contours[hole], hole=True)
            if inner is not None:
                outline = _join(outline, inner)
            hole = hierarchy[0][hole][0]
        polygons.append([float(value) for value in outline.ravel()])
    return polygons


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed RLE of a mask (H, W): run lengths in column order, zeros first."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    if edges.size and edges[-1] == mask.size:
        edges = edges[:-1]
    return [int(run) for run in np.diff(np.concatenate([[0], edges, [mask.size]]))]


def _simplify(contour: NDArray[Any], *, hole: bool = False) -> NDArray[np.float64] | None:
    """Corners (n, 2) of a contour of the doubled mask, in pixel edges; None for less than three pixels."""
    # A hole's contour runs through the pixels around it, which are the mask's own: its edge is half a pixel inwards.
    points = contour[:, 0, :]
    if hole:
        x0, y0, w, h = cv2.boundingRect(contour)
        canvas = np.zeros((h, w), np.uint8)
        cv2.drawContours(canvas, [contour - np.array([x0, y0])], -1, 1, cv2.FILLED)
        cv2.drawContours(canvas, [contour - np.array([x0, y0])], -1, 0, 1)
        inside, _ = cv2.findContours(canvas, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if not inside:
            return None
        points = max(inside, key=len)[:, 0, :] + np.array([x0, y0])
    edges = (points + 1) // 2
    area = abs(cv2.contourArea(edges.astype(np.int32)))
    if area < 3:
        return None
    # Small shapes keep every step of their outline; large ones may move by half a pixel.
    corners = cv2.approxPolyDP(edges.astype(np.int32), 0.3 if area < 1500 else 0.75, True)[:, 0, :]
    return corners.astype(np.float64) if len(corners) >= 3 else None


def _join(outline: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """One polygon of an outline and a hole, by a slit where the two are nearest."""
    distance = ((outline[:, None] - inner[None]) ** 2).sum(-1)
    i, j = np.unravel_index(int(distance.argmin()), distance.shape)
    return np.concatenate([outline[: i + 1], inner[j:], inner[: j + 1], outline[i:]])
