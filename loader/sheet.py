"""Contact sheets of what the network is given: a batch, or the same samples at each augmentation level."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch

from cache.arrays import U8
from cache.choices import Level
from cache.messages import UserError, message
from loader.batch import Batch, LoaderConfig
from loader.loader import open_loader

PERSON = (255, 0, 140)
"""RGB of the tint and the outline of a person: a colour that grass, sea, sky and skin have not."""

PERSON_TINT = 0.38
IGNORE_GRAY = (150, 58)  # of the two stripes of the hatching
IGNORE_COVER = 0.65  # how much of the picture they hide
STRIPE = 6  # width of one, pixels of the sheet
GAP = 6  # pixels between pictures, and around them
BACKGROUND = 245
LABEL_HEIGHT = 18
ROWS: tuple[tuple[Level, int], ...] = (("none", 0), ("light", 0), ("light", 1), ("heavy", 0), ("heavy", 1))
"""Level and epoch of each row of a gallery: another epoch draws other parameters."""

WIDEST = 1600  # pixels; pictures are shrunk until the sheet is not wider


def contact_sheet(batch: Batch, columns: int | None = None, names: Sequence[str] | None = None) -> U8:
    """The samples of a batch side by side: persons tinted and outlined, ignored pixels hatched gray, numbers below.

    The sheet is `(H, W, 3)` uint8 RGB. Pictures have the batch's side, or less where it would be wider than `WIDEST`.

    Args:
        batch: samples that only fill it up are left out.
        columns: pictures in a row; by default those that leave the fewest places empty, in a sheet that is square or up
            to twice as wide.
        names: what is written below each picture, before the share of person pixels; by default its sample number.
    """
    count, side = batch.valid, int(batch.image.shape[-1])
    if count < 1:
        raise UserError("the batch has no sample that counts; a contact sheet needs at least 1")
    root = math.sqrt(count)
    most = min(count, math.ceil(2 * root))
    columns = columns or min(range(math.ceil(root), most + 1), key=lambda columns: -count % columns)
    tile = max(1, min(side, (WIDEST - GAP) // columns - GAP))

    image_NHW3 = batch.image[:count].permute(0, 2, 3, 1).cpu().numpy()
    person_NHW = batch.person[:count, 0].cpu().numpy()
    ignore_NHW = batch.ignore[:count, 0].cpu().numpy()
    rows, pitch = math.ceil(count / columns), tile + LABEL_HEIGHT + GAP
    sheet = np.full((GAP + rows * pitch, GAP + columns * (tile + GAP), 3), BACKGROUND, np.uint8)
    for number in range(count):
        row, column = divmod(number, columns)
        y, x = GAP + row * pitch, GAP + column * (tile + GAP)
        drawn = draw_sample(image_NHW3[number], person_NHW[number], ignore_NHW[number], tile)
        sheet[y : y + tile, x : x + tile] = drawn
        share = 100 * float(person_NHW[number].mean())
        name = f"#{batch.samples[number]}" if names is None else names[number]
        _label(sheet[y + tile : y + tile + LABEL_HEIGHT, x : x + tile], f"{name}  {share:.0f}%")
    return sheet


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
    cv2.putText(strip, text, (2, LABEL_HEIGHT - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (70, 70, 70), 1, cv2.LINE_AA)


def augmentation_gallery(config: LoaderConfig) -> U8:
    """The first `config.batch_size` samples of the cache's order, a column each, at every level.

    `(H, W, 3)` uint8 RGB. Raises `CacheError` as `open_loader`.
    """
    rows = [_row(config, level, epoch) for level, epoch in ROWS]
    image, person, ignore = (torch.cat([getattr(row, name) for row in rows]) for name in ("image", "person", "ignore"))
    samples = np.concatenate([row.samples for row in rows])
    sheet = Batch(image, person, ignore, samples, valid=len(samples), epoch=0)
    names = [
        message("{level}, epoch {epoch}", level=level, epoch=epoch)
        for level, epoch in ROWS
        for _ in range(config.batch_size)
    ]
    return contact_sheet(sheet, columns=config.batch_size, names=names)


def _row(config: LoaderConfig, level: Level, epoch: int) -> Batch:
    config = dataclasses.replace(config, augment=level, shuffle=False, drop_last=True)
    with open_loader(config) as loader:
        loader.load_state_dict({"epoch": epoch, "consumed": 0})
        batch = next(iter(loader))
        # Copies: a batch is the loader's, and gone with it.
        tensors = {name: getattr(batch, name).cpu().clone() for name in ("image", "person", "ignore")}
        return dataclasses.replace(batch, **tensors)
