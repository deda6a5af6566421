"""What is wrong with a dataset, one thing at a time."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with a dataset.

    Attributes:
        kind: what it concerns: a `file` as a whole, an `annotation` or an `image`.
        split: `train` or `val`.
        file: the annotation file, or the image's file name.
        image_id, annotation_id: of the JSON, where it concerns one.
        reason: what is wrong.
    """

    kind: Literal["file", "annotation", "image"]
    split: str
    file: str
    reason: str
    image_id: int | None = None
    annotation_id: int | None = None
