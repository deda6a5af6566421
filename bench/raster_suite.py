"""Polygons to planes: our kernels, pycocotools, and merely overwriting the planes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.baseline import CocoMasks
from bench.ceilings import clear_planes
from bench.config import Setup
from bench.material import Material
from bench.report import Row
from bench.timing import Work, measure_together
from preprocess.raster import CROWD_IGNORE, fill_planes, fill_union_bits

TIMES = "{}: times pycocotools"
"""Name of a row; for `bytes` and `bits`."""


def raster_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Both planes of each photo at native size, in one thread."""
    split, table = material.split, material.split.table
    shapes = [(int(table.height[row]), int(table.width[row])) for row in split.rows]
    masks = CocoMasks(material.coco, split)
    most = max(height * width for height, width in shapes)
    person, ignore = np.empty(most, np.uint8), np.empty(most, np.uint8)
    words = np.empty(max(height * -(-width // 64) for height, width in shapes), np.uint64)
    parts = (table.kind, table.start, table.length, table.xy, table.counts)

    # All arguments are made beforehand: it is the kernels that are measured.
    byte_calls, bit_calls = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
    for row, (height, width) in zip(split.rows, shapes, strict=True):
        first, last = int(table.first[row]), int(table.first[row + 1])
        planes = (plane[: height * width].reshape(height, width) for plane in (person, ignore))
        byte_calls.append((first, last, table.part_start, table.iscrowd, *parts, CROWD_IGNORE, *planes))
        out = words[: height * -(-width // 64)].reshape(height, -1)
        bit_calls.append((*parts, int(table.part_start[first]), int(table.part_start[last]), width, out))

    def fill_bytes() -> None:
        for arguments in byte_calls:
            fill_planes(*arguments)

    def fill_bits() -> None:
        for arguments in bit_calls:
            fill_union_bits(*arguments)

    def draw_coco() -> None:
        for number in range(len(masks)):
            masks.draw(number)

    images = len(shapes)
    found = measure_together(
        {
            "bytes": Work(run=fill_bytes, items=images),
            "bits": Work(run=fill_bits, items=images),
            "pycocotools": Work(run=draw_coco, items=images),
            "clear": clear_planes(shapes, 2),
            "clear bits": clear_planes([(height, 8 * -(-width // 64)) for height, width in shapes], 1),
        },
        seconds=setup.seconds,
        rounds=setup.rounds,
    )
    common: dict[str, Any] = {"suite": "raster", "setup": f"{material.photos_name} at native size, 1 thread"}
    rate = {**common, "unit": "images/s"}
    limits = {
        "bytes": (found["clear"], "overwriting both planes"),
        "bits": (found["clear bits"], "overwriting the packed plane"),
    }
    names = {"bytes": "both planes as bytes", "bits": "union as packed bits"}
    for which, (limit, limit_name) in limits.items():
        yield Row.measured(found[which], name=names[which], limit=limit, limit_name=limit_name, **rate)
    yield Row.measured(
        found["pycocotools"],
        name="both planes by pycocotools",
        limit=found["clear"],
        limit_name=limits["bytes"][1],
        **rate,
    )
    for which in limits:
        yield Row.measured(found[which].over(found["pycocotools"]), name=TIMES.format(which), unit="times", **common)
