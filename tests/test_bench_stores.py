"""The suites `stores` and `verify`, as small as they can be: what they measure is there, and is what it says."""

import math
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

import bench.suites.stores
from bench.config import BenchConfig, Setup
from bench.material import open_material
from bench.suites.stores import store_rows, verify_rows
from cache.record import RecordLayout
from preprocess.synth.dataset import SynthConfig, make_dataset

TINY = {
    "profile": "cpu",
    "side": 64,
    "batch_size": 2,
    "threads": 2,
    "quick": True,
    "seconds": 0.01,
    "photos": 6,
    "megabytes": 1,
}


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp("bench") / "coco"
    make_dataset(root, SynthConfig(images=8, val_fraction=0, long_side=(96, 128), empty_share=0))
    return root


@pytest.fixture
def measure(coco, tmp_path, monkeypatch):
    """Rows of a suite by name; nothing of it stays on disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    setup = Setup.of(BenchConfig(coco=coco, **TINY))

    def run(suite):
        with open_material(setup) as material:
            rows = list(suite(setup, material))
            assert [path.name for path in material.folder.iterdir()] == []
        assert len({row.name for row in rows}) == len(rows)
        for row in rows:
            assert math.isfinite(row.value)
            assert row.value > 0
            assert row.ratio == row.value / row.limit
        return {row.name: row for row in rows}

    return run


def test_verifying_is_compared_with_reading(measure):
    rows = measure(verify_rows)
    assert list(rows) == ["lmdb raw", "zarr raw"]
    assert {row.suite for row in rows.values()} == {"verify"}
    assert {row.unit for row in rows.values()} == {"GB/s"}
    assert rows["zarr raw"].limit_name == "reading the same files, 2 threads"
    assert all("6 photos, side 64" in row.setup for row in rows.values())


def test_a_cache_that_is_not_sound_is_not_measured(measure, monkeypatch):
    monkeypatch.setattr(bench.suites.stores, "check_split", lambda reader, threads: iter(["a damage"]))
    with pytest.raises(AssertionError, match="a damage"):
        measure(verify_rows)


def test_stores_are_compared_with_files_and_memory(measure, monkeypatch):
    monkeypatch.setattr(bench.suites.stores, "SHARD_SAMPLES", 30)
    rows = measure(store_rows)
    assert {row.unit for row in rows.values()} == {"samples/s"}
    for store in ("lmdb", "zarr"):
        assert rows[f"{store}, writing"].limit_name == "writing the same bytes to a file"
        for threads in ("1 thread", "2 threads"):
            assert rows[f"{store}, reading, {threads}"].limit_name == "copying the same bytes"
    assert rows["zarr, reading, 1 thread"].value > rows["zarr through zarr-python, reading, 1 thread"].value
    assert "75 random records, side 64" in rows["lmdb, writing"].setup


def test_what_is_read_is_what_was_written(tmp_path, monkeypatch):
    """Otherwise the comparison would be of different things."""
    monkeypatch.setattr(bench.suites.stores, "SHARD_SAMPLES", 4)
    layout = RecordLayout(64, "raw")
    records = np.random.default_rng(0).integers(0, 256, (11, layout.raw_bytes), np.uint8)
    order = [7, 0, 10, 3, 5]
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        reads = [bench.suites.stores._open(stack, store, tmp_path, layout, records) for store in ("lmdb", "zarr")]
        reads.append(bench.suites.stores._open_library(tmp_path))
        for read in reads:
            ring = np.zeros((5, layout.raw_bytes), np.uint8)
            work = bench.suites.stores._gather(pool, 2, read, order, ring)
            work.run()
            assert work.items == 5
            np.testing.assert_array_equal(ring, records[order])
