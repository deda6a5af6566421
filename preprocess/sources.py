"""The sources of a cache: the splits of a COCO folder, and what each of their images consists of."""

from __future__ import annotations

import dataclasses
from pathlib import PurePath

import numpy as np
import xxhash

from cache import files
from cache.manifest import ImageSource
from cache.messages import message
from cache.spec import CacheSpec
from preprocess.coco import PersonTable, Problem, annotation_file, load_persons, take_images
from preprocess.digest import annotation_digests
from preprocess.errors import DatasetError, ImageError
from preprocess.image import read_file
from preprocess.photos import PhotoFolder, photo_path
from preprocess.select import select_images

SPLIT_FOLDERS = {"train": "train2017", "val": "val2017"}
"""The cache's splits and the folders that COCO has them in."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """A split's annotations and the selected images.

    Attributes:
        name: `train` or `val`.
        folder: where its images are.
        table: all its images and person annotations; `file_name` holds paths as `PhotoFolder.locate` gives them.
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

    def photo(self, row: int) -> PurePath:
        """Where the photo of an image is."""
        return photo_path(self.folder, self.table.file_name[row])

    def read(self, row: int) -> bytes:
        """The bytes of an image's photo.

        Raises:
            ImageError: the image is among the `problems`, or see `read_file`.
            StorageError: see `read_file`.
        """
        if row in self.problems:  # its name may lead to what is no photo, and not of the dataset
            raise ImageError(self.problems[row])
        return read_file(self.photo(row))


def read_split(coco: PurePath, name: str, spec: CacheSpec, *, content: bool = False) -> Split:
    """Read a split's annotations and pick the images that the spec's rule and limit select.

    With `content` the images are read, too, and identified by their bytes, not only by their names and sizes.

    Raises:
        DatasetError: files or folders are missing or unreadable, or no image is selected.
        StorageError: the dataset is in object storage, which cannot be read.
    """
    source_name = SPLIT_FOLDERS[name]
    folder = coco / source_name
    annotations = annotation_file(coco, source_name)
    photos = PhotoFolder(coco, folder, outside=spec.outside)
    table, problems = locate_photos(load_persons(annotations, spec.category), photos)
    if is_missing(photos, table):
        raise DatasetError(
            "{folder} is missing; unpack {source_name}.zip in {coco}", folder=folder, source_name=source_name, coco=coco
        )
    rows = np.flatnonzero(select_images(table, spec.images)).tolist()
    if not rows:
        raise DatasetError(
            "no image of {annotations} satisfies the rule {images}; take them all: `preprocess --select all`",
            annotations=annotations,
            images=spec.images,
        )
    if 0 < spec.limit < len(rows):
        rows = [rows[at * len(rows) // spec.limit] for at in range(spec.limit)]
    problems = annotation_problems(table) | problems
    return Split(
        name=name,
        folder=folder,
        table=table,
        rows=rows,
        sources=_image_sources(photos, table, rows, problems, content=content),
        annotations=annotations,
        problems=problems,
        orphans=tuple(_said(problem) for problem in table.problems if problem.image < 0),
    )


def split_part(split: Split, rows: list[int]) -> Split:
    """The part of a split that has the images `rows` of its table, now its rows 0, 1, 2, ...: for another machine.

    The sources are left out, and annotations without an image: they belong to the split, not to a part.
    """
    return dataclasses.replace(
        split,
        table=take_images(split.table, np.array(rows, np.int64)),
        rows=list(range(len(rows))),
        sources=[],
        problems={number: split.problems[row] for number, row in enumerate(rows) if row in split.problems},
        orphans=(),
    )


def content_digest(data: bytes) -> int:
    """XXH3 (64 bits) of an image file's bytes."""
    return xxhash.xxh3_64_intdigest(data)


def locate_photos(table: PersonTable, photos: PhotoFolder) -> tuple[PersonTable, dict[int, str]]:
    """Find the file of each image.

    Returns:
        The table with paths as file names, and by row why an image has none: there the name is as in the JSON.
    """
    paths, problems = [], {}
    for row, name in enumerate(table.file_name):
        try:
            paths.append(photos.locate(name))
        except ImageError as error:
            paths.append(name)
            problems[row] = str(error)
    return dataclasses.replace(table, file_name=tuple(paths)), problems


def annotation_problems(table: PersonTable) -> dict[int, str]:
    """Why images cannot be used, by their rows: the first of their annotations that is not sound."""
    return {problem.image: _said(problem) for problem in reversed(table.problems) if problem.image >= 0}


def _said(problem: Problem) -> str:
    return message("annotation {annotation}: {reason}", annotation=problem.annotation, reason=problem.reason)


def is_missing(photos: PhotoFolder, table: PersonTable) -> bool:
    """Whether the split's folder is not there, and all photos should be in it."""
    return not photos.exists() and not any(path.startswith(("/", "../")) for path in table.file_name)


def _file_digest(path: PurePath) -> int:
    """Digest of a photo's file; 0 if it cannot be read."""
    try:
        return content_digest(read_file(path))
    except ImageError:
        return 0


def _image_sources(
    photos: PhotoFolder, table: PersonTable, rows: list[int], problems: dict[int, str], *, content: bool
) -> list[ImageSource]:
    """What each image consists of. The photo of one that cannot be used is not looked at."""
    sizes = [-1 if row in problems else photos.size(table.file_name[row]) for row in rows]
    there = [row for row, size in zip(rows, sizes, strict=True) if content and size >= 0]
    digests = files.for_each(_file_digest, (photo_path(photos.folder, table.file_name[row]) for row in there))
    contents = dict(zip(there, digests, strict=True))
    marks = annotation_digests(table, np.array(rows, np.int64)).tolist()
    return [
        ImageSource(
            image_id=int(table.image_id[row]),
            file_name=table.file_name[row],
            file_bytes=size,
            annotations=mark ^ xxhash.xxh3_64_intdigest(problems[row].encode()) if row in problems else mark,
            content=contents.get(row, 0),
        )
        for row, size, mark in zip(rows, sizes, marks, strict=True)
    ]
