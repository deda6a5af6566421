"""Find masks that are probably wrong: without a pixel, outside of their images, or of another size than the JSON says.

Exporters write fractions or percentages where COCO has pixels, and photos are resized after they were labelled. Such
masks are drawn as they stand: only where they lie, and their area, show the fault.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cache.arrays import F64, I64, U8, Flags
from cache.choices import Crowd, Orientation
from cache.kernel import kernel
from cache.messages import joined, message
from preprocess.annotations.table import PersonTable
from preprocess.raster import CROWD_IGNORE, POLYGON, fill_planes

KINDS = {
    "normalised": message("masks with coordinates from 0 to 1 instead of pixels"),
    "outside": message("masks more than half outside of their images"),
    "empty": message("masks without a pixel (a line, a point or an empty RLE)"),
    "other_area": message("masks with less than a quarter or more than four times the area in the JSON"),
}
"""What is doubtful of a mask, which has the first kind that applies. What lies inside is measured by the bounding box.
The area is that of the polygons, or of an RLE's foreground; masks that differ in it can be used all the same."""

_EXPORT = message("export them in pixels of the images as they are now")

_SPREAD = 1.05  # masks have one scale if the upper quartile of their scales is at most this many times the lower one
_LEAST_SCALE = 1.1  # scales nearer to 1, either way, are none: tools differ by that much in the area of a mask
_FEWEST = 5  # masks from which a scale is concluded
_MOST_CROWDS = 0.1  # of all annotations; 0.02 of those of persons in COCO are


class DoubtfulMasks(NamedTuple):
    """The masks of a table that are probably wrong."""

    total: int  # masks that were looked at; crowds are not, nor masks in images whose size in the JSON is not positive
    rows: dict[str, I64]  # of each of `KINDS`, the rows of its annotations in the table, ascending
    lines: tuple[str, ...]  # what is doubtful, with counts, and the first example of each kind
    error: str  # why most masks are useless, and what to do; empty if they are not


def doubtful_masks(table: PersonTable, orientation: Orientation = "auto", crowd: Crowd = "ignore") -> DoubtfulMasks:
    """Find the doubtful masks of a table. Whether a mask has a pixel is decided exactly as it is drawn.

    `orientation` and `crowd` are those of `CacheSpec`: masks of upright photos may have the sizes of the stored ones,
    and crowds are doubtful where they are many and are not taken as persons.
    """
    masks = _measure(table)
    total = len(masks.row)
    area = np.where(np.isfinite(masks.area), masks.area, 0)
    flags = {
        "normalised": masks.polygon & _within(masks, 1) & (masks.size > 2).all(1),
        "outside": _share_inside(masks) < 0.5,
        "empty": ~masks.filled,
        "other_area": (area > 0) & ((4 * masks.drawn < area) | (masks.drawn > 4 * area)),
    }
    kind = np.select(list(flags.values()), range(len(flags)), default=-1)
    numbers = {name: np.flatnonzero(kind == index) for index, name in enumerate(flags)}
    lines = {}
    for name, found in numbers.items():
        if len(found):
            lines[name] = _line(KINDS[name], table, masks, found, areas=name == "other_area")
    useless = [name for name in lines if name != "other_area"]
    far = numbers["outside"]
    if len(far) and _fit(masks.low[far], masks.high[far], masks.size[far, ::-1]):
        useless.remove("outside")
        if orientation == "upright":
            del lines["outside"]
        else:
            lines["turned"] = message(
                "if width and height of their images are exchanged, {count:,} masks lie inside that do not now; if "
                "they were drawn on photos that EXIF turns, use --orientation upright",
                count=len(far),
            )
    factor = _area_factor(masks)
    error = _scale_error(table, masks, factor)
    if not error and 2 * sum(len(numbers[name]) for name in useless) > total:
        faults = joined("; ", [lines[name] for name in useless])
        remedy = _remedy(masks, normalised=2 * len(numbers["normalised"]) > total)
        error = message("most masks cannot be used: {faults}; {remedy}", faults=faults, remedy=remedy)
    if not error and not math.isnan(factor):
        what = message("masks for which the JSON gives {ratio:.3g} times their area", ratio=factor**2)
        lines["scale"] = _line(what, table, masks, _alike(masks, factor), areas=True)
    crowds = int(table.iscrowd.sum())
    if crowd != "person" and crowds > _MOST_CROWDS * len(table.iscrowd):
        lines["crowds"] = message(
            "{count:,} of {total:,} annotations are crowds (iscrowd 1), which are no part of the mask; if each is one "
            "object, as in the masks that CVAT exports of its brush, use --crowd person",
            count=crowds,
            total=len(table.iscrowd),
        )
    rows = {name: masks.row[found] for name, found in numbers.items()}
    return DoubtfulMasks(total, rows, tuple(lines.values()), error)


class _Masks(NamedTuple):
    """Measures of N masks."""

    row: I64  # `(N,)` annotations in the table
    # size, low, high: `(N, 2)` x and y: size of the image, corners of the bounding box (0 of an empty RLE); pixels.
    size: F64
    low: F64
    high: F64
    # area, drawn: `(N,)` pixels; the JSON's area, and the sum of the polygons' or the foreground of an RLE.
    area: F64
    drawn: F64
    # polygon, filled: `(N,)` whether it consists of polygons; whether it has a pixel in the image.
    polygon: Flags
    filled: Flags


def _measure(table: PersonTable) -> _Masks:
    row = np.flatnonzero(table.iscrowd == 0)
    image = table.annotation_image[row]
    size = np.stack((table.width[image], table.height[image]), axis=1)
    low, high, drawn = np.empty((len(row), 2)), np.empty((len(row), 2)), np.empty(len(row))
    parts = table.kind, table.start, table.length, table.xy, table.counts
    _measure_masks(row, size, table.part_start, *parts, low, high, drawn)
    polygon = table.kind[table.part_start[row]] == POLYGON
    # What is thicker than a pixel, on average, and within its image has one; others are drawn to see.
    filled = (drawn > 2 * (high - low).max(1)) & ((low >= 0) & (high <= size)).all(1) | (~polygon & (drawn > 0))
    filled |= size.prod(1, dtype=np.float64) > 1 << 28  # more pixels than Pillow decodes: the photo is rejected
    for number in np.flatnonzero(~filled & polygon):
        person, ignore = np.empty((2, size[number, 1], size[number, 0]), np.uint8)
        first = row[number]
        fill_planes(first, first + 1, table.part_start, table.iscrowd, *parts, CROWD_IGNORE, person, ignore)
        filled[number] = person.any()
    return _Masks(row, size.astype(np.float64), low, high, table.area[row], drawn, polygon, filled)


def _within(masks: _Masks, limit: float) -> Flags:
    """`(N,)` whether all coordinates lie from 0 to `limit`."""
    return np.asarray(((masks.low >= 0) & (masks.high <= limit)).all(1))


def _share_inside(masks: _Masks) -> F64:
    """`(N,)` share of each bounding box that lies in the image; of a line its share, of a point 0 or 1."""
    inside = np.minimum(masks.high, masks.size) - np.maximum(masks.low, 0)
    extent = masks.high - masks.low
    share = np.divide(inside, extent, out=(inside >= 0).astype(np.float64), where=extent > 0)
    return np.asarray(share.clip(min=0).prod(1))


def _fit(low: F64, high: F64, size: F64) -> bool:
    """Whether 95 % of N bounding boxes lie in their images, or reach beyond by a little."""
    border = 1 + 0.02 * size
    return bool(((low >= -border) & (high <= size + border)).all(1).mean() >= 0.95)


def _common_factor(area: F64, drawn: F64) -> float:
    """The scale (of lengths) that turns areas `drawn` to `area`; NaN if most have no area, or scales of their own."""
    known = (area > 0) & np.isfinite(area) & (drawn > 0)
    if 2 * known.sum() <= len(known) or known.sum() < _FEWEST:
        return math.nan
    lower, median, upper = np.quantile(np.sqrt(area[known] / drawn[known]), (0.25, 0.5, 0.75)).tolist()
    return median if upper <= _SPREAD * lower else math.nan


def _area_factor(masks: _Masks) -> float:
    """The scale of the masks by the areas in the JSON; NaN if they give none, or are the areas of bounding boxes."""
    factor = _common_factor(masks.area, masks.drawn)
    boxes = (masks.high - masks.low).prod(1)
    of_boxes = 2 * (np.abs(masks.area - boxes) < (_SPREAD - 1) * boxes).sum() > len(boxes)
    return math.nan if of_boxes or 1 / _LEAST_SCALE <= factor <= _LEAST_SCALE else factor


def _scale_error(table: PersonTable, masks: _Masks, factor: float) -> str:
    """Why the masks are of the wrong scale, if the areas in the JSON show it; empty if they do not.

    It may be the areas that are out of date. So masks that have to shrink must reach out of their images, and masks
    that have to grow by a fifth or more must have the space, and be nearer to the middle afterwards.
    """
    percent = np.sqrt((masks.size / 100).prod(1))
    match = _common_factor(masks.area, masks.drawn * percent**2)
    if 1 / _SPREAD < match < _SPREAD and _within(masks, 100).all() and (masks.size > 100 * _LEAST_SCALE).all():
        alike = _alike(masks, match * percent)
        what = message("masks with coordinates in percent instead of pixels")
        remedy = message("multiply x by a hundredth of the image's width and y by a hundredth of its height")
    else:
        if factor < 1:
            likely = 2 * (masks.high > masks.size).any(1).sum() > len(masks.row)
        elif likely := factor > 1.2:  # false for NaN
            centre = np.median((masks.low + masks.high) / (2 * masks.size), axis=0)
            likely = np.abs(factor * centre - 0.5).sum() < np.abs(centre - 0.5).sum()
        if not likely or not _fit(factor * masks.low, factor * masks.high, masks.size):
            return ""
        alike = _alike(masks, factor)
        what = message("masks of another scale than the areas in the JSON")
        remedy = message("{export}, or multiply the segmentations by {factor:.3g}", export=_EXPORT, factor=factor)
    if 2 * len(alike) <= len(masks.row):
        return ""
    fault = _line(what, table, masks, alike, areas=True)
    return message("{fault}; {remedy}", fault=fault, remedy=remedy)


def _alike(masks: _Masks, factor: float | F64) -> I64:
    """The masks whose area in the JSON is about the one that they have if multiplied by a factor, in length."""
    area = masks.drawn * factor**2
    return np.flatnonzero(np.abs(masks.area - area) <= (_SPREAD**2 - 1) * area)


def _remedy(masks: _Masks, *, normalised: bool) -> str:
    """What to do about masks of which most are useless."""
    if normalised:
        return message("multiply x by the image's width and y by its height")
    limits = np.divide(masks.size, masks.high, out=np.ones_like(masks.size), where=masks.high > masks.size).min(1)
    factor = float(np.quantile(limits, 0.01, method="lower"))  # a stray mask does not count
    if factor > 1 / _LEAST_SCALE or not _fit(factor * masks.low, factor * masks.high, masks.size):
        return _EXPORT
    return message(
        "{export}, or multiply the segmentations by the factor by which the images were resized ({factor:.2g} or less)",
        export=_EXPORT,
        factor=factor,
    )


def _line(what: str, table: PersonTable, masks: _Masks, found: I64, *, areas: bool) -> str:
    """The number of masks of which something is said, and the first of them."""
    number = found[0]
    image = table.annotation_image[masks.row[number]]
    if areas:
        values = {"drawn": masks.drawn[number], "area": masks.area[number]}
        measures = message("area {drawn:.6g}, in the JSON {area:.6g}", **values)
    else:
        corners = zip(("left", "top", "right", "bottom"), (*masks.low[number], *masks.high[number]), strict=True)
        values = {"width": table.width[image], "height": table.height[image], **dict(corners)}
        measures = message("x {left:g} to {right:g}, y {top:g} to {bottom:g} in {width} x {height} pixels", **values)
    return message(
        "{what}: {count:,} of {total:,}, such as annotation {annotation} of {file} ({measures})",
        what=what,
        count=len(found),
        total=len(masks.row),
        annotation=table.annotation_id[masks.row[number]],
        file=table.file_name[image],
        measures=measures,
    )


@kernel
def _measure_masks(
    rows: I64,
    size: I64,
    part_start: I64,
    kind: U8,
    start: I64,
    length: I64,
    xy: F64,
    counts: I64,
    low: F64,
    high: F64,
    drawn: F64,
) -> None:
    """Write the measures of the annotations `rows`, as in `_Masks`; `size` is `(N, 2)`."""
    for number in range(len(rows)):
        first, last = part_start[rows[number]], part_start[rows[number] + 1]
        height = size[number, 1]
        left = top = np.inf
        right = bottom = -np.inf
        area = 0.0
        for part in range(first, last):
            begin, end = start[part], start[part] + 2 * length[part]
            if kind[part] == POLYGON:
                twice = 0.0
                x_before, y_before = xy[end - 2], xy[end - 1]
                for at in range(begin, end, 2):
                    x, y = xy[at], xy[at + 1]
                    left, right, top, bottom = min(left, x), max(right, x), min(top, y), max(bottom, y)
                    twice += x_before * y - x * y_before
                    x_before, y_before = x, y
                if not _goes_round_twice(xy[begin:end]):  # which leaves no pixel
                    area += abs(twice) / 2
                continue
            position = 0
            for index in range(length[part]):
                run = counts[start[part] + index]
                if index & 1 and run > 0:
                    column, row = divmod(position, height)
                    last_column, last_row = divmod(position + run - 1, height)
                    if last_column > column:
                        row, last_row = 0, height - 1
                    left, right = min(left, float(column)), max(right, float(last_column + 1))
                    top, bottom = min(top, float(row)), max(bottom, float(last_row + 1))
                    area += run
                position += run
        if left > right:  # an RLE without foreground
            left = right = top = bottom = 0.0
        low[number, 0], low[number, 1] = left, top
        high[number, 0], high[number, 1] = right, bottom
        drawn[number] = area


@kernel
def _goes_round_twice(xy: F64) -> bool:
    """Whether the second half of a polygon's coordinates repeats the first."""
    half = len(xy) // 2
    same = len(xy) % 4 == 0
    for at in range(half):
        same &= xy[at] == xy[half + at]
    return same
