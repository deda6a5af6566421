"""Read a COCO annotation file as flat arrays, in memory or, where the file is too long for that, on disk."""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path, PurePath
from tempfile import TemporaryFile, gettempdir
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from cache import files
from cache.messages import message, system_reason
from preprocess.annotations.document import Annotations, Images, read_document
from preprocess.annotations.shapes import read_shapes
from preprocess.errors import DatasetError
from preprocess.raster import POLYGON

I64 = npt.NDArray[np.int64]

Folder = TypeVar("Folder", bound=PurePath)

_OTHER_TASKS = ("captions_", "panoptic_")
"""Beginnings of the names of COCO's own files without shapes."""

AT_A_TIME = 1 << 16
"""Annotations of a long file that are put in order at a time."""

_DENSE = 64
"""Ids are looked up in a table if their range is at most this many times their number. COCO's is nine times."""


class Problem(NamedTuple):
    """An annotation that cannot be used: its image's row in the table (-1: it has none), its own id, and the reason."""

    image: int
    annotation: int
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PersonTable:
    """All images of a COCO file and their person annotations, as flat arrays.

    Image `i` owns annotations `first[i]:first[i + 1]`, `first` being `(I + 1,)`; annotation `a` owns parts
    `part_start[a]:part_start[a + 1]`, `part_start` being `(A + 1,)`; parts are shapes as `preprocess.raster` has them.

    Attributes:
        image_id: `(I,)`, in the order of the file.
        height, width: `(I,)` pixels, as the JSON says.
        annotation_id: `(A,)`; ordered by image, within an image as in the file.
        keypoints: `(A,)` labelled keypoints.
        area: `(A,)` pixels; the JSON's, NaN where it gives none.
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


def take_images(table: PersonTable, rows: I64) -> PersonTable:
    """The images `rows` of a table in this order, with their annotations, but without the `problems`."""
    annotations, first = _ranges(table.first[rows], table.first[rows + 1])
    return PersonTable(
        image_id=table.image_id[rows],
        file_name=tuple(table.file_name[row] for row in rows.tolist()),
        height=table.height[rows],
        width=table.width[rows],
        first=first,
        **_take_annotations(table, annotations),
        problems=(),
    )


def annotation_file(root: Folder, split: str) -> Folder:
    """The path of a split's annotations: `person_keypoints_*`, else `instances_*`, else the split's only other file.

    `root` holds `annotations/`; `split` is the end of the file names, such as `train2017`.

    Raises:
        DatasetError: none is there, or several of unknown names, or it is not a file.
        StorageError: object storage cannot be listed.
    """
    folder = root / "annotations"
    names = [name for name in files.names(folder) if name.endswith(f"_{split}.json")]
    for family in ("person_keypoints", "instances"):
        if (name := f"{family}_{split}.json") in names:
            return _plain_file(folder / name)
    others = [name for name in names if not name.startswith(_OTHER_TASKS)]
    if not others:
        path = folder / f"person_keypoints_{split}.json"
        raise DatasetError(
            "{path} is missing; unpack annotations_trainval2017.zip in {root}, or point --coco at the "
            "folder that holds annotations/",
            path=path,
            root=root,
        )
    if len(others) > 1:
        values = {"folder": folder, "count": len(others), "split": split, "names": ", ".join(others[:3])}
        raise DatasetError(
            "{folder} has {count} files for {split} ({names}); name the one to be read instances_{split}.json", **values
        )
    return _plain_file(folder / others[0])


def _plain_file(path: Folder) -> Folder:
    if isinstance(path, Path) and path.exists() and not path.is_file():  # to open a pipe is to wait for its writer
        raise DatasetError("{path} is a folder, a pipe or a device, not an annotation file", path=path)
    return path


def load_persons(path: PurePath, category: str = "person") -> PersonTable:
    """Read a COCO annotation file.

    A file longer than `document.ONE_PIECE` is read in pieces, and the arrays of annotations lie on disk: the system's
    folder for temporary files needs twice the file's size. What stays in memory grows with the number of images alone.

    Annotations that cannot be drawn (no shape, an RLE that does not fill its image, a coordinate that is none, an
    unknown image) are left out and named in `problems`. Annotations of other categories are not checked.

    Raises:
        DatasetError: the file is missing, is no JSON (with the byte), is no COCO file, or lacks the category; or there
            is not enough space on that disk.
    """
    images, pieces = read_document(path, category)
    if repeated := len(images.id) - len(np.unique(images.id)):
        raise DatasetError("{path} names {repeated} image ids twice; ids must be unique", path=path, repeated=repeated)
    problems: list[Problem] = []
    try:
        columns = _by_image(_read_piece(images, persons, problems) for persons in pieces)._asdict()
    except OSError as error:
        values = {"path": path, "folder": gettempdir(), "reason": system_reason(error)}
        raise DatasetError(
            "{path} is too long for memory and is kept in {folder} while it is needed, which cannot be "
            "written: {reason}; name another folder in TMPDIR",
            **values,
        ) from None
    return PersonTable(
        image_id=images.id,
        file_name=images.file_name,
        height=images.height,
        width=images.width,
        first=np.searchsorted(columns.pop("row"), np.arange(len(images.id) + 1)),
        **columns,
        problems=tuple(sorted(problems, key=attrgetter("image"))),
    )


class _Annotations(NamedTuple):
    """Annotations that can be drawn, ordered by image, as in `PersonTable`; `row` is `(A,)` the image's row."""

    row: I64
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


def _read_piece(images: Images, persons: Annotations, problems: list[Problem]) -> _Annotations:
    """The annotations of a piece that can be drawn, ordered by image; the others go to `problems`."""
    row = _find(persons.image_id, images.id)
    lost = np.flatnonzero(row < 0)
    for at in lost:
        reason = message("its image {image_id} is not in the file", image_id=persons.image_id[at])
        problems.append(Problem(-1, int(persons.id[at]), reason))
    order = np.argsort(row, kind="stable")[len(lost) :]  # by image, and within an image as in the file
    row = row[order]
    segmentations = [persons.segmentation[at] for at in order.tolist()]
    shapes = read_shapes(segmentations, images.height[row], images.width[row])
    problems += [Problem(int(row[at]), int(persons.id[order[at]]), reason) for at, reason in shapes.reasons.items()]
    drawable = shapes.parts > 0
    kept = order[drawable]
    return _Annotations(
        row=row[drawable],
        annotation_id=persons.id[kept],
        iscrowd=(persons.iscrowd[kept] != 0).astype(np.uint8),
        keypoints=persons.num_keypoints[kept],
        area=persons.area[kept],
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


def _by_image(blocks: Iterator[_Annotations]) -> _Annotations:
    """Blocks of annotations as one, ordered by image, and within an image by block; one block is returned as it is.

    Several are kept on disk. In memory are two of them at a time, and then 16 bytes per annotation.

    Raises:
        OSError: that disk is full.
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
        ordered.extend(_Annotations(row=unordered.row[chosen], **_take_annotations(unordered, chosen)))
    return ordered.map()


class _AnnotationsOnDisk:
    """Any number of annotations, in files without names in the system's folder for temporary files.

    The system may free the memory of what was read from them. The files are gone when nothing refers to them.
    """

    def __init__(self) -> None:
        self._columns = {name: TemporaryFile(prefix="maskcache-") for name in _Annotations._fields}  # noqa: SIM115
        self._sizes = dict.fromkeys(_Annotations._fields, 0)
        self._append("part_start", np.zeros(1, np.int64))

    def extend(self, more: _Annotations) -> None:
        """Append annotations. Raises `OSError` where the disk is full."""
        start = np.where(more.kind == POLYGON, self._sizes["xy"], self._sizes["counts"]) + more.start
        moved = more._replace(part_start=more.part_start[1:] + self._sizes["kind"], start=start)
        for name, values in moved._asdict().items():
            self._append(name, values)

    def _append(self, name: str, values: npt.NDArray[Any]) -> None:
        self._columns[name].write(np.ascontiguousarray(values, _DTYPES.get(name, np.int64)).data)
        self._sizes[name] += len(values)

    def map(self) -> _Annotations:
        """All annotations in the order in which they were appended. Writes to the arrays do not reach the files."""
        arrays = {}
        for name, file in self._columns.items():
            file.flush()
            empty = not self._sizes[name]  # which cannot be mapped
            pages = bytearray() if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            arrays[name] = np.frombuffer(pages, _DTYPES.get(name, np.int64))
        return _Annotations(**arrays)


_DTYPES: dict[str, Any] = {"iscrowd": np.uint8, "kind": np.uint8, "area": np.float64, "xy": np.float64}


def _take_annotations(among: _Annotations | PersonTable, chosen: I64) -> dict[str, npt.NDArray[Any]]:
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


def _ranges(begin: npt.NDArray[Any], end: npt.NDArray[Any]) -> tuple[I64, I64]:
    """The numbers of N ranges one after the other, and `(N + 1,)` where each range begins among them."""
    sizes = end - begin
    edges = np.concatenate(([0], np.cumsum(sizes)))
    return np.repeat(begin - edges[:-1], sizes) + np.arange(edges[-1]), edges
