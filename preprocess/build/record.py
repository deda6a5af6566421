"""One image of a dataset -> one record of a cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from cache.arrays import U8
from cache.choices import Orientation
from cache.messages import message
from cache.record import RecordLayout, checksum
from cache.spec import CacheSpec
from preprocess.annotations.table import PersonTable
from preprocess.build.plan import Split
from preprocess.errors import ImageError
from preprocess.image import (
    ImageHead,
    decode_rgb,
    encode_jpeg,
    fit_box,
    place_image,
    place_plane,
    read_head,
    turn_upright,
)
from preprocess.raster import CROWD_DROP, CROWD_IGNORE, CROWD_PERSON, POLYGON, RLE, fill_planes

_SLACK = 1.0  # how far, in pixels, corners of polygons commonly lie outside of their photo

_CROWD_RULE = {"ignore": CROWD_IGNORE, "person": CROWD_PERSON, "drop": CROWD_DROP}


def make_record(
    spec: CacheSpec, layout: RecordLayout, split: Split, row: int, data: bytes, buffer: U8
) -> tuple[U8, dict[str, Any]]:
    """Make the record of image `row` of a split, and its entry of the sample table (without shard and row).

    `data` are the bytes of the image's file. The record is a view into `buffer`, `(layout.most_bytes,)`. Raises
    `ImageError`: the image cannot be used; the message says why.
    """
    table = split.table
    image = decode_annotated(table, row, data, spec.orientation)
    height, width = image.shape[:2]
    person, ignore = native_planes(table, row, spec, (height, width))
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


def decode_annotated(table: PersonTable, row: int, data: bytes, orientation: Orientation) -> U8:
    """Decode the photo of image `row`, `(H, W, 3)` RGB, in the orientation that its annotations refer to.

    `data` are the bytes of the photo's file. Sizes are compared before any pixel is decoded. Raises `ImageError`: it is
    damaged, its size is not that of its JSON entry, or `auto` cannot tell how it is to be turned.
    """
    head = read_head(data)
    upright = _is_upright(table, row, head, orientation)
    image = decode_rgb(data)
    if image.shape[:2] != (head.height, head.width):
        height, width = image.shape[:2]
        values = {"decoded_width": width, "decoded_height": height, "width": head.width, "height": head.height}
        raise ImageError(
            "it decodes to {decoded_width} x {decoded_height} pixels, its head says {width} x {height}", **values
        )
    return turn_upright(image, head.orientation) if upright else image


def _is_upright(table: PersonTable, row: int, head: ImageHead, orientation: Orientation) -> bool:
    """Whether the annotations of an image refer to the upright photo, and not to the stored pixels."""
    expected = int(table.height[row]), int(table.width[row])
    stored, upright = (head.height, head.width), head.upright_size
    if expected not in ((stored,) if orientation == "stored" else (stored, upright)):
        raise _wrong_size(head, *expected)
    if head.orientation == 1 or orientation == "stored":
        return False
    if orientation == "upright":
        if expected != upright and _parts(table, row, RLE):
            raise ImageError("its run-length codes are of the stored pixels, and not of the upright photo")
        return True
    # What the annotations refer to is unknown for a square photo, or one turned by 180 degrees; and where a labelling
    # tool shows the upright photo and exports the stored size.
    either = stored == upright and table.first[row] < table.first[row + 1]
    other = stored if expected == upright else upright
    if either or (_reach_beyond(table, row, expected) and not _reach_beyond(table, row, other)):
        raise ImageError(
            "its EXIF orientation is {orientation}, and its annotations may be of the stored pixels or of "
            "the upright photo; say of which with --orientation stored or --orientation upright",
            orientation=head.orientation,
        )
    return expected != stored


def _wrong_size(head: ImageHead, json_height: int, json_width: int) -> ImageError:
    values = {"width": head.width, "height": head.height, "json_width": json_width, "json_height": json_height}
    if head.orientation == 1:
        sizes = message(
            "the image is {width} x {height} pixels, its JSON entry says {json_width} x {json_height}", **values
        )
    else:
        height, width = head.upright_size
        values |= {"upright_width": width, "upright_height": height, "orientation": head.orientation}
        sizes = message(
            "the image is {width} x {height} pixels, or {upright_width} x {upright_height} when its EXIF orientation "
            "{orientation} is applied, its JSON entry says {json_width} x {json_height}",
            **values,
        )
    return ImageError(
        "{sizes}; put the photos there that were labelled, or export the annotations for these", sizes=sizes
    )


def _reach_beyond(table: PersonTable, row: int, size: tuple[int, int]) -> bool:
    """Whether a polygon of an image has a corner that lies right of or below a photo of this height and width."""
    corners = [table.xy[start : start + 2 * length] for start, length in _parts(table, row, POLYGON)]
    if not corners:
        return False
    xy = np.concatenate(corners)
    return bool(xy[0::2].max() > size[1] + _SLACK or xy[1::2].max() > size[0] + _SLACK)


def _parts(table: PersonTable, row: int, kind: int) -> list[tuple[int, int]]:
    """Start and length of the parts of an image that are of one kind. See `PersonTable`."""
    parts = slice(*table.part_start[table.first[row : row + 2]].tolist())
    chosen = table.kind[parts] == kind
    return list(zip(table.start[parts][chosen].tolist(), table.length[parts][chosen].tolist(), strict=True))


def native_planes(table: PersonTable, row: int, spec: CacheSpec, shape: tuple[int, int] | None = None) -> tuple[U8, U8]:
    """The planes `person` and `ignore` of image `row` at its native size, `(H, W)` uint8 of 0 and 1.

    `spec` says what becomes of crowds; `shape` is that of the decoded photo, by default that of the JSON entry.
    """
    shape = shape or (int(table.height[row]), int(table.width[row]))
    return _planes(table, table.first[row], table.first[row + 1], spec, shape)


def compile_planes(table: PersonTable, spec: CacheSpec) -> None:
    """Compile the kernel of `native_planes`, by an image of one pixel without annotations."""
    _planes(table, table.first[0], table.first[0], spec, (1, 1))


def _planes(table: PersonTable, first: int, last: int, spec: CacheSpec, shape: tuple[int, int]) -> tuple[U8, U8]:
    person, ignore = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    annotations = table.part_start, table.iscrowd, table.kind, table.start, table.length, table.xy, table.counts
    fill_planes(first, last, *annotations, _CROWD_RULE[spec.crowd], person, ignore)
    return person, ignore
