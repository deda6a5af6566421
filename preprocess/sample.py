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
from preprocess.image import encode_jpeg, read_rgb
from preprocess.raster import CROWD_DROP, CROWD_IGNORE, CROWD_PERSON, fill_planes
from preprocess.sources import Split

U8 = npt.NDArray[np.uint8]

_CROWD_RULE = {"ignore": CROWD_IGNORE, "person": CROWD_PERSON, "drop": CROWD_DROP}


def make_record(spec: CacheSpec, layout: RecordLayout, split: Split, row: int) -> tuple[U8, dict[str, Any]]:
    """Make the record of image `row` of a split, and its entry of the sample table (all but its place).

    Raises:
        ImageError: the image or its annotations cannot be used; the message says why.
    """
    table = split.table
    if row in split.problems:
        raise ImageError(split.problems[row])
    image = read_rgb(split.folder / table.file_name[row])
    height, width = image.shape[:2]
    expected = int(table.height[row]), int(table.width[row])
    if (height, width) != expected:
        raise ImageError(f"the image is {width} x {height} pixels, its JSON entry says {expected[1]} x {expected[0]}")
    person, ignore = native_planes(table, row, spec)
    box = fit_box(height, width, spec.side, spec.fit)
    pixels = place_image(image, box, spec.side)
    person_SS = place_plane(person, box, spec.side, padding=0)
    ignore_SS = place_plane(ignore, box, spec.side, padding=1)
    record = layout.pack(
        pixels if spec.codec == "raw" else encode_jpeg(pixels, spec.jpeg_quality), person_SS, ignore_SS
    )
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
        "person_fraction": float(person_SS.sum()) / (box.width * box.height),
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
