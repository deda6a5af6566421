"""A COCO annotation file as columns, its segmentations still as text."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from preprocess.errors import DatasetError

I64 = npt.NDArray[np.int64]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Side = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]  # whose product an int64 can hold


# Hundreds of thousands of objects of these two kinds are made, none of them in a cycle: the collector need not know.
class _Annotation(msgspec.Struct, gc=False):
    id: _Int64
    image_id: _Int64
    category_id: int
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: _Int64 = 0
    num_keypoints: _Int64 = 0
    area: float = math.nan


class _Image(msgspec.Struct, gc=False):
    id: _Int64
    file_name: str
    height: _Side
    width: _Side


class _Category(msgspec.Struct):
    id: int
    name: str


class _Document(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class Images(NamedTuple):
    """All images of a file, in its order. See `preprocess.coco.PersonTable`."""

    id: I64
    file_name: tuple[str, ...]
    height: I64
    width: I64


class Annotations(NamedTuple):
    """The annotations of one category, in the order of the file; their segmentations are parts of the mapped file."""

    id: I64
    image_id: I64
    iscrowd: I64
    num_keypoints: I64
    area: npt.NDArray[np.float64]
    segmentation: list[msgspec.Raw]


def read_document(path: Path, category: str) -> tuple[Images, Annotations]:
    """Read a COCO annotation file, without an object for any number of its segmentations.

    The file is mapped, not copied.

    Args:
        path: of the file.
        category: whose annotations are read.

    Raises:
        DatasetError: the file is missing, is no JSON (with the byte), is no COCO file, or lacks the category.
    """
    document = _decode(path)
    wanted = {entry.id for entry in document.categories if entry.name == category}
    if not wanted:
        names = ", ".join(entry.name for entry in document.categories[:8]) or "none"
        raise DatasetError(f"{path} has no category {category!r}; its categories are: {names}")
    images = document.images
    found = [annotation for annotation in document.annotations if annotation.category_id in wanted]
    return Images(
        id=_column(images, "id"),
        file_name=tuple(image.file_name for image in images),
        height=_column(images, "height"),
        width=_column(images, "width"),
    ), Annotations(
        id=_column(found, "id"),
        image_id=_column(found, "image_id"),
        iscrowd=_column(found, "iscrowd"),
        num_keypoints=_column(found, "num_keypoints"),
        area=_column(found, "area", np.float64),
        segmentation=[annotation.segmentation for annotation in found],
    )


def _column(entries: Sequence[msgspec.Struct], field: str, dtype: npt.DTypeLike = np.int64) -> npt.NDArray[Any]:
    return np.fromiter(map(attrgetter(field), entries), dtype, len(entries))


def _decode(path: Path) -> _Document:
    try:
        data = _map(path)
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing; unpack annotations_trainval2017.zip beside the images") from None
    try:
        return msgspec.json.decode(data, type=_Document)
    except msgspec.ValidationError as error:
        raise DatasetError(f"{path} is not a COCO annotation file: {error}") from None
    except RecursionError:
        raise DatasetError(f"{path} is not a COCO annotation file: it holds lists within lists without end") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path} is not valid JSON ({error}; the file has {len(data):,} bytes); it may be cut short: get it again"
        ) from None


def _map(path: Path) -> mmap.mmap | bytes:
    """The content of a file without a copy, for as long as anything refers to it."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return b""  # which cannot be mapped
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
