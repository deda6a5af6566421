"""One image of a dataset -> one record of a cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cache.record import RecordLayout, checksum
from cache.spec import CacheSpec
from preprocess.coco import PersonTable
from preprocess.errors import ImageError
from preprocess.geometry import fit_box, place_image, place_plane
from preprocess.image import decode_rgb, encode_jpeg
from preprocess.raster import CROWD_DROP, CROWD_IGNORE, CROWD_PERSON, fill_planes
from preprocess.sources import Split

U8 = npt.NDArray[np.uint8]

_CROWD_RULE = {"ignore": CROWD_IGNORE, "person": CROWD_PERSON, "drop": CROWD_DROP}


def make_record(
    spec: CacheSpec, layout: RecordLayout, split: Split, row: int, data: bytes, buffer: U8
) -> tuple[U8, dict[str, Any]]:
    """Make the record of image `row` of a split, and its entry of the sample table (all but its place).

    Args:
        spec: of the cache.
        layout: of its records.
        split: what the image is of.
        row: of the split's table.
        data: the image's file.
        buffer: `(layout.most_bytes,)`; the record is a view into it.

    Raises:
        ImageError: the image or its annotations cannot be used; the message says why.
    """
    table = split.table
    if row in split.problems:
        raise ImageError(split.problems[row])
    image = decode_rgb(data)
    height, width = image.shape[:2]
    expected = int(table.height[row]), int(table.width[row])
    if (height, width) != expected:
        raise ImageError(f"the image is {width} x {height} pixels, its JSON entry says {expected[1]} x {expected[0]}")
    person, ignore = native_planes(table, row, spec)
    box = fit_box(height, width, spec.side, spec.fit)
    if spec.codec == "raw":
        record = layout.blank(buffer, layout.image_bytes)
        place_image(image, box, layout.split(record).image.reshape(spec.side, spec.side, 3))
    else:
        pixels = np.empty((spec.side, spec.side, 3), np.uint8)
        place_image(image, box, pixels)
        jpeg = encode_jpeg(pixels, spec.jpeg_quality)
        record = layout.blank(buffer, jpeg.size)
        layout.split(record).image[:] = jpeg
    fields = layout.split(record)
    packed = spec.side, spec.side // 8
    person_pixels = place_plane(person, box, fields.person.reshape(packed), padding=0)
    place_plane(ignore, box, fields.ignore.reshape(packed), padding=1)
    crowd = table.iscrowd[table.first[row] : table.first[row + 1]]
    return record, {
        "image_id": int(table.image_id[row]),
        "height": height,
        "width": width,
        "box_x": box.x,
        "box_y": box.y,
        "box_width": box.width,
        "box_height": box.height,
        "persons": int((crowd == 0).sum()),
        "person_fraction": person_pixels / (box.width * box.height),
        "checksum": checksum(record),
    }


def native_planes(table: PersonTable, row: int, spec: CacheSpec) -> tuple[U8, U8]:
    """The planes `person` and `ignore` of image `row` at its native size, `(H, W)` uint8 of 0 and 1."""
    shape = int(table.height[row]), int(table.width[row])
    person, ignore = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    fill_planes(
        table.first[row],
        table.first[row + 1],
        table.part_start,
        table.iscrowd,
        table.kind,
        table.start,
        table.length,
        table.xy,
        table.counts,
        _CROWD_RULE[spec.crowd],
        person,
        ignore,
    )
    return person, ignore
