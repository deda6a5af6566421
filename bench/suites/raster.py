"""The suite `raster`: polygons to planes by our kernel, pycocotools and OpenCV, against overwriting the planes.

That no pixel differs from what pycocotools draws is shown by `tests/test_preprocess_fuzz.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.baseline import CocoMasks, PolygonFills, image_shapes
from bench.ceilings import clear_planes, thread_pool
from bench.config import Setup
from bench.material import Material
from bench.report import Row, times_name
from bench.timing import Work
from cache.messages import message
from preprocess.build.plan import Split
from preprocess.raster import CROWD_IGNORE, fill_planes

OURS, LIMIT = message("both planes as bytes"), message("overwriting both planes")
PEERS = {"pycocotools": message("both planes by pycocotools"), "cv2.fillPoly": message("one plane by cv2.fillPoly")}
"""Names of the rows."""


def raster_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Photos per second, at native size, in one thread: the planes of the persons and of what is ignored."""
    with thread_pool(1):  # OpenCV, too, draws in one thread
        found = setup.measure(_works(material.split, material.spec.categories))
    described = message("{photos} at native size, 1 thread", photos=material.photos_name)
    row = partial(Row.measured, suite="raster", setup=described)
    for name in (OURS, *PEERS.values()):
        yield row(found[name], name=name, limit=found[LIMIT], limit_name=LIMIT, unit="images/s", ours=name == OURS)
    for peer, name in PEERS.items():
        yield row(found[OURS].over(found[name]), name=times_name("planes", peer), unit="times")


def _works(split: Split, categories: Sequence[str]) -> dict[str, Work]:
    """What is measured, and the limit. All arguments are made beforehand: only the drawing is measured."""
    table, shapes = split.table, image_shapes(split)
    parts = (table.kind, table.start, table.length, table.xy, table.counts)
    # One buffer for all photos, as large as the largest needs it.
    buffers = np.empty((2, max(height * width for height, width in shapes)), np.uint8)
    calls = list[tuple[Any, ...]]()
    for row, (height, width) in zip(split.rows, shapes, strict=True):
        annotations, planes = table.first[[row, row + 1]].tolist(), buffers[:, : height * width]
        drawn = (*parts, CROWD_IGNORE, *planes.reshape(2, height, width))
        calls.append((*annotations, table.part_start, table.iscrowd, *drawn))

    # pycocotools begins with the JSON's lists; OpenCV with integer points, where only the drawing is left.
    numbers = [(number,) for number in range(len(shapes))]
    works = {
        OURS: _each(fill_planes, calls),
        PEERS["pycocotools"]: _each(CocoMasks(split, categories).draw, numbers),
        PEERS["cv2.fillPoly"]: _each(PolygonFills(split).draw, numbers),
    }
    return {**{name: Work(run=run, items=len(shapes)) for name, run in works.items()}, LIMIT: clear_planes(shapes)}


def _each(draw: Callable[..., object], calls: Sequence[tuple[Any, ...]]) -> Callable[[], None]:
    def run() -> None:
        for arguments in calls:
            draw(*arguments)

    return run
