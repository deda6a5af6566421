"""Read a COCO annotation file as columns; its segmentations stay text."""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import PurePath
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from cache import files
from cache.messages import message, system_reason
from preprocess.annotations.json_kernel import array_pieces
from preprocess.errors import DatasetError

ONE_PIECE = 512 << 20
"""Bytes up to which a file is read in one go: COCO's own are smaller."""

PIECE = 64 << 20
"""Bytes of a longer file that are read at a time; reading takes about five times as much memory."""

I64 = npt.NDArray[np.int64]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Side = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]  # whose product an int64 can hold


# Hundreds of thousands of these two are made, none of them in a cycle: the garbage collector need not track them.
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


class _Annotations(msgspec.Struct):
    annotations: list[_Annotation]


class _Document(_Annotations):
    images: list[_Image]
    categories: list[_Category]


class _Frame(msgspec.Struct):
    """A document whose annotations are yet to be read."""

    images: list[_Image]
    annotations: msgspec.Raw
    categories: list[_Category]


_Content = TypeVar("_Content", _Document, _Frame, _Annotations)


class Images(NamedTuple):
    """All images of a file, in its order; height and width are `(I,)` pixels."""

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


def read_document(path: PurePath, category: str) -> tuple[Images, Iterator[Annotations]]:
    """Read the images of a COCO annotation file, and the annotations of a category by its name.

    No number of a segmentation becomes a Python object. The file is mapped, not copied; one in object storage is
    fetched to a file of this machine before.

    Returns:
        The images, and the annotations in the order of the file: all at once, or those of a long file in pieces, none
        of which should be kept.

    Raises:
        DatasetError: the file is missing, is no JSON (with the byte), is no COCO file, or lacks the category. An
            invalid annotation raises when its piece is read.
    """
    data = _open(path)
    document: _Document | _Frame
    if len(data) <= ONE_PIECE:
        document = _parse(data, path, _Document)
        pieces = iter([document.annotations])
    else:
        document = _parse(data, path, _Frame)
        pieces = _read_pieces(document.annotations, path)
    wanted = {entry.id for entry in document.categories if entry.name == category}
    if not wanted:
        names = ", ".join(entry.name for entry in document.categories[:8]) or message("none")
        values = {"path": path, "category": category, "names": names}
        raise DatasetError("{path} has no category {category!r}; its categories are: {names}", **values)
    images = Images(
        id=_column(document.images, "id"),
        file_name=tuple(image.file_name for image in document.images),
        height=_column(document.images, "height"),
        width=_column(document.images, "width"),
    )
    return images, (_columns(piece, wanted) for piece in pieces)


def read_file_names(path: PurePath) -> list[str]:
    """The names of all photos in a COCO annotation file.

    Raises:
        DatasetError: as `read_document`.
    """
    return [image.file_name for image in _parse(_open(path), path, _Frame).images]


def _columns(annotations: list[_Annotation], wanted: set[int]) -> Annotations:
    found = [annotation for annotation in annotations if annotation.category_id in wanted]
    return Annotations(
        id=_column(found, "id"),
        image_id=_column(found, "image_id"),
        iscrowd=_column(found, "iscrowd"),
        num_keypoints=_column(found, "num_keypoints"),
        area=_column(found, "area", np.float64),
        segmentation=[annotation.segmentation for annotation in found],
    )


def _column(entries: Sequence[msgspec.Struct], field: str, dtype: npt.DTypeLike = np.int64) -> npt.NDArray[Any]:
    return np.fromiter(map(attrgetter(field), entries), dtype, len(entries))


def _read_pieces(annotations: msgspec.Raw, path: PurePath) -> Iterator[list[_Annotation]]:
    """The elements of a JSON array, about `PIECE` bytes at a time."""
    text = np.frombuffer(annotations, np.uint8)
    if text[0] != ord("["):
        _parse(b'{"annotations":%b}' % bytes(text[:64]), path, _Annotations)  # which raises
    before = 0
    for piece in array_pieces(text, PIECE):
        found = _parse(b'{"annotations":[%b]}' % piece.tobytes(), path, _Annotations, before).annotations
        before += len(found)
        yield found


def _open(path: PurePath) -> mmap.mmap | bytes:
    """Map the content of a file, without a copy."""
    try:
        # A copy from object storage stays mapped without a name.
        with files.local_copy(path) as here, here.open("rb") as file:
            empty = not os.fstat(file.fileno()).st_size  # which cannot be mapped
            return b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise DatasetError(
            "{path} is missing; unpack annotations_trainval2017.zip beside the images", path=path
        ) from None
    except OSError as error:
        reason = system_reason(error)
        raise DatasetError("{path} cannot be read: {reason}; check its permissions", path=path, reason=reason) from None


def _parse(data: mmap.mmap | bytes, path: PurePath, content: type[_Content], before: int = 0) -> _Content:
    """Parse a document, or a piece of one; `before` is the number of annotations in front of the piece."""
    try:
        return msgspec.json.decode(data, type=content)
    except msgspec.ValidationError as error:
        reason = re.sub(r"(?<=\$\.annotations\[)\d+", lambda number: str(before + int(number[0])), str(error))
        raise DatasetError("{path} is not a COCO annotation file: {reason}", path=path, reason=reason) from None
    except RecursionError:
        raise DatasetError(
            "{path} is not a COCO annotation file: it holds lists within lists without end", path=path
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        values = {"path": path, "error": error, "size": len(data)}
        raise DatasetError(
            "{path} is not valid JSON ({error}; the file has {size:,} bytes); it may be cut short: get it again",
            **values,
        ) from None
