"""Are the annotations right? What their tables tell, without a look at any image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from preprocess.coco import PersonTable
from preprocess.finding import Finding


def check_annotations(split: str, file: str, table: PersonTable) -> Iterator[Finding]:
    """What is wrong within the annotation file `file` of a split."""
    for problem in table.problems:
        known = problem.image >= 0
        yield Finding(
            kind="annotation",
            split=split,
            file=table.file_name[problem.image] if known else file,
            image_id=int(table.image_id[problem.image]) if known else None,
            annotation_id=problem.annotation,
            reason=problem.reason,
        )
    ids, counts = np.unique(table.annotation_id, return_counts=True)
    for annotation in ids[counts > 1].tolist():
        row = int(table.annotation_image[np.flatnonzero(table.annotation_id == annotation)[-1]])
        yield Finding(
            kind="annotation",
            split=split,
            file=table.file_name[row],
            image_id=int(table.image_id[row]),
            annotation_id=annotation,
            reason="its id is used more than once",
        )
    first: dict[str, int] = {}
    for name, image in zip(table.file_name, table.image_id.tolist(), strict=True):
        if name in first:
            reason = f"image {first[name]} has the same file name"
            yield Finding(kind="image", split=split, file=name, image_id=image, reason=reason)
        first.setdefault(name, image)
