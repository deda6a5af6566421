"""What a cache is made from: the splits of a COCO folder, their digests, and whether a cache still agrees with them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from cache.index import CacheIndex, SourceInfo
from cache.spec import CacheSpec
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
        annotations: the annotation file.
        problems: why an image cannot be used although it is selected, by row.
        orphans: annotations that belong to no image of the file, and why.
        source: digest of what this was read from.
    """

    name: str
    folder: Path
    table: PersonTable
    rows: list[int]
    annotations: Path
    problems: dict[int, str]
    orphans: tuple[str, ...]
    source: SourceInfo


def read_split(coco: Path, name: str, spec: CacheSpec) -> Split:
    """Read a split's annotations and pick the images that the spec's rule and limit select.

    Raises:
        DatasetError: files or folders are missing or unreadable, or no image is selected.
    """
    source_name = SPLIT_FOLDERS[name]
    folder = coco / source_name
    annotations = annotation_file(coco, source_name)
    if not folder.is_dir():
        raise DatasetError(f"{folder} is missing; unpack {source_name}.zip in {coco}")
    table = load_persons(annotations, spec.category)
    rows = np.flatnonzero(select_images(table, spec.images)).tolist()
    if not rows:
        raise DatasetError(f"no image of {annotations} satisfies --images {spec.images}; try --images all")
    if 0 < spec.limit < len(rows):
        rows = [rows[at * len(rows) // spec.limit] for at in range(spec.limit)]
    problems: dict[int, str] = {}
    orphans = []
    for problem in table.problems:
        reason = f"annotation {problem.annotation}: {problem.reason}"
        if problem.image < 0:
            orphans.append(reason)
        else:
            problems.setdefault(problem.image, reason)
    source = source_info(annotations, folder, [table.file_name[row] for row in rows])
    return Split(
        name=name,
        folder=folder,
        table=table,
        rows=rows,
        annotations=annotations,
        problems=problems,
        orphans=tuple(orphans),
        source=source,
    )


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
