"""Read a COCO annotation file as flat arrays, in memory or, where the file is too long for that, on disk."""

from __future__ import annotations

import dataclasses
import mmap
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import PurePath
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np

from cache.arrays import F64, I64, U8, Array
from cache.messages import message
from preprocess.annotations.document import Images, Piece, column, no_space, read_document, reading
from preprocess.annotations.shapes import read_shapes
from preprocess.raster import POLYGON

AT_A_TIME = 1 << 16
"""Annotations of a long file that are put in order at a time."""

_DENSE = 64
"""Ids are looked up in a table if their range is at most this many times their number. COCO's is nine times."""


class Problem(NamedTuple):
    """An annotation that cannot be used: its image's row in the table (-1: it has none), its own id, and the reason.

    `annotation` is None for an entry of the file's images that is no image.
    """

    image: int
    annotation: int | None
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Annotations:
    """Annotations that can be drawn, ordered by image, within an image as in the file, and their shapes.

    Annotation `a` owns parts `part_start[a]:part_start[a + 1]`, `part_start` being `(A + 1,)`; parts are shapes as
    `preprocess.raster` has them.
    """

    annotation_id: I64  # `(A,)`
    iscrowd: U8
    keypoints: I64  # `(A,)` labelled keypoints
    area: F64  # `(A,)` pixels; the JSON's, NaN where it gives none
    part_start: I64
    # kind, start, length: `(P,)` parts.
    kind: U8
    start: I64
    length: I64
    xy: F64  # polygon coordinates, pixels
    counts: I64  # RLE runs, pixels


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _OwnedAnnotations(Annotations):
    """Annotations of a piece of a file; `row` is `(A,)` the image's row of each."""

    row: I64


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PersonTable(Annotations):
    """All images of a COCO file and their person annotations, as flat arrays."""

    image_id: I64  # `(I,)`, in the order of the file
    file_name: tuple[str, ...]
    # height, width: `(I,)` pixels, as the JSON says; both 0 where it does not.
    height: I64
    width: I64
    first: I64  # `(I + 1,)`; image `i` owns annotations `first[i]:first[i + 1]`
    problems: tuple[Problem, ...]  # annotations that were left out, and why
    # Why images cannot be used whatever their annotations are, by row.
    faults: dict[int, str] = dataclasses.field(default_factory=dict)
    # Labelled keypoints of the annotations that were left out, by row.
    lost_keypoints: dict[int, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def left_out(self) -> int:
        """The number of annotations that were left out."""
        return sum(problem.annotation is not None for problem in self.problems)

    @property
    def annotation_image(self) -> I64:
        """`(A,)` the image's row of each annotation."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))


def take_images(table: PersonTable, rows: I64) -> PersonTable:
    """The images `rows` of a table in this order, with their annotations and all that is wrong with them."""
    number = {row: number for number, row in enumerate(rows.tolist())} | {-1: -1}
    annotations, first = _ranges(table.first[rows], table.first[rows + 1])
    return PersonTable(
        image_id=table.image_id[rows],
        file_name=tuple(table.file_name[row] for row in rows.tolist()),
        height=table.height[rows],
        width=table.width[rows],
        first=first,
        **_take_annotations(table, annotations),
        problems=tuple(each._replace(image=number[each.image]) for each in table.problems if each.image in number),
        faults={number[row]: reason for row, reason in table.faults.items() if row in number},
        lost_keypoints={number[row]: lost for row, lost in table.lost_keypoints.items() if row in number},
    )


def load_persons(path: PurePath, categories: Sequence[str] | str = "person") -> PersonTable:
    """Read the images of a COCO annotation file and their annotations of one or more categories, by name or id.

    A file longer than `document.ONE_PIECE` is read in pieces, and the arrays of annotations lie on disk: the system's
    folder for temporary files needs twice the file's size. What stays in memory grows with the number of images alone.

    Values of other types than COCO's are read as they are meant; `dialects.read_id` says how ids become numbers.
    Annotations that cannot be used (no shape, an RLE that does not fill its image, a coordinate that is none, an
    unknown image, no category) are left out and named in `problems`, images without a name or a size in `faults`.
    Annotations of other categories are not checked. Raises `DatasetError`: the file is missing, is no JSON (with the
    byte), is no COCO file, or lacks a category; or there is not enough space on that disk.
    """
    lost_keypoints: Counter[int] = Counter()
    with reading(path):
        images, pieces = read_document(path, categories)
        problems = [Problem(-1, None, reason) for reason in images.problems]
        try:
            columns = {**vars(_by_image(_read_piece(images, piece, problems, lost_keypoints) for piece in pieces))}
        except OSError as error:
            raise no_space(path, error) from None
    return PersonTable(
        image_id=images.id,
        file_name=images.file_name,
        height=images.height,
        width=images.width,
        first=np.searchsorted(columns.pop("row"), np.arange(len(images.id) + 1)),
        **columns,
        problems=tuple(sorted(problems, key=attrgetter("image"))),
        faults=images.faults,
        lost_keypoints=dict(lost_keypoints),
    )


def _read_piece(
    images: Images, piece: Piece, problems: list[Problem], lost_keypoints: Counter[int]
) -> _OwnedAnnotations:
    """The annotations of a piece that can be drawn, ordered by image; the others go to `problems`."""

    def leave_out(row: int, annotation: int, keypoints: int, reason: str) -> None:
        problems.append(Problem(row, annotation, reason))
        if row >= 0 and keypoints:
            lost_keypoints[row] += keypoints

    persons, unusable = piece
    owner = _find(column(persons, "image_id"), images.id)
    lost = np.flatnonzero(owner < 0)
    for person in [persons[at] for at in lost.tolist()]:
        reason = message("its image {image_id} is not in the file", image_id=person.image_id)
        leave_out(-1, person.id, 0, reason)
    ids = np.array([each.image_id or 0 for each in unusable], np.int64)
    for image, each in zip(_find(ids, images.id).tolist(), unusable, strict=True):
        leave_out(-1 if each.image_id is None else image, each.id, each.num_keypoints, each.reason)
    order = np.argsort(owner, kind="stable")[len(lost) :]  # by image, and within an image as in the file
    sized = images.height[owner[order]] > 0
    reasons = {at: images.faults[int(owner[at])] for at in order[~sized].tolist()}
    order = order[sized]
    row = owner[order]
    # Columns are read in the order of the file: entries apart in memory take several times as long.
    found = {name: column(persons, name) for name in ("id", "iscrowd", "num_keypoints")}
    texts = [person.segmentation for person in persons]
    segmentations = [texts[at] for at in order.tolist()]
    shapes = read_shapes(segmentations, images.height[row], images.width[row])
    reasons |= {int(order[at]): reason for at, reason in shapes.reasons.items()}
    for at, reason in reasons.items():
        leave_out(int(owner[at]), persons[at].id, persons[at].num_keypoints, reason)
    drawable = shapes.parts > 0
    kept = order[drawable]
    return _OwnedAnnotations(
        row=row[drawable],
        annotation_id=found["id"][kept],
        iscrowd=(found["iscrowd"][kept] != 0).astype(np.uint8),
        keypoints=found["num_keypoints"][kept],
        area=column(persons, "area", np.float64)[kept],
        part_start=np.concatenate(([0], np.cumsum(shapes.parts[drawable]))),
        **{name: getattr(shapes, name) for name in ("kind", "start", "length", "xy", "counts")},
    )


def _find(wanted: I64, among: I64) -> I64:
    """The index of each wanted number in an array of distinct numbers; -1 where it is missing."""
    if not len(among):
        return np.full(len(wanted), -1)
    least, most = int(among.min()), int(among.max())
    if most - least < _DENSE * len(among):  # as COCO's are: a table of all numbers is ten times as fast as a search
        table = np.full(most - least + 1, -1)
        table[among - least] = np.arange(len(among))
        inside = (wanted >= least) & (wanted <= most)
        return np.where(inside, table[np.where(inside, wanted - least, 0)], -1)
    order = np.argsort(among)
    row = order[np.minimum(np.searchsorted(among, wanted, sorter=order), len(among) - 1)]
    return np.where(among[row] == wanted, row, -1)


def _by_image(blocks: Iterator[_OwnedAnnotations]) -> _OwnedAnnotations:
    """Blocks of annotations as one, ordered by image, and within an image by block; one block is returned as it is.

    Several are kept on disk. In memory are two of them at a time, and then 16 bytes per annotation. Raises `OSError`:
    that disk is full.
    """
    first = next(blocks)
    following = next(blocks, None)
    if following is None:
        return first
    found, ordered = _AnnotationsOnDisk(), _AnnotationsOnDisk()
    found.extend(first)
    del first
    while following is not None:
        found.extend(following)
        following = next(blocks, None)
    unordered = found.map()
    order = np.argsort(unordered.row, kind="stable")
    for begin in range(0, len(order), AT_A_TIME):
        chosen = order[begin : begin + AT_A_TIME]
        ordered.extend(_OwnedAnnotations(row=unordered.row[chosen], **_take_annotations(unordered, chosen)))
    return ordered.map()


class _AnnotationsOnDisk:
    """Any number of annotations, in files without names in the system's folder for temporary files.

    The system may free the memory of what was read from them. The files are gone when nothing refers to them.
    """

    def __init__(self) -> None:
        names = [field.name for field in dataclasses.fields(_OwnedAnnotations)]
        self._columns = {name: TemporaryFile(prefix="maskcache-") for name in names}  # noqa: SIM115
        self._sizes = dict.fromkeys(names, 0)
        self._append("part_start", np.zeros(1, np.int64))

    def extend(self, more: _OwnedAnnotations) -> None:
        """Append annotations. Raises `OSError` where the disk is full."""
        start = np.where(more.kind == POLYGON, self._sizes["xy"], self._sizes["counts"]) + more.start
        moved = {"part_start": more.part_start[1:] + self._sizes["kind"], "start": start}
        for name, values in (vars(more) | moved).items():
            self._append(name, values)

    def _append(self, name: str, values: Array) -> None:
        self._columns[name].write(np.ascontiguousarray(values, _DTYPES.get(name, np.int64)).data)
        self._sizes[name] += len(values)

    def map(self) -> _OwnedAnnotations:
        """All annotations in the order in which they were appended. Writes to the arrays do not reach the files."""
        arrays = {}
        for name, file in self._columns.items():
            file.flush()
            empty = not self._sizes[name]  # which cannot be mapped
            pages = bytearray() if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            arrays[name] = np.frombuffer(pages, _DTYPES.get(name, np.int64))
        return _OwnedAnnotations(**arrays)


_DTYPES: dict[str, Any] = {"iscrowd": np.uint8, "kind": np.uint8, "area": np.float64, "xy": np.float64}


def _take_annotations(among: Annotations, chosen: I64) -> dict[str, Array]:
    """The annotations `chosen`, in this order, with their shapes: all columns but their images."""
    parts, part_start = _ranges(among.part_start[chosen], among.part_start[chosen + 1])
    kind, start, length = among.kind[parts], among.start[parts], among.length[parts]
    polygon = kind == POLYGON
    numbers, xy_start = _ranges(start[polygon], start[polygon] + 2 * length[polygon])
    runs, counts_start = _ranges(start[~polygon], start[~polygon] + length[~polygon])
    moved = np.empty_like(start)
    moved[polygon], moved[~polygon] = xy_start[:-1], counts_start[:-1]
    own = {name: getattr(among, name)[chosen] for name in ("annotation_id", "iscrowd", "keypoints", "area")}
    shapes = {"part_start": part_start, "kind": kind, "start": moved, "length": length}
    return {**own, **shapes, "xy": among.xy[numbers], "counts": among.counts[runs]}


def _ranges(begin: Array, end: Array) -> tuple[I64, I64]:
    """The numbers of N ranges one after the other, and `(N + 1,)` where each range begins among them."""
    sizes = end - begin
    edges = np.concatenate(([0], np.cumsum(sizes)))
    return np.repeat(begin - edges[:-1], sizes) + np.arange(edges[-1]), edges
