"""What a cache is made from: the splits of a COCO folder, and what each of their images consists of."""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath

import numpy as np
import xxhash

from cache import files
from cache.manifest import ImageSource
from cache.place import StorageUrl
from cache.spec import CacheSpec
from preprocess.coco import PersonTable, annotation_file, load_persons
from preprocess.digest import annotation_digests
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
        sources: what each of them consists of, in the order of `rows`.
        annotations: the annotation file.
        problems: why an image cannot be used although it is selected, by row.
        orphans: annotations that belong to no image of the file, and why.
    """

    name: str
    folder: PurePath
    table: PersonTable
    rows: list[int]
    sources: list[ImageSource]
    annotations: PurePath
    problems: dict[int, str]
    orphans: tuple[str, ...]


def read_split(coco: PurePath, name: str, spec: CacheSpec, *, content: bool = False) -> Split:
    """Read a split's annotations and pick the images that the spec's rule and limit select.

    With `content` the images are read, too, and known by their bytes and not only by their names and sizes.

    Raises:
        DatasetError: files or folders are missing or unreadable, or no image is selected.
        StorageError: the dataset is in object storage, which cannot be read.
    """
    source_name = SPLIT_FOLDERS[name]
    folder = coco / source_name
    annotations = annotation_file(coco, source_name)
    present = _file_sizes(folder)
    if present is None:
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
    return Split(
        name=name,
        folder=folder,
        table=table,
        rows=rows,
        sources=_image_sources(folder, present, table, rows, problems, content=content),
        annotations=annotations,
        problems=problems,
        orphans=tuple(orphans),
    )


def content_digest(data: bytes) -> int:
    """XXH3 (64 bits) of an image file's bytes."""
    return xxhash.xxh3_64_intdigest(data)


def _file_sizes(folder: PurePath) -> dict[str, int] | None:
    """Bytes of each file in a folder; None if there is no such folder."""
    if isinstance(folder, StorageUrl):
        return files.sizes(folder) or None
    try:
        with os.scandir(folder) as entries:  # far cheaper than asking for the files one by one
            return {entry.name: entry.stat().st_size for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return None


def _contents(folder: PurePath, names: list[str]) -> dict[str, int]:
    """Digests of files, by their names."""

    def digest(name: str) -> int:
        return content_digest(files.read(folder / name))

    if not isinstance(folder, StorageUrl):
        return {name: digest(name) for name in names}
    with ThreadPoolExecutor(files.AT_ONCE) as pool:
        return dict(zip(names, pool.map(digest, names), strict=True))


def _image_sources(
    folder: PurePath,
    sizes: dict[str, int],
    table: PersonTable,
    rows: list[int],
    problems: dict[int, str],
    *,
    content: bool,
) -> list[ImageSource]:
    contents = _contents(folder, [name for row in rows if (name := table.file_name[row]) in sizes]) if content else {}
    digests = annotation_digests(table, np.array(rows, np.int64)).tolist()
    sources = []
    for row, digest in zip(rows, digests, strict=True):
        name = table.file_name[row]
        problem = problems.get(row)
        sources.append(
            ImageSource(
                image_id=int(table.image_id[row]),
                file_name=name,
                file_bytes=sizes.get(name, -1),
                annotations=digest ^ xxhash.xxh3_64_intdigest(problem.encode()) if problem else digest,
                content=contents.get(name, 0),
            )
        )
    return sources
