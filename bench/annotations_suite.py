"""An annotation file like COCO's to arrays: our reader, pycocotools, plain json, and copying the bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from bench.annotation_file import ANNOTATIONS, IMAGES, write_annotation_file
from bench.config import Setup
from bench.material import Material
from bench.report import Row
from bench.timing import Rates, Work
from bench.workloads import PEAK_MEMORY, run_program
from cache.messages import Message, message
from preprocess.coco import load_persons

TIMES = message("annotations: times {name}")
"""Name of a row; for `pycocotools` and `json`."""

SCALE, SHORT_SCALE, QUICK_SCALE = 1.0, 0.2, 0.05
"""Size of the file, in units of COCO's; the second one where the photos are drawn, and no figures are to be quoted."""
WARM_UP_SCALE = 0.0005

MOST_ROUNDS = 3
"""Runs of each reader; pycocotools takes five seconds."""

OURS = "annotations"

_READERS = {
    OURS: ("from pathlib import Path; from preprocess.coco import load_persons", "load_persons(Path(path))"),
    message("annotations by pycocotools"): ("from pycocotools.coco import COCO", "COCO(path)"),
    message("annotations by json"): ("import json", "json.load(open(path, 'rb'))"),
}
"""What a process imports, and what it does."""

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
        "{annotations:,} annotations of {scale:,} images in {size:.0f} MB",
        annotations=annotations,
        scale=round(scale * IMAGES),
        size=size / 1e6,
    )
    row = partial(Row.measured, suite="annotations", setup=described)
    for name, rates in found.items():
        yield row(
            rates,
            name=name,
            unit="annotations/s",
            ours=name == OURS,
            limit=copied,
            limit_name=message("copying the file from the page cache"),
            note=message(
                "in a fresh process that has read a few; our reader uses all processors for a part of the work"
            ),
        )
    for name, rates in found.items():
        if name != OURS:
            yield row(found[OURS].over(rates), name=Message(TIMES, name=name.split()[-1]), unit="times")
    for name, values in runs.items():
        if all(peak for _, peak in values):
            yield row(
                Rates(tuple(peak / 1e6 for _, peak in values)),
                name=message("{name}: peak memory", name=name),
                unit="MB",
                ours=name == OURS,
                limit=(size + table_size) / 1e6,
                limit_name=message("the file, and the table"),
                note=message("of the process, with Python and libraries; pages of a mapped file count"),
            )


def _copy(path: Path, buffer: bytearray) -> None:
    """Read a file into memory of its size that exists already."""
    with path.open("rb", buffering=0) as file:
        assert file.readinto(buffer) == len(buffer)
