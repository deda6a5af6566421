"""Annotations that can be drawn, with their shapes, as flat arrays; by image, however many they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.disk_array import DiskArray
from preprocess.raster import POLYGON

if TYPE_CHECKING:
    from preprocess.coco import PersonTable

I64 = npt.NDArray[np.int64]

AT_A_TIME = 1 << 16
"""Annotations that are put in order at a time."""


class Drawables(NamedTuple):
    """A annotations with P parts. See `preprocess.coco.PersonTable`.

    Attributes:
        row: `(A,)` the image's row, ascending.
        annotation_id, iscrowd, keypoints, area: `(A,)`.
        part_start: `(A + 1,)`.
        kind, start, length: `(P,)`.
        xy, counts: of all parts.
    """

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

    def take(self, chosen: I64) -> Drawables:
        """The annotations `chosen`, in this order."""
        return Drawables(
            row=self.row[chosen],
            annotation_id=self.annotation_id[chosen],
            iscrowd=self.iscrowd[chosen],
            keypoints=self.keypoints[chosen],
            area=self.area[chosen],
            **take_shapes(self, chosen),
        )


class DrawablesOnDisk:
    """Drawables one behind the other, of any number, in files without names."""

    def __init__(self) -> None:
        self._columns = {name: DiskArray(_DTYPES.get(name, np.int64)) for name in Drawables._fields}
        self._columns["part_start"].extend(np.zeros(1))

    def extend(self, more: Drawables) -> None:
        """Put some at the end. Raises `OSError` where the disk is full."""
        polygon = more.kind == POLYGON
        starts = np.where(polygon, len(self._columns["xy"]), len(self._columns["counts"])) + more.start
        moved = more._replace(part_start=more.part_start[1:] + len(self._columns["kind"]), start=starts)
        for name, values in moved._asdict().items():
            self._columns[name].extend(values)

    def map(self) -> Drawables:
        """All of them, in the order in which they came."""
        return Drawables(**{name: column.map() for name, column in self._columns.items()})


_DTYPES: dict[str, Any] = {"iscrowd": np.uint8, "kind": np.uint8, "area": np.float64, "xy": np.float64}


def by_image(blocks: Iterable[Drawables]) -> Drawables:
    """Blocks of drawables as one, ordered by image, and within an image by block; one block is given back as it is.

    Several are kept on disk: two of them are in memory at a time, and then `AT_A_TIME` annotations.

    Raises:
        OSError: that disk is full.
    """
    unordered, edges = None, [0]
    block = None
    for following in blocks:
        if block is not None:
            unordered = unordered or DrawablesOnDisk()
            unordered.extend(block)
        edges.append(edges[-1] + len(following.row))
        block = following
    assert block is not None
    if unordered is None:
        return block
    unordered.extend(block)
    del block
    return _merge(unordered.map(), edges)


def _merge(found: Drawables, edges: list[int]) -> Drawables:
    """Order drawables by image; those between two edges are in order already."""
    ordered = DrawablesOnDisk()
    heads, rest = edges[:-1], edges[1:]
    while any(head < end for head, end in zip(heads, rest, strict=True)):
        # No image before this one has an annotation behind those that are looked at.
        least = -(-AT_A_TIME // len(heads))
        beyond = min(
            (int(found.row[head + least]) for head, end in zip(heads, rest, strict=True) if head + least < end),
            default=None,
        )
        stops = []
        for head, end in zip(heads, rest, strict=True):
            if beyond is None:
                stops.append(end)
            else:
                stops.append(head + int(np.searchsorted(found.row[head:end], beyond, "right")))
        chosen = np.concatenate([np.arange(head, stop) for head, stop in zip(heads, stops, strict=True)])
        ordered.extend(found.take(chosen[np.argsort(found.row[chosen], kind="stable")]))
        heads = stops
    return ordered.map()


def take_shapes(among: Drawables | PersonTable, annotations: I64) -> dict[str, npt.NDArray[Any]]:
    """The shapes of some annotations, in this order: `part_start` and all that comes after it."""
    parts, part_start = ranges(among.part_start[annotations], among.part_start[annotations + 1])
    kind, start, length = among.kind[parts], among.start[parts], among.length[parts]
    polygon = kind == POLYGON
    numbers, xy_start = ranges(start[polygon], start[polygon] + 2 * length[polygon])
    runs, counts_start = ranges(start[~polygon], start[~polygon] + length[~polygon])
    moved = np.empty_like(start)
    moved[polygon], moved[~polygon] = xy_start[:-1], counts_start[:-1]
    return {
        "part_start": part_start,
        "kind": kind,
        "start": moved,
        "length": length,
        "xy": among.xy[numbers],
        "counts": among.counts[runs],
    }


def ranges(begin: npt.NDArray[Any], end: npt.NDArray[Any]) -> tuple[I64, I64]:
    """The numbers of N ranges one behind the other, and `(N + 1,)` where each range begins among them."""
    sizes = end - begin
    edges = np.concatenate(([0], np.cumsum(sizes)))
    return np.repeat(begin - edges[:-1], sizes) + np.arange(edges[-1]), edges
