"""A contact sheet: what the network is given, at a glance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from loader.batch import Batch

U8 = npt.NDArray[np.uint8]

PERSON = (255, 0, 140)
"""RGB of the tint and the outline of a person: a colour that grass, sea, sky and skin have not."""

PERSON_TINT = 0.38
IGNORE_GRAY = (150, 58)
"""Gray of the two stripes of the hatching, and how much of the picture they hide."""

IGNORE_COVER = 0.65
STRIPE = 6
"""Width of a stripe, pixels of the sheet."""

GAP = 6
"""Pixels between pictures, and around them."""

BACKGROUND = 245
LABEL_HEIGHT = 18
WIDEST = 1600
"""Pixels; when nothing else is asked for, pictures are shrunk until the sheet is not wider."""


def contact_sheet(
    batch: Batch, columns: int | None = None, scale: float | None = None, names: Sequence[str] | None = None
) -> U8:
    """The samples of a batch side by side: persons tinted and outlined, ignored pixels hatched gray, numbers below.

    Args:
        batch: samples that only fill it up are left out.
        columns: pictures in a row; by default those that leave the fewest places empty.
        scale: size of a picture relative to the batch's side; by default 1, or less for a sheet of `WIDEST` pixels.
        names: what is written below each picture, before the share of person pixels; by default its sample number.

    Returns:
        `(H, W, 3)` uint8 RGB.

    Raises:
        ValueError: `columns` or `scale` is not positive, or the batch has no sample that counts.
    """
    count, side = batch.valid, int(batch.image.shape[-1])
    if count < 1:
        raise ValueError("the batch has no sample that counts; a contact sheet needs at least 1")
    columns = _fullest(count) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns={columns} is below 1")
    if scale is not None and scale <= 0:
        raise ValueError(f"scale={scale} is not above 0; 1 shows the batch at its own size")
    tile = max(1, min(side, (WIDEST - GAP) // columns - GAP) if scale is None else round(side * scale))

    image_NHW3 = batch.image[:count].permute(0, 2, 3, 1).cpu().numpy()
    person_NHW = batch.person[:count, 0].cpu().numpy()
    ignore_NHW = batch.ignore[:count, 0].cpu().numpy()
    rows = math.ceil(count / columns)
    pitch = tile + LABEL_HEIGHT + GAP
    sheet = np.full((GAP + rows * pitch, GAP + columns * (tile + GAP), 3), BACKGROUND, np.uint8)
    for number in range(count):
        row, column = divmod(number, columns)
        y, x = GAP + row * pitch, GAP + column * (tile + GAP)
        sheet[y : y + tile, x : x + tile] = draw_sample(
            image_NHW3[number], person_NHW[number], ignore_NHW[number], tile
        )
        share = 100 * float(person_NHW[number].mean())
        name = f"#{batch.samples[number]}" if names is None else names[number]
        _label(sheet[y + tile : y + tile + LABEL_HEIGHT, x : x + tile], f"{name}  {share:.0f}%")
    return sheet


def _fullest(count: int) -> int:
    """The number of columns, from a square sheet to one twice as wide, that leaves the fewest places empty."""
    root = math.sqrt(count)
    return min(range(math.ceil(root), min(count, math.ceil(2 * root)) + 1), key=lambda columns: -count % columns)


def draw_sample(image_HW3: U8, person_HW: U8, ignore_HW: U8, size: int) -> U8:
    """One sample with its planes (0 and 1) drawn over it, `(size, size, 3)`."""
    shrinks = size < image_HW3.shape[0]
    image = cv2.resize(image_HW3, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    person = cv2.resize(person_HW, (size, size), interpolation=cv2.INTER_NEAREST)
    ignore = cv2.resize(ignore_HW, (size, size), interpolation=cv2.INTER_NEAREST) > 0

    picture = image.astype(np.float32)
    inside = person > 0
    picture[inside] += PERSON_TINT * (np.array(PERSON, np.float32) - picture[inside])
    diagonal = np.add.outer(np.arange(size), np.arange(size)) // STRIPE % 2
    hatching = np.array(IGNORE_GRAY, np.float32)[diagonal][..., None]
    picture[ignore] += IGNORE_COVER * (np.broadcast_to(hatching, picture.shape)[ignore] - picture[ignore])
    drawn = np.ascontiguousarray(picture.round().astype(np.uint8))

    outlines, _ = cv2.findContours(person, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, outlines, -1, PERSON, max(1, round(size / 200)), cv2.LINE_AA)
    return drawn


def _label(strip: U8, text: str) -> None:
    """Write into a strip of the sheet, in place; what does not fit is cut off."""
    strip_copy = np.ascontiguousarray(strip)
    cv2.putText(strip_copy, text, (2, LABEL_HEIGHT - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (70, 70, 70), 1, cv2.LINE_AA)
    strip[:] = strip_copy
