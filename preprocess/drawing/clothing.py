"""What a person wears: the cut of the garments, and their colours and patterns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.drawing.colour import HAIR, SKIN, Colour, cloth_colour, jitter
from preprocess.drawing.texture import PATTERNS


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Which limbs are covered. `sleeve`: 0 leaves the arm bare, 1 covers the upper arm, 2 all of it."""

    skirt: bool
    shorts: bool
    sleeve: float


def draw_cut(rng: np.random.Generator) -> Cut:
    """Draw the cut of one person's garments."""
    skirt, shorts = rng.random() < 0.2, rng.random() < 0.25
    sleeve = rng.choice([0.0, 0.55, 1.0, 2.0], p=[0.15, 0.35, 0.05, 0.45])
    return Cut(skirt=skirt, shorts=shorts, sleeve=sleeve)


def draw_colours(rng: np.random.Generator) -> tuple[dict[str, tuple[Colour, Colour]], dict[str, str]]:
    """Two colours a material, and the pattern that mixes them on the garments that have one."""
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
