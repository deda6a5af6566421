"""Colours of skin, hair and cloth, as (red, green, blue) of 0 to 255."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np

Colour: TypeAlias = tuple[int, int, int]

SKIN: tuple[Colour, ...] = (
    (250, 220, 196), (240, 200, 168), (226, 180, 143), (205, 155, 115),
    (176, 124, 86), (141, 96, 64), (104, 68, 46), (74, 50, 38),
)  # fmt: skip
HAIR: tuple[Colour, ...] = (
    (28, 24, 22), (52, 36, 26), (84, 54, 34), (128, 86, 48), (190, 152, 92), (226, 202, 150), (150, 148, 146),
    (212, 210, 206), (140, 58, 30),
)  # fmt: skip


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


def towards(colour: Colour, share: float, goal: Colour = (240, 240, 240)) -> Colour:
    """`colour` moved towards `goal` by `share` (0 to 1) of the way; without a goal towards a bright grey."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(colour, goal, strict=True))
    return red, green, blue
