"""Painting on uint8 images: blending, shading, and layers with soft edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.drawing.colour import Colour

Floats: TypeAlias = NDArray[np.floating[Any]]
Bytes: TypeAlias = NDArray[np.uint8]


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
