"""Every suite, as small as it can be: what it measures is there, finite, and what it says. No speed is tested."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import re
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from bench import ceilings, estimate
from bench.baseline import CocoMasks, OnTheFly
from bench.calibration import calibrations
from bench.ceilings import (
    clear_planes,
    copy_memory,
    copy_samples,
    copy_tensor,
    decode,
    dram_copy,
    multiply_matrices,
    read_disk,
    thread_pool,
)
from bench.config import SUITES, BenchConfig, Setup
from bench.material import open_material, repeat_cache
from bench.report import BenchError, BenchReport, Row, write_json
from bench.run import run_suites
from bench.suites import model
from bench.suites.model import count_flops
from bench.suites.start import COMMANDS, PYTHON
from bench.timing import Rates, measure_together
from bench.workloads import loader_config, pull
from cache.index import CacheIndex
from cache.reader import CacheReader
from cache.spec import CacheSpec
from cli import main
from loader.batch import LoaderConfig
from loader.loader import open_loader
from loader.prefetch import host_buffer
from model.network import NETWORKS, NetworkConfig
from preprocess.build.build import BuildConfig, build_cache
from preprocess.build.plan import read_split
from preprocess.build.record import native_planes
from preprocess.synth.dataset import SynthConfig, make_dataset

TINY = {
    "profile": "cpu",
    "network": NetworkConfig(width=8),
    "side": 64,
    "batch_size": 2,
    "threads": 2,
    "quick": True,
    "seconds": 0.01,
    "photos": 6,
    "megabytes": 1,
    "images": 1000,
}
UNITS = {
    "machine": {"GB/s", "GFLOP/s"},
    "raster": {"images/s", "times"},
    "annotations": {"annotations/s", "times", "MB"},
    "preprocess": {"images/s", "MB"},
    "stores": {"samples/s"},
    "verify": {"GB/s"},
    "loader": {"samples/s", "times", "s", "MB"},
    "stages": {"images/s"},
    "model": {"images/s", "%", "times"},
    "epoch": {"images/s", "%", "s", "MB", "min"},
    "start": {"s"},
    "tiers": {"min"},
}


class Heard:
    def __init__(self):
        self.suites = []

    def __call__(self, suite, number, total):
        self.suites.append((suite, number, total))


def own_threads():
    """Threads but those that Zarr keeps for good. Earlier tests of the same process may have left some."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith(("zarr_io", "asyncio_"))}


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp("bench") / "coco"
    config = SynthConfig(images=8, val_fraction=0, long_side=(96, 128), empty_share=0, crowd_share=0.5)
    make_dataset(root, config)
    return root


@pytest.fixture(scope="module")
def small_limits():
    """Smaller data than a real benchmark takes, where its size is no part of the configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.run.free_memory", lambda device: None)  # it looks for garbage among all that is imported
        patch.setattr(ceilings, "measure_together", lambda works, **_: measure_together(works, seconds=0, rounds=1))
        patch.setattr("bench.ceilings.GEMM_SIZE", {"cpu": 64})
        patch.setattr("bench.suites.machine.DISK_BYTES", 1 << 20)
        patch.setattr("bench.suites.machine.COPY_BYTES", 1 << 20)
        patch.setattr("bench.suites.machine.STREAM_BYTES", 1 << 20)
        patch.setattr("bench.suites.stages.READ_BYTES", 1 << 20)
        patch.setattr("bench.suites.stages.COPIED_BYTES", 1 << 20)
        patch.setattr("bench.suites.annotations.QUICK_SCALE", 0.005)
        patch.setattr("bench.suites.annotations.MOST_ROUNDS", 1)  # each is three processes
        patch.setattr("bench.suites.preprocess.MOST_ROUNDS", 1)
        patch.setattr("bench.suites.preprocess.QUICK_MEMORY_IMAGES", (5, 10))
        patch.setattr("bench.suites.loader.ON_THE_FLY_SAMPLES", 4)
        patch.setattr("bench.suites.loader.QUICK_STARTS", 1)  # each is a process that loads torch
        patch.setattr("bench.suites.loader.SETTLE", 0)
        patch.setattr("bench.suites.start.IMAGES", 8)
        patch.setattr("bench.suites.start.COMMANDS", {name: COMMANDS[name] for name in ("--help", "preprocess")})
        patch.setattr("bench.suites.start.COMPILING", ["--help"])
        patch.setattr("bench.suites.start._PROGRAMS", {PYTHON: ""})  # torch takes seconds
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # so small a network only waits for its threads
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(coco, small_limits, tmp_path_factory):
    """A whole benchmark of a given dataset, with what it told and where it worked."""
    folder, heard = tmp_path_factory.mktemp("temporary"), Heard()
    before = own_threads(), cv2.getNumThreads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(estimate, "NETWORKS", estimate.NETWORKS[:1])  # each takes seconds, and so does each card
        patch.setattr(estimate, "CARDS", [card for card in estimate.CARDS if card.profile in ("rtx4090", "h200")])
        of_each_kind = {row.roof.kind: row for row in calibrations()}  # rows as well
        patch.setattr("bench.run.calibrations", lambda: list(of_each_kind.values()))
        report = run_suites(BenchConfig(coco=coco, **TINY), heard)
        left = list(folder.glob("maskcache-bench-*"))
    after = own_threads(), cv2.getNumThreads()
    return report, heard, left, before, after


def test_all_suites_give_finite_rows_in_their_units(run):
    report = run[0]
    assert list(dict.fromkeys(row.suite for row in report.rows)) == [*SUITES, "tiers"]
    for row in report.rows:
        assert math.isfinite(row.value), row
        assert row.value > 0 or row.unit == "%", row
        assert row.unit in UNITS[row.suite], row
        assert row.kind == "measured" if row.runs else row.suite == "tiers", row
        if row.kind == "measured":
            assert row.p10 <= row.value <= row.p90, row
        if row.limit is not None:
            assert row.limit > 0, row
            assert row.ratio == row.value / row.limit, row
    names = [(row.suite, row.name, row.kind) for row in report.rows]
    assert len(names) == len(set(names))


def test_tiers_are_promised_measured_and_estimated(run):
    tiers = [row for row in run[0].rows if row.suite == "tiers"]
    assert {row.kind for row in tiers} == {"guide", "measured", "estimated"}
    estimated = {row.name for row in tiers if row.kind == "estimated"}
    assert estimated >= {"rtx4090, unet 64", "h200, unet 64", "cpu, unet 64"}


def test_each_suite_has_a_limit(run):
    limits = {suite: {row.limit_name for row in run[0].rows if row.suite == suite} - {""} for suite in SUITES}
    assert limits["raster"] == {"overwriting both planes"}
    assert limits["annotations"] == {"copying the file from the page cache", "the file, and the table"}
    assert limits["preprocess"] == {"decoding alone"}
    assert limits["stores"] == {"copying the same bytes", "writing the same bytes to a file"}
    assert limits["verify"] == {"reading the same files, 2 threads"}
    assert {name.partition(":")[0] for name in limits["loader"]} == {"copying the same bytes"}
    assert limits["model"] == {f"matrix product, {name}" for name in ("fp32", run[0].config["precision"])}
    assert limits["epoch"] <= {"loader alone", "training step alone"}
    assert limits["epoch"]


def test_rows_say_what_is_not_ours(run):
    theirs = {f"{row.suite}: {row.name}" for row in run[0].rows if not row.ours}
    machine = {f"machine: {row.name}" for row in run[0].rows if row.suite == "machine"}
    annotations = {f"annotations: annotations by {library}" for library in ("json", "pycocotools")}
    reading = {f"zarr-python, reading, {threads}" for threads in ("1 thread", "2 threads")}
    assert theirs == {
        *machine,
        *annotations,
        *(f"{name}: peak memory" for name in annotations),
        *(f"stores: zarr through {name}" for name in reading),
        "raster: both planes by pycocotools",
        "raster: one plane by cv2.fillPoly",
        "preprocess: cv2.imdecode + INTER_AREA",
        "loader: plain DataLoader, on the fly",
    }


def test_rows_agree_with_each_other(run):
    report = run[0]
    for name, precision in (("profile", report.config["precision"]), ("plain torch", "fp32")):
        step, share = report.find("model", f"training step ({name})"), report.find("model", f"MFU ({name})")
        assert step.limit_name == share.limit_name == f"matrix product, {precision}"
        assert share.p10 / 2 < 100 * step.ratio < 2 * share.p90  # medians of ratios and ratio of medians
        assert share.limit == 100
    assert report.find("loader", "native, first batch").value > 0
    assert report.find("loader", "native, memory after 4 epochs").value > 10, "MB: the process loads torch"
    together = report.find("epoch", "loader and training step")
    alone = [report.find("epoch", name).value for name in ("loader alone", "training step alone")]
    assert together.limit == min(alone)
    minutes = report.find("epoch", "minutes per epoch")
    assert minutes.value == pytest.approx(1000 / together.value / 60, rel=0.3)  # medians of rates and of their inverses
    assert minutes.ratio == pytest.approx(minutes.value / (1000 / min(alone) / 60))
    assert 0 <= report.find("epoch", "data wait").value <= 100
    hidden = report.find("epoch", "overlap")
    assert hidden.runs == together.runs
    assert hidden.p10 / 2 < 100 * together.ratio < 2 * hidden.p90
    assert report.find("epoch", "peak memory").value > 50, "MB: torch alone takes more"
    assert re.search(r"; windows, \d+ steps$", together.note)
    assert minutes.note.startswith("1,000 images, extrapolated")
    assert report.find("tiers", "cpu").value == pytest.approx(45_174 / together.value / 60)


def test_the_configuration_says_what_ran(run):
    config = run[0].config
    assert (config["side"], config["batch_size"], config["threads"], config["device"]) == (64, 2, 2, "cpu")
    assert config["network"] == {"name": "resunet", "width": 8, "dropout": 0.0, "encoder": None}
    assert config["precision"] in ("fp32", "bf16")
    # As `train` sets them.
    assert (config["deterministic"], config["cudnn_benchmark"], config["tf32"]) == (False, True, False)
    assert torch.backends.cudnn.benchmark is False, "it is put back"


def test_the_listener_hears_of_each_suite(run):
    heard = run[1]
    assert heard.suites == [(suite, number, len(SUITES)) for number, suite in enumerate(SUITES, 1)]


def test_nothing_is_left_behind(run):
    _, _, left, before, after = run
    assert left == []
    assert after[0] <= before[0]
    assert after[1] == before[1]
    assert not multiprocessing.active_children()


def test_with_nothing_given_a_dataset_is_drawn(small_limits):
    report = run_suites(BenchConfig(suites=("raster",), **TINY), Heard())
    assert {row.suite for row in report.rows} == {"raster"}
    assert all("6 drawn photos" in row.setup for row in report.rows if row.unit == "images/s")


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_a_given_cache_is_used_as_it_is(coco, small_limits, tmp_path, monkeypatch, codec):
    monkeypatch.setattr("bench.suites.loader._process_rows", lambda _setup, _material: [])  # the whole benchmark has it
    spec = CacheSpec(side=96, codec=codec)
    build_cache(BuildConfig(coco=coco, out=tmp_path / "cache", spec=spec, splits=("train",)))
    before = sorted(path for path in tmp_path.rglob("*"))
    config = BenchConfig(coco=coco, cache=tmp_path / "cache", suites=("loader",), **{**TINY, "side": None})
    report = run_suites(config, Heard())
    assert report.config["side"] == 96
    assert "8 samples" in report.find("loader", "native, augmentation none").setup
    limit = {"raw": "copying the same bytes", "jpeg": "decoding the same JPEGs"}[codec]
    assert report.find("loader", "native, augmentation none").limit_name.partition(":")[0] == limit
    assert sorted(path for path in tmp_path.rglob("*")) == before
    with pytest.raises(BenchError, match=r"side=64 is not that of .*cache, 96"):
        Setup.of(BenchConfig(cache=tmp_path / "cache", **TINY))


def test_a_failure_leaves_nothing_behind(coco, small_limits, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = own_threads()
    report = run_suites(BenchConfig(coco=coco, suites=("loader",), **{**TINY, "batch_size": 200}), Heard())
    (row,) = report.rows
    assert (row.suite, row.kind) == ("loader", "failed")
    assert "fewer than one batch" in row.note
    assert list(tmp_path.glob("maskcache-bench-*")) == []
    assert own_threads() <= before


def fake_suites(monkeypatch):
    """Three suites, of which the second one fails after a row."""

    def rows_of(suite):
        yield Row.measured(3.0, suite=suite, name="first", setup="", unit="s")
        if suite == "stages":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")
        yield Row.measured(4.0, suite=suite, name="second", setup="", unit="s")

    suites = ("machine", "stages", "model")
    monkeypatch.setattr("bench.run._ROWS", {suite: lambda *_, suite=suite: rows_of(suite) for suite in suites})
    return suites


def test_an_error_is_a_row_and_the_report_is_whole_after_each_row(tmp_path, monkeypatch):
    suites, path, files, freed = fake_suites(monkeypatch), tmp_path / "report.json", [], []
    monkeypatch.setattr("bench.run.free_memory", lambda device: freed.append((device, len(files))))

    def keep(report):
        write_json(path, report)
        files.append(BenchReport.read(path))

    report = run_suites(BenchConfig(suites=suites, **TINY), Heard(), keep)
    assert [len(file.rows) for file in files] == list(range(7))
    assert files[-1].rows == report.rows
    assert freed == [("cpu", 1), ("cpu", 3), ("cpu", 5)], "before each suite"
    assert [(row.suite, row.name, row.kind) for row in report.rows] == [
        ("machine", "first", "measured"),
        ("machine", "second", "measured"),
        ("stages", "first", "measured"),
        ("stages", "failed", "failed"),
        ("model", "first", "measured"),
        ("model", "second", "measured"),
    ]
    note = report.rows[3].note
    assert re.fullmatch(
        r"OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB \(test_bench_suites.py:\d+\)", note
    )
    assert report.find("stages", "failed") is None


def test_the_command_prints_a_failure_writes_everything_and_ends_with_1(tmp_path, monkeypatch):
    named = [word for suite in fake_suites(monkeypatch) for word in ("--suite", suite)]
    files = {name: tmp_path / f"new/report.{name}" for name in ("json", "markdown", "html")}
    given = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    found = CliRunner().invoke(main, ["bench", "--profile", "cpu", "--side", "64", *named, *given])
    assert found.exit_code == 1, found.output
    assert "CUDA out of memory" in found.output
    assert len(BenchReport.read(files["json"]).rows) == 6
    assert "| failed |  |  |  |  |" in files["markdown"].read_text()
    assert "CUDA out of memory" in files["html"].read_text()


def test_steps_of_all_precisions_run_in_their_own(coco, small_limits, monkeypatch):
    """As on a card with TF32, whose switch acts on no CPU: it is read in each step."""
    seen = []
    setup = Setup.of(BenchConfig(coco=coco, **{**TINY, "precision": "fp32"}))
    monkeypatch.setattr(Setup, "full_precisions", ("tf32", "fp32"))
    monkeypatch.setattr(
        model, "_plain", lambda setup, precision: setup.training.changed(precision=precision, batch_size=1)
    )
    real = model.learn

    def learn(step, batch):
        work = real(step, batch)
        return dataclasses.replace(work, run=lambda: seen.append((len(batch[0]), torch.backends.cudnn.allow_tf32)))

    monkeypatch.setattr(model, "learn", learn)
    rows = [row for row in model.model_rows(setup, None) if row.name.startswith("training step")]
    assert [(row.name, row.precision, row.batch_size) for row in rows] == [
        ("training step (profile)", "fp32", 2),
        ("training step (plain torch)", "tf32", 1),
        ("training step (plain torch, fp32)", "fp32", 1),
    ]
    assert ["batch 2" in row.setup for row in rows] == [True, False, False]
    assert [row.note.startswith("the largest batch that fits; 2 does not; ") for row in rows] == [False, True, True]
    assert set(seen) == {(2, False), (1, True), (1, False)}
    assert [row.limit_name for row in rows] == [f"matrix product, {name}" for name in ("fp32", "tf32", "fp32")]


def test_a_plain_step_on_a_gpu_takes_the_batch_that_fits(monkeypatch):
    setup = Setup.of(BenchConfig(**TINY))
    on_gpu = dataclasses.replace(setup, training=setup.training.changed(device="cuda", compile=True))
    monkeypatch.setattr(model, "search_batch_size", lambda config, side: (config.changed(batch_size=1), ("a note",)))
    found = model._plain(on_gpu, "fp32")
    assert (found.loader.batch_size, found.precision, found.channels_last, found.compile) == (1, "fp32", False, False)
    assert model._plain(setup, "fp32").loader.batch_size == 2


def test_the_baseline_draws_the_same_planes(coco):
    """Otherwise the comparison would be of different things."""
    split = read_split(coco, "train", CacheSpec(side=64))
    masks = CocoMasks(split)
    crowds = 0
    for number, row in enumerate(split.rows):
        ours, theirs = native_planes(split.table, row, CacheSpec()), masks.draw(number)
        assert np.array_equal(ours[0], theirs[0])
        assert np.array_equal(ours[1], theirs[1])
        crowds += int(theirs[1].any())
    assert crowds, "no crowd region was compared"


def test_the_baseline_gives_the_samples_of_a_cache(coco, tmp_path):
    setup = Setup.of(BenchConfig(coco=coco, **TINY))
    with open_material(setup) as material:
        build_cache(material.build_config(tmp_path / "cache", CacheSpec(side=64)))
        plain = OnTheFly(material.paths, CocoMasks(material.split), 64, samples=12)
        config = LoaderConfig(cache=tmp_path / "cache", batch_size=6, shuffle=False)
        with open_loader(config) as loader:
            batch = next(iter(loader))
            for number, tensors in enumerate(zip(batch.image, batch.person, batch.ignore, strict=True)):
                assert all(torch.equal(a, b) for a, b in zip(tensors, plain[number], strict=True))
        assert len(plain) == 12
        assert torch.equal(plain[6][0], plain[0][0])


def test_a_repeated_cache_holds_the_same_records(coco, tmp_path):
    build_cache(BuildConfig(coco=coco, out=tmp_path / "a", spec=CacheSpec(side=64, shard_samples=5), splits=("train",)))
    repeat_cache(tmp_path / "a", tmp_path / "b", 19)
    with CacheReader(tmp_path / "a", "train") as small, CacheReader(tmp_path / "b", "train") as large:
        assert (len(small), len(large)) == (8, 19)
        for number in range(19):
            assert np.array_equal(large.record(number), small.record(number % 8))
            assert large.samples["image_id"][number] == small.samples["image_id"][number % 8]
        assert len({large.fields(number).image.ctypes.data for number in range(19)}) == 19
    assert [shard.rows for shard in CacheIndex.load(tmp_path / "b").splits["train"].shards] == [5, 5, 5, 4]


def test_pulling_takes_as_many_samples_as_it_says(coco, tmp_path):
    build_cache(BuildConfig(coco=coco, out=tmp_path / "a", spec=CacheSpec(side=64), splits=("train",)))
    setup = Setup.of(BenchConfig(**{**TINY, "batch_size": 3}))
    with open_loader(loader_config(setup, tmp_path / "a", "native", "light")) as loader:
        work = pull(loader)
        work.prepare()
        work.run()
        batches = loader.config.prefetch + 1 + work.items / 3
        assert loader.state_dict() == {"epoch": batches // 2, "consumed": 3 * (batches % 2)}


def test_flops_are_those_of_the_convolutions():
    """Counted anew from the shapes that pass through a real network."""
    counted = 0

    def add(module, inputs, output):
        nonlocal counted
        pixels = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        counted += 2 * module.weight.numel() * pixels.shape[2] * pixels.shape[3]

    for name in NETWORKS:
        from model.network import build_network

        counted = 0
        config = NetworkConfig(name=name, width=8)
        network = build_network(config)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.register_forward_hook(add)
        network.eval()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        forward = count_flops(config, 64, backward=False)
        assert forward == counted
        # Twice more for the two gradients, but the image needs none.
        assert 2.8 * forward < count_flops(config, 64, backward=True) < 3 * forward


def test_every_way_of_copying_moves_whole_samples(monkeypatch):
    side, samples, ring, buffers, tried = 32, 7, 4, [], []

    def buffer(*shape):
        buffers.append(host_buffer(*shape))
        return buffers[-1]

    def measure(works, **_):
        source = np.random.default_rng(0).integers(0, 256, (samples, 13 * side * side // 4), np.uint8)
        known = {row.tobytes() for row in source}
        for name, work in works.items():
            for made in buffers:
                made.zero_()
            work.run()
            copied, added = (made.numpy() for made in buffers)
            assert {row.tobytes() for row in copied} <= known, name
            assert added.all(), name
            assert copied.shape[1] + added.shape[1] == 5 * side * side, name
            tried.append(name)
        return {name: Rates((float(name == "plain 2"),)) for name in works}

    monkeypatch.setattr(ceilings, "host_buffer", buffer)
    monkeypatch.setattr(ceilings, "measure_together", measure)
    with ExitStack() as stack:
        work, found = copy_samples(stack, 2, side, samples, ring)
        assert (work.items, found) == (samples, "plain 2"), "the fastest"
        assert sorted(tried) == [f"{kind} {threads}" for kind in ("plain", "streamed") for threads in (1, 2, 4)]
        assert ceilings.copying_name(found) == "plain copying, 2 threads"
        buffers.clear()
        dram_copy(stack.enter_context(thread_pool(2)), 2, 3 << 20).run()
        assert buffers[1].numpy().all()
        assert buffers[1].numpy().size == 3 << 20


def test_limits_do_what_they_count(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        for work, items in (
            (copy_memory(pool, 2, size=1000), 1000),
            (dram_copy(pool, 2, size=1 << 20), 2 << 20),
            (clear_planes([(4, 8), (2, 2)]), 2),
            (multiply_matrices("fp32", "cpu", size=16), 2 * 16**3),
            (copy_tensor("cpu", "cpu", 77), 77),
            (read_disk(tmp_path, 5000), 5000),
        ):
            work.run()
            assert work.items == items
    with thread_pool(1) as pool:
        assert cv2.getNumThreads() == 1
        with pytest.raises(ValueError, match="it is not a JPEG"):
            decode(pool, [b"no image"]).run()
