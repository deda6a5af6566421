"""What a cache is made from: the splits of a COCO folder, their digests, and whether a cache still agrees with them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from cache.index import CacheIndex, SourceInfo
from cache.spec import CacheSpec, ImageRule
from preprocess.coco import PersonTable, annotation_file, file_digest, load_persons
from preprocess.errors import DatasetError
from preprocess.select import select_images

SPLIT_FOLDERS = {"train": "train2017", "val": "val2017"}
"""The cache's splits and the folders that COCO has them in."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """A split's annotations and what is to be taken of them.

    Attributes:
        name: `train` or `val`.
        folder: where its images are.
        table: all its images and person annotations.
        rows: rows of the table, ascending: the images that the rule selects.
        problems: why an image cannot be used although it is selected, by row.
        source: digest of what this was read from.
    """

    name: str
    folder: Path
    table: PersonTable
    rows: list[int]
    problems: dict[int, str]
    source: SourceInfo


def read_split(coco: Path, name: str, rule: ImageRule, category: str, limit: int = 0) -> Split:
    """Read a split's annotations and pick the images that `rule` selects: all, or `limit` of them, evenly.

    Raises:
        DatasetError: files or folders are missing or unreadable, or no image is selected.
    """
    source_name = SPLIT_FOLDERS[name]
    folder = coco / source_name
    annotations = annotation_file(coco, source_name)
    if not folder.is_dir():
        raise DatasetError(f"{folder} is missing; unpack {source_name}.zip in {coco}")
    table = load_persons(annotations, category)
    rows = np.flatnonzero(select_images(table, rule)).tolist()
    if not rows:
        raise DatasetError(f"no image of {annotations} satisfies --images {rule}; try --images all")
    if limit and limit < len(rows):
        rows = [rows[at * len(rows) // limit] for at in range(limit)]
    problems: dict[int, str] = {}
    for problem in table.problems:
        problems.setdefault(problem.image, f"annotation {problem.annotation}: {problem.reason}")
    source = source_info(annotations, folder, [table.file_name[row] for row in rows])
    return Split(name=name, folder=folder, table=table, rows=rows, problems=problems, source=source)


def source_info(annotations: Path, folder: Path, names: list[str]) -> SourceInfo:
    """Digest of a split's sources: the annotation file's bytes, and the images' names and sizes."""
    with os.scandir(folder) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries}
    listing = json.dumps([[name, sizes.get(name, -1)] for name in sorted(names)])
    return SourceInfo(annotations=file_digest(annotations), images=hashlib.sha256(listing.encode()).hexdigest())


def stale_reasons(index: CacheIndex, spec: CacheSpec | None, sources: dict[str, SourceInfo]) -> list[str]:
    """Why a cache is not what `spec` and `sources` would give; empty when it is. A spec of None is not compared."""
    reasons = index.spec.differences(spec) if spec else []
    if set(index.splits) != set(sources):
        reasons.append(f"splits: {', '.join(index.splits)}, not {', '.join(sources)}")
    for name in index.splits.keys() & sources.keys():
        was, now = index.splits[name].source, sources[name]
        if was.annotations != now.annotations:
            reasons.append(f"{name}: the annotation file has changed")
        if was.images != now.images:
            reasons.append(f"{name}: the list of images or their sizes has changed")
    return reasons
