"""The suite `annotations`: an annotation file like COCO's read by our reader, pycocotools and plain json.

The file has as many images as COCO's own: the dataset's, in turn, with their annotations.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from bench.config import Setup
from bench.material import Material, repeat_dataset
from bench.report import Row, times_name
from bench.timing import Rates, Work
from bench.workloads import PEAK_MEMORY, run_program
from cache.messages import message
from preprocess.annotations.table import load_persons

IMAGES = 64_115
"""Images in COCO's `person_keypoints_train2017.json`."""

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
    folder = material.folder / "annotations"
    path, small = (_repeated(material, folder / str(share), share) for share in (scale, WARM_UP_SCALE))
    table, size = load_persons(path), path.stat().st_size
    annotations = len(table.annotation_id)
    table_size = sum(column.nbytes for column in vars(table).values() if isinstance(column, np.ndarray))
    copied = setup.measure({"": Work(run=partial(_copy, path, bytearray(size)), items=annotations)})[""]
    runs: dict[str, list[list[float]]] = {name: [] for name in _READERS}
    for _ in range(min(setup.rounds, MOST_ROUNDS)):
        for name, (imports, call) in _READERS.items():
            program = _PROGRAM.replace("{imports}", imports).replace("{call}", call)
            runs[name].append(run_program(program, small, path))
    shutil.rmtree(folder)

    found = {name: Rates(tuple(annotations / seconds for seconds, _ in values)) for name, values in runs.items()}
    described = message(
        "{annotations:,} annotations of {images:,} images in {size:.0f} MB",
        annotations=annotations,
        images=len(table),
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


def _repeated(material: Material, folder: Path, scale: float) -> Path:
    """An annotation file of the photos in turn, `scale` times as many as COCO has."""
    repeat_dataset(material.split, folder, max(1, round(scale * IMAGES)))
    (path,) = (folder / "annotations").iterdir()
    return path


def _copy(path: Path, buffer: bytearray) -> None:
    """Read a file into memory of its size that exists already."""
    with path.open("rb", buffering=0) as file:
        assert file.readinto(buffer) == len(buffer)
