"""COCO JSON -> flat arrays."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from preprocess.errors import DatasetError
from preprocess.raster import COORDINATE_LIMIT, POLYGON, RLE, box_polygon, decode_rle_string

I64 = npt.NDArray[np.int64]


class _Rle(msgspec.Struct):
    size: list[int]
    counts: list[int] | str


class _Annotation(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    segmentation: list[list[float]] | _Rle | None = None
    iscrowd: int = 0
    num_keypoints: int = 0
    area: float = math.nan


class _Image(msgspec.Struct):
    id: int
    file_name: str
    height: int
    width: int


class _Category(msgspec.Struct):
    id: int
    name: str


class _Document(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class Problem(NamedTuple):
    """An annotation that cannot be used: its image's row in the table (-1: it has none), its own id, and why."""

    image: int
    annotation: int
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PersonTable:
    """All images of a COCO file and their person annotations, as flat arrays.

    Image `i` owns annotations `first[i]:first[i + 1]`; annotation `a` owns parts `part_start[a]:part_start[a + 1]`;
    parts are shapes as `preprocess.raster` takes them.

    Attributes:
        image_id: `(I,)`.
        file_name: I names.
        height, width: `(I,)` pixels, as the JSON says.
        first: `(I + 1,)`.
        annotation_id: `(A,)`; ordered by image, within an image as in the file.
        iscrowd: `(A,)` uint8.
        keypoints: `(A,)` labelled keypoints.
        area: `(A,)` pixels; the JSON's, NaN where it gives none.
        part_start: `(A + 1,)`.
        kind, start, length: `(P,)` parts.
        xy: polygon coordinates, pixels.
        counts: RLE runs, pixels.
        problems: annotations that were left out, and why.
    """

    image_id: I64
    file_name: tuple[str, ...]
    height: I64
    width: I64
    first: I64
    annotation_id: I64
    iscrowd: npt.NDArray[np.uint8]
    keypoints: I64
    area: npt.NDArray[np.float64]
    part_start: I64
    kind: npt.NDArray[np.uint8]
    start: I64
    length: I64
    xy: npt.NDArray[np.float64]
    counts: I64
    problems: tuple[Problem, ...]

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def annotation_image(self) -> I64:
        """`(A,)` the image's row of each annotation."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))


def annotation_file(root: Path, split: str) -> Path:
    """Where COCO keeps the person annotations of a split: `person_keypoints_*`, else `instances_*`.

    Raises:
        DatasetError: neither is there.
    """
    folder = root / "annotations"
    for family in ("person_keypoints", "instances"):
        path = folder / f"{family}_{split}.json"
        if path.is_file():
            return path
    raise DatasetError(
        f"{folder / f'person_keypoints_{split}.json'} is missing; "
        f"unpack annotations_trainval2017.zip in {root}, or point --coco at the folder that holds annotations/"
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_persons(path: Path, category: str = "person") -> PersonTable:
    """Read a COCO annotation file.

    Annotations that cannot be drawn (no shape, an RLE that does not fill its image, a coordinate that is none, an
    unknown image) are left out and named in `problems`.

    Raises:
        DatasetError: the file is missing, is no JSON (with the byte), is no COCO file, or lacks the category.
    """
    document = _read_document(path)
    wanted = {entry.id for entry in document.categories if entry.name == category}
    if not wanted:
        names = ", ".join(entry.name for entry in document.categories[:8]) or "none"
        raise DatasetError(f"{path} has no category {category!r}; its categories are: {names}")
    images = document.images
    row_of = {image.id: row for row, image in enumerate(images)}
    if len(row_of) != len(images):
        raise DatasetError(f"{path} names {len(images) - len(row_of)} image ids twice; ids must be unique")

    problems: list[Problem] = []
    owned: list[list[_Annotation]] = [[] for _ in images]
    for annotation in document.annotations:
        if annotation.category_id not in wanted:
            continue
        row = row_of.get(annotation.image_id)
        if row is None:
            problems.append(Problem(-1, annotation.id, f"its image {annotation.image_id} is not in the file"))
        else:
            owned[row].append(annotation)

    shapes = _Shapes()
    kept: list[_Annotation] = []
    first = [0]
    for row, (image, found) in enumerate(zip(images, owned, strict=True)):
        for annotation in found:
            reason = shapes.add(annotation.segmentation, image.height, image.width)
            if reason:
                problems.append(Problem(row, annotation.id, reason))
            else:
                kept.append(annotation)
        first.append(len(kept))
    return PersonTable(
        image_id=np.array([image.id for image in images], np.int64),
        file_name=tuple(image.file_name for image in images),
        height=np.array([image.height for image in images], np.int64),
        width=np.array([image.width for image in images], np.int64),
        first=np.array(first, np.int64),
        annotation_id=np.array([annotation.id for annotation in kept], np.int64),
        iscrowd=np.array([bool(annotation.iscrowd) for annotation in kept], np.uint8),
        keypoints=np.array([annotation.num_keypoints for annotation in kept], np.int64),
        area=np.array([annotation.area for annotation in kept], np.float64),
        problems=tuple(problems),
        **shapes.arrays(),
    )


def _read_document(path: Path) -> _Document:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing; unpack annotations_trainval2017.zip beside the images") from None
    try:
        with _no_collection():
            return msgspec.json.decode(data, type=_Document)
    except msgspec.ValidationError as error:
        raise DatasetError(f"{path} is not a COCO annotation file: {error}") from None
    except msgspec.DecodeError as error:
        raise DatasetError(
            f"{path} is not valid JSON ({error}; the file has {len(data):,} bytes); it may be cut short: get it again"
        ) from None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of new objects without a cycle among them: the collector would only walk them over and over."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Shapes:
    """Collects the parts of annotations in flat lists."""

    def __init__(self) -> None:
        self.part_start, self.kind, self.start, self.length = [0], list[int](), list[int](), list[int]()
        self.xy, self.counts = list[npt.NDArray[np.float64]](), list[I64]()
        self.points, self.runs = 0, 0

    def add(self, segmentation: list[list[float]] | _Rle | None, height: int, width: int) -> str:
        """Add one annotation; returns why it cannot be drawn, or an empty string."""
        if segmentation is None:
            return "it has no segmentation"
        reason = (
            self._add_polygons(segmentation)
            if isinstance(segmentation, list)
            else self._add_rle(segmentation, height, width)
        )
        if not reason:
            self.part_start.append(len(self.kind))
        return reason

    def _add_polygons(self, polygons: list[list[float]]) -> str:
        if not polygons or not any(polygons):
            return "its polygon is empty"
        # As in pycocotools, the first element decides whether all are boxes (x, y, width, height) or polygons.
        if len(polygons[0]) == 4:
            if any(len(box) != 4 for box in polygons):
                return "it mixes boxes and polygons"
            arrays = [box_polygon(*box) for box in polygons]
        else:
            if len(polygons[0]) < 4:
                return f"its polygon has {len(polygons[0])} numbers, fewer than the 6 of a triangle"
            if any(len(polygon) < 2 for polygon in polygons):
                return "one of its polygons is empty"
            arrays = [np.array(polygon[: len(polygon) // 2 * 2], np.float64) for polygon in polygons]
        for array in arrays:
            if not (np.abs(array) <= COORDINATE_LIMIT).all():  # false for NaN, too
                return "a coordinate is not a finite number of pixels"
        for array in arrays:
            self._part(POLYGON, self.points, len(array) // 2)
            self.xy.append(array)
            self.points += len(array)
        return ""

    def _add_rle(self, rle: _Rle, height: int, width: int) -> str:
        if rle.size != [height, width]:
            return f"its RLE is for {rle.size} pixels, its image has {[height, width]}"
        if isinstance(rle.counts, str):
            text = np.frombuffer(rle.counts.encode(), np.uint8)
            buffer = np.empty(len(text), np.int64)
            runs = decode_rle_string(text, buffer)
            if runs < 0:
                return "its compressed RLE is malformed"
            counts = buffer[:runs]
        else:
            counts = np.array(rle.counts, np.int64)
        if (counts < 0).any() or counts.sum() != height * width:
            return f"its RLE covers {counts.sum()} pixels, its image has {height * width}"
        self._part(RLE, self.runs, len(counts))
        self.counts.append(counts)
        self.runs += len(counts)
        return ""

    def _part(self, kind: int, start: int, length: int) -> None:
        self.kind.append(kind)
        self.start.append(start)
        self.length.append(length)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The flat arrays, named as in `PersonTable`."""
        return {
            "part_start": np.array(self.part_start, np.int64),
            "kind": np.array(self.kind, np.uint8),
            "start": np.array(self.start, np.int64),
            "length": np.array(self.length, np.int64),
            "xy": _join(self.xy, np.float64),
            "counts": _join(self.counts, np.int64),
        }


def _join(arrays: Iterable[npt.NDArray[Any]], dtype: type[np.generic]) -> npt.NDArray[Any]:
    parts = list(arrays)
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
