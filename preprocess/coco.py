"""COCO JSON -> flat arrays."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from pathlib import Path, PurePath
from tempfile import gettempdir
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from cache import files
from preprocess.document import Annotations, Images, read_document
from preprocess.drawables import Drawables, by_image
from preprocess.errors import DatasetError
from preprocess.segmentations import read_shapes

I64 = npt.NDArray[np.int64]

Folder = TypeVar("Folder", bound=PurePath)

_OTHER_TASKS = ("captions_", "panoptic_")

_DENSE = 64
"""Numbers from the least id to the greatest, for each id: up to so many are looked up in a table. COCO has nine."""


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


def annotation_file(root: Folder, split: str) -> Folder:
    """Where the annotations of a split are: `person_keypoints_*`, else `instances_*`, else the only other file of it.

    Args:
        root: the folder that holds `annotations/`.
        split: as file names end, `train2017`.

    Raises:
        DatasetError: none is there, or several of unknown names, or it is not a file.
        StorageError: object storage cannot be listed.
    """
    folder = root / "annotations"
    names = [name for name in files.names(folder) if name.endswith(f"_{split}.json")]
    for family in ("person_keypoints", "instances"):
        if (name := f"{family}_{split}.json") in names:
            return _plain_file(folder / name)
    others = [name for name in names if not name.startswith(_OTHER_TASKS)]  # COCO's own; they tell nothing of shapes
    if len(others) == 1:
        return _plain_file(folder / others[0])
    if others:
        raise DatasetError(
            f"{folder} has {len(others)} files for {split} ({', '.join(others[:3])}); "
            f"name the one to be read instances_{split}.json"
        )
    raise DatasetError(
        f"{folder / f'person_keypoints_{split}.json'} is missing; "
        f"unpack annotations_trainval2017.zip in {root}, or point --coco at the folder that holds annotations/"
    )


def _plain_file(path: Folder) -> Folder:
    if isinstance(path, Path) and path.exists() and not path.is_file():  # to open a pipe is to wait for its writer
        raise DatasetError(f"{path} is a folder, a pipe or a device, not an annotation file")
    return path


def load_persons(path: PurePath, category: str = "person") -> PersonTable:
    """Read a COCO annotation file.

    One longer than `preprocess.document.ONE_PIECE` is read in pieces, and the arrays of annotations lie on disk: the
    system's folder for such files needs twice the file's size. What is in memory grows with the number of images alone.

    Annotations that cannot be drawn (no shape, an RLE that does not fill its image, a coordinate that is none, an
    unknown image) are left out and named in `problems`. What the file says of other categories is not looked at.

    Raises:
        DatasetError: the file is missing, is no JSON (with the byte), is no COCO file, or lacks the category; or there
            is no room on that disk.
    """
    images, pieces = read_document(path, category)
    if repeated := len(images.id) - len(np.unique(images.id)):
        raise DatasetError(f"{path} names {repeated} image ids twice; ids must be unique")
    problems: list[Problem] = []
    try:
        drawables = by_image(_read_piece(images, persons, problems) for persons in pieces)
    except OSError as error:
        raise DatasetError(
            f"{path} is too long for memory and is kept in {gettempdir()} while it is needed, which cannot be "
            f"written: {error.strerror}; name another folder in TMPDIR"
        ) from None
    values = drawables._asdict()
    return PersonTable(
        image_id=images.id,
        file_name=images.file_name,
        height=images.height,
        width=images.width,
        first=np.searchsorted(values.pop("row"), np.arange(len(images.id) + 1)),
        **values,
        problems=tuple(sorted(problems, key=attrgetter("image"))),
    )


def _read_piece(images: Images, persons: Annotations, problems: list[Problem]) -> Drawables:
    """What can be drawn of some annotations, by image; the others go to `problems`."""
    row = _find(persons.image_id, images.id)
    lost = np.flatnonzero(row < 0)
    problems += [
        Problem(-1, int(persons.id[at]), f"its image {persons.image_id[at]} is not in the file") for at in lost
    ]
    order = np.argsort(row, kind="stable")[len(lost) :]  # by image, and within an image as in the file
    row = row[order]
    segmentations = [persons.segmentation[at] for at in order.tolist()]
    shapes = read_shapes(segmentations, images.height[row], images.width[row])
    problems += [Problem(int(row[at]), int(persons.id[order[at]]), reason) for at, reason in shapes.reasons.items()]
    drawable = shapes.parts > 0
    kept = order[drawable]
    return Drawables(
        row=row[drawable],
        annotation_id=persons.id[kept],
        iscrowd=(persons.iscrowd[kept] != 0).astype(np.uint8),
        keypoints=persons.num_keypoints[kept],
        area=persons.area[kept],
        part_start=np.concatenate(([0], np.cumsum(shapes.parts[drawable]))),
        kind=shapes.kind,
        start=shapes.start,
        length=shapes.length,
        xy=shapes.xy,
        counts=shapes.counts,
    )


def _find(wanted: I64, among: I64) -> I64:
    """Where each of the wanted numbers is in an array that has none twice; -1 if it is not there."""
    if not len(among):
        return np.full(len(wanted), -1)
    least, most = int(among.min()), int(among.max())
    if most - least < _DENSE * len(among):  # as COCO's are: a table of all numbers is ten times as fast as a search
        table = np.full(most - least + 1, -1)
        table[among - least] = np.arange(len(among))
        inside = (wanted >= least) & (wanted <= most)
        return np.where(inside, table[np.where(inside, wanted - least, 0)], -1)
    order = np.argsort(among)
    place = np.minimum(np.searchsorted(among, wanted, sorter=order), len(among) - 1)
    row = order[place]
    return np.where(among[row] == wanted, row, -1)
