"""The part of a split that some of its images need: small enough to be sent to another machine."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from cache.manifest import ImageSource
from preprocess.coco import PersonTable
from preprocess.drawables import ranges, take_shapes
from preprocess.sources import Split

I64 = npt.NDArray[np.int64]


def split_part(split: Split, rows: list[int], sources: tuple[ImageSource, ...]) -> Split:
    """What a split says of the images `rows` of its table, which become its rows 0, 1, 2, ...

    Annotations without an image are left out: they belong to the split, not to a part.
    """
    problems = {number: split.problems[row] for number, row in enumerate(rows) if row in split.problems}
    return dataclasses.replace(
        split,
        table=take_images(split.table, np.array(rows, np.int64)),
        rows=list(range(len(rows))),
        sources=list(sources),
        problems=problems,
        orphans=(),
    )


def take_images(table: PersonTable, rows: I64) -> PersonTable:
    """The images `rows` of a table in this order, with their annotations; its `problems` are left out."""
    annotations, first = ranges(table.first[rows], table.first[rows + 1])
    return PersonTable(
        image_id=table.image_id[rows],
        file_name=tuple(table.file_name[row] for row in rows.tolist()),
        height=table.height[rows],
        width=table.width[rows],
        first=first,
        annotation_id=table.annotation_id[annotations],
        iscrowd=table.iscrowd[annotations],
        keypoints=table.keypoints[annotations],
        area=table.area[annotations],
        **take_shapes(table, annotations),
        problems=(),
    )
