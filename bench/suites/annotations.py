"""The suite `annotations`: an annotation file like COCO's read by our reader, pycocotools and plain json.

The file is as large as COCO's own and is written for the purpose, with random shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from bench.config import Setup
from bench.material import Material
from bench.report import Row, times_name
from bench.timing import Rates, Work
from bench.workloads import PEAK_MEMORY, run_program
from cache.messages import message
from preprocess.annotations.table import load_persons
from preprocess.synth.dataset import empty_document

Entry = dict[str, Any]
Generator = np.random.Generator
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

IMAGES = 64_115
ANNOTATIONS = 262_465
"""Numbers in COCO's `person_keypoints_train2017.json`."""

CROWD_SHARE = 0.015
PARTS_SHARE = (0.90, 0.07, 0.02, 0.01)
"""Shares of persons with one, two, three and four polygons."""
POINTS = (26, 0.70)
RADIUS = (25, 1.0)
RUNS = (650, 0.90)
"""A polygon's points and radius in pixels, a crowd region's runs: median and standard deviation of the logarithm."""
KEYPOINTS_SHARE = 0.57
"""Share of persons with labelled keypoints."""
KEYPOINT_SHARE = 0.65
"""Share of the keypoints of such a person that are labelled."""

CHUNK = 4096
"""Images or annotations in memory at a time."""

SCALE, SHORT_SCALE, QUICK_SCALE = 1.0, 0.2, 0.05
"""Size of the file, in units of COCO's; the second one where the photos are drawn, and no figures are to be quoted."""
WARM_UP_SCALE = 0.0005

MOST_ROUNDS = 3
"""Runs of each reader; pycocotools takes five seconds."""

OURS = message("annotations")

_READERS = {
    OURS: (
        "from pathlib import Path; from preprocess.annotations.table import load_persons",
        "load_persons(Path(path))",
    ),
    message("annotations by pycocotools"): ("from pycocotools.coco import COCO", "COCO(path)"),
    message("annotations by json"): ("import json", "json.load(open(path, 'rb'))"),
}
"""Name of the row, what its process imports, and how it reads `path`."""

_PROGRAM = (
    PEAK_MEMORY
    + """
import sys, time
{imports}
def read(path):
    return {call}
read(sys.argv[1])
start = time.perf_counter()
content = read(sys.argv[2])
seconds = time.perf_counter() - start
print(seconds, peak_memory())
"""
)


def annotation_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Rates and peak memory of the readers, each in a process of its own."""
    scale = QUICK_SCALE if setup.config.quick else SHORT_SCALE if material.drawn else SCALE
    path, small = material.folder / "annotations.json", material.folder / "few annotations.json"
    write_annotation_file(path, scale=scale)
    write_annotation_file(small, scale=WARM_UP_SCALE)
    annotations, size = round(scale * ANNOTATIONS), path.stat().st_size
    columns = vars(load_persons(path)).values()
    table_size = sum(column.nbytes for column in columns if isinstance(column, np.ndarray))
    copied = setup.measure({"": Work(run=partial(_copy, path, bytearray(size)), items=annotations)})[""]
    runs: dict[str, list[list[float]]] = {name: [] for name in _READERS}
    for _ in range(min(setup.rounds, MOST_ROUNDS)):
        for name, (imports, call) in _READERS.items():
            program = _PROGRAM.replace("{imports}", imports).replace("{call}", call)
            runs[name].append(run_program(program, small, path))
    path.unlink()

    found = {name: Rates(tuple(annotations / seconds for seconds, _ in values)) for name, values in runs.items()}
    described = message(
        "{annotations:,} annotations of {images:,} images in {size:.0f} MB",
        annotations=annotations,
        images=round(scale * IMAGES),
        size=size / 1e6,
    )
    row = partial(Row.measured, suite="annotations", setup=described)
    limit_name = message("copying the file from the page cache")
    note = message("in a fresh process that has read a few; our reader uses all processors for a part of the work")
    for name, rates in found.items():
        ours = name == OURS
        yield row(rates, name=name, unit="annotations/s", ours=ours, limit=copied, limit_name=limit_name, note=note)
    for name, rates in found.items():
        if name != OURS:
            yield row(found[OURS].over(rates), name=times_name(OURS, name.split()[-1]), unit="times")
    note = message("of the process, with Python and libraries; pages of a mapped file count")
    row = partial(row, limit=(size + table_size) / 1e6, limit_name=message("the file, and the table"), note=note)
    for name, values in runs.items():
        if all(peak for _, peak in values):
            megabytes = Rates(tuple(peak / 1e6 for _, peak in values))
            yield row(megabytes, name=message("{name}: peak memory", name=name), unit="MB", ours=name == OURS)


def _copy(path: Path, buffer: bytearray) -> None:
    """Read a file into memory of its size that exists already."""
    with path.open("rb", buffering=0) as file:
        assert file.readinto(buffer) == len(buffer)


def write_annotation_file(path: Path, *, scale: float = 1.0, seed: int = 0) -> None:
    """Write an annotation file that takes a reader as long as COCO's `person_keypoints_train2017.json` does.

    At scale 1 it has COCO's numbers of images and annotations and about 277 MB, with COCO's fields in COCO's order and
    a space after each comma and colon, as `json.dumps` writes them. The shares and medians above follow a sample of
    2,086 annotations of COCO: a person has 37 points on average, with two decimals; a crowd has uncompressed run
    lengths; areas have all their digits. The number of persons per image is geometrically distributed, from one;
    annotations are in random order. Unlike COCO's, shapes are wobbling circles, and keypoints are anywhere in the box.
    At least one image and one annotation are written; equal seeds and scales give equal bytes.
    """
    rng = np.random.default_rng(seed)
    images, annotations = (max(1, round(scale * total)) for total in (IMAGES, ANNOTATIONS))
    sizes = _sizes(rng, images)
    image_ids = np.sort(rng.choice(9 * images, images, replace=False)) + 1
    owner = _owners(rng, images, annotations)
    before, after = _text(empty_document("Random shapes with COCO's statistics", "1.0")).split(b'[], "annotations": []')
    with path.open("wb") as file:
        file.write(before)
        _write_list(file, _images(rng, image_ids, sizes))
        file.write(b', "annotations": ')
        _write_list(file, _annotations(rng, rng.permutation(annotations) + 1, image_ids[owner], sizes[owner]))
        file.write(after)


def _text(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=0)


def _write_list(file: BinaryIO, chunks: Iterable[list[Entry]]) -> None:
    """Write the entries of all chunks as one list."""
    before = b"["
    for entries in chunks:
        file.write(before)
        file.write(_text(entries)[1:-1])  # without brackets of its own
        before = b", "
    file.write(b"]")


def _sizes(rng: Generator, images: int) -> I64:
    """`(images, 2)` heights and widths in pixels."""
    short = rng.choice([427, 480, 426, 428, 425, 360, 512], images)
    sizes = np.stack((short, np.full(images, 640)), axis=1)
    upright = rng.random(images) < 0.25
    sizes[upright] = sizes[upright, ::-1]
    return sizes


def _owners(rng: Generator, images: int, annotations: int) -> I64:
    """`(annotations,)` the number of each one's image; each image has one before any has two."""
    weights = rng.exponential(size=images)  # numbers drawn at exponential rates are geometric
    rest = rng.choice(images, max(0, annotations - images), p=weights / weights.sum())
    return rng.permutation(np.concatenate((np.arange(images), rest))[:annotations])


def _log_normal(rng: Generator, median_and_deviation: tuple[float, float], number: int) -> F64:
    median, deviation = median_and_deviation
    return rng.lognormal(np.log(median), deviation, number)


def _chunks(total: int) -> Iterator[slice]:
    return (slice(begin, min(begin + CHUNK, total)) for begin in range(0, total, CHUNK))


def _images(rng: Generator, image_ids: I64, sizes: I64) -> Iterator[list[Entry]]:
    for chunk in _chunks(len(image_ids)):
        ids = image_ids[chunk].tolist()
        photos = rng.integers(10**9, 10**10, len(ids)).tolist()
        yield [
            {
                "license": 1,
                "file_name": f"{image_id:012d}.jpg",
                "coco_url": f"http://images.cocodataset.org/train2017/{image_id:012d}.jpg",
                "height": height,
                "width": width,
                "date_captured": f"2013-11-{14 + photo % 11} {photo % 24:02d}:{photo % 60:02d}:{photo % 59:02d}",
                "flickr_url": f"http://farm{1 + photo % 9}.staticflickr.com/{photo % 9000}/{photo}_{photo:010x}_z.jpg",
                "id": image_id,
            }
            for image_id, photo, (height, width) in zip(ids, photos, sizes[chunk].tolist(), strict=True)
        ]


def _annotations(rng: Generator, ids: I64, image_ids: I64, sizes: I64) -> Iterator[list[Entry]]:
    for chunk in _chunks(len(ids)):
        number = len(ids[chunk])
        persons, areas, boxes = _draw(rng, sizes[chunk])
        crowd = rng.random(number) < CROWD_SHARE
        keypoints = _keypoints(rng, boxes, ~crowd & (rng.random(number) < KEYPOINTS_SHARE))
        shapes = zip(persons, crowd.tolist(), sizes[chunk].tolist(), strict=True)
        columns = {
            "segmentation": [_crowd_region(rng, size) if is_crowd else polygons for polygons, is_crowd, size in shapes],
            "num_keypoints": (keypoints[:, :, 2] > 0).sum(axis=1).tolist(),
            "area": areas.tolist(),
            "iscrowd": crowd.astype(int).tolist(),
            "keypoints": keypoints.reshape(number, -1).tolist(),
            "image_id": image_ids[chunk].tolist(),
            "bbox": boxes.round(2).tolist(),
            "category_id": [1] * number,
            "id": ids[chunk].tolist(),
        }
        yield [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _draw(rng: Generator, sizes: I64) -> tuple[list[list[list[float]]], F64, F64]:
    """Draw a person in each of N images of the given heights and widths: polygons, areas `(N,)`, boxes `(N, 4)`."""
    parts = rng.choice(len(PARTS_SHARE), len(sizes), p=PARTS_SHARE) + 1
    first_part = np.cumsum(parts) - parts
    points = np.clip(_log_normal(rng, POINTS, parts.sum()), 3, 400).astype(np.int64)
    end = np.cumsum(points)
    first = end - points

    limits = np.repeat(sizes[:, ::-1], parts, axis=0)  # x, y
    centres = rng.random((len(points), 2)) * limits
    radii = _log_normal(rng, RADIUS, len(points))
    angles = 2 * np.pi * (np.arange(end[-1]) - np.repeat(first, points)) / np.repeat(points, points)
    wobble = np.repeat(radii, points) * rng.uniform(0.7, 1.3, end[-1])
    outline = np.repeat(centres, points, axis=0) + wobble[:, None] * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    outline = np.clip(outline, 0, np.repeat(limits, points, axis=0)).round(2)

    following = np.arange(1, end[-1] + 1)
    following[end - 1] = first
    (x, y), (next_x, next_y) = outline.T, outline[following].T
    areas = np.abs(np.add.reduceat(x * next_y - next_x * y, first)) / 2
    low = np.minimum.reduceat(outline, first[first_part])
    high = np.maximum.reduceat(outline, first[first_part])
    flat = outline.ravel().tolist()
    polygons = [flat[2 * begin : 2 * stop] for begin, stop in zip(first.tolist(), end.tolist(), strict=True)]
    persons = [polygons[part : part + n] for part, n in zip(first_part.tolist(), parts.tolist(), strict=True)]
    return persons, np.add.reduceat(areas, first_part), np.concatenate((low, high - low), axis=1)


def _keypoints(rng: Generator, boxes: F64, labelled: npt.NDArray[np.bool_]) -> I64:
    """`(N, 17, 3)` x, y and visibility: 1 or 2 where labelled; 0, as x and y are, elsewhere."""
    keypoints = np.empty((len(boxes), 17, 3), np.int64)
    keypoints[:, :, :2] = boxes[:, None, :2] + boxes[:, None, 2:] * rng.random((len(boxes), 17, 2))
    keypoints[:, :, 2] = rng.integers(1, 3, (len(boxes), 17))
    keypoints[~(labelled[:, None] & (rng.random((len(boxes), 17)) < KEYPOINT_SHARE))] = 0
    return keypoints


def _crowd_region(rng: Generator, size: list[int]) -> Entry:
    """Uncompressed run lengths that fill an image of this height and width."""
    pixels = size[0] * size[1]
    (runs,) = np.clip(_log_normal(rng, RUNS, 1), 3, 4000).astype(np.int64)
    cuts = np.unique(rng.integers(1, pixels, runs - 1))
    return {"counts": np.diff(cuts, prepend=0, append=pixels).tolist(), "size": size}
