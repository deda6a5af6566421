"""The annotation file that is written for measuring, and what is measured on it."""

import contextlib
import io
import re

import psutil
import pytest
from pycocotools.coco import COCO

from bench.config import BenchConfig, Setup
from bench.material import open_material
from bench.suites import annotations
from bench.suites.annotations import annotation_rows

SCALE = 0.005


def test_its_file_is_the_datasets_annotations_again_and_again(tmp_path, write_coco):
    """Read by pycocotools, each copy of a photo has what the photo has."""
    coco = write_coco(tmp_path / "coco", counts=(8, 1))
    setup = Setup.of(BenchConfig(coco=coco, photos=5))
    with open_material(setup) as material:
        table = material.split.table
        rows = [int(row) for row in material.split.rows]
        annotations.repeat_dataset(material.split, tmp_path / "again", 12)
        (path,) = (tmp_path / "again" / "annotations").iterdir()
        with contextlib.redirect_stdout(io.StringIO()):
            again, once = COCO(str(path)), COCO(str(material.split.annotations))
    assert len(again.imgs) == 12
    for number in range(12):
        photo = int(table.image_id[rows[number % len(rows)]])
        found = [again.anns[one]["segmentation"] for one in again.getAnnIds(imgIds=[number])]
        assert found == [once.anns[one]["segmentation"] for one in once.getAnnIds(imgIds=[photo])]
        assert found


def test_the_suite_measures_all_readers(monkeypatch):
    monkeypatch.setattr(annotations, "QUICK_SCALE", SCALE)
    monkeypatch.setattr(annotations, "MOST_ROUNDS", 2)  # each is three processes
    setup = Setup.of(BenchConfig(quick=True, seconds=0.01, photos=8, suites=("raster",)))
    with open_material(setup) as material:
        rows = {row.name: row for row in annotation_rows(setup, material)}
        assert not (material.folder / "annotations").exists()
    readers = ["annotations", "annotations by pycocotools", "annotations by json"]
    ratios = ["annotations: times pycocotools", "annotations: times json"]
    assert list(rows) == [*readers, *ratios, *(f"{name}: peak memory" for name in readers)]
    for row in rows.values():
        assert (row.suite, row.kind, row.runs) == ("annotations", "measured", 2)
        assert re.match(r"[\d,]+ annotations of 321 images in \d+ MB", row.setup)
        assert 0 < row.p10 <= row.value <= row.p90
    assert {rows[name].unit for name in readers} == {"annotations/s"}
    assert all(0 < rows[name].ratio < 1 for name in readers)
    times = rows[readers[0]].value / rows[readers[1]].value
    assert rows[ratios[0]].value == pytest.approx(times, rel=0.5)
    own = psutil.Process().memory_info().rss / 1e6
    for name in readers:
        memory = rows[f"{name}: peak memory"]
        assert memory.unit == "MB"
        assert 5 < memory.value < own, "the memory of this process is not that of the reader"
        assert memory.limit > 0.1
