"""What is measured of an epoch and of each stage, and what is made of the figures. No speed is tested."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bench.config import BenchConfig, Setup
from bench.material import open_material
from bench.report import BenchReport, Row
from bench.suites import stages
from bench.suites.epoch import Training, overlap, plan_epoch
from bench.suites.model import count_flops, named_peak
from bench.suites.stages import RECORDS, both_ways, forward, read_records, update
from bench.timing import Rates, measure_together
from bench.workloads import PeakMemory, build_step, loader_config, random_batch
from cache.reader import CacheReader
from console.bench import conclusions
from loader.loader import open_loader
from model.network import NetworkConfig
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
}
PLAN = {"images": 1000, "samples": 1000, "batch_size": 4, "rate": 100.0, "seconds": 2.0, "rounds": 9}
NAMES = ["disk read", "decode JPEG", "copy", "augment", "forward", "backward", "optimizer"]


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp("stages") / "coco"
    make_dataset(root, SynthConfig(images=8, val_fraction=0, long_side=(96, 128), empty_share=0))
    return root


@pytest.fixture
def setup(coco):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network only waits for its threads
    yield Setup.of(BenchConfig(coco=coco, **TINY))
    torch.set_num_threads(threads)


@pytest.fixture
def step(setup):
    return build_step(setup.training)


# ------------------------------------------------------------------------------------------------------- epoch


def test_overlap_is_the_slower_ones_time_over_that_of_both_run_by_run():
    loader, step, both = Rates((100.0, 10.0, 50.0)), Rates((50.0, 20.0, 50.0)), Rates((25.0, 10.0, 40.0))
    assert overlap(loader, step, both).values == (50, 100, 80)
    with pytest.raises(ValueError, match="zip"):
        overlap(loader, Rates((1.0,)), both)


def test_a_short_epoch_that_the_cache_has_is_measured_whole():
    plan = plan_epoch(**PLAN)  # 10 s of 50
    assert (plan.whole, plan.steps, plan.rounds) == (True, 250, 5)
    assert plan.describe(4) == "a true epoch of 1,000 images"
    assert plan_epoch(**PLAN | {"rate": 20.0}).rounds == 1
    assert plan_epoch(**PLAN | {"rate": 1e6}).rounds == 9
    assert plan_epoch(**PLAN | {"images": 1003, "samples": 1003}).describe(4) == "a true epoch of 1,000 images"


@pytest.mark.parametrize("change", [{"rate": 19.0}, {"samples": 999}, {"images": 3}, {"seconds": 0.3}])
def test_an_epoch_that_is_too_long_or_not_there_is_measured_in_windows(change):
    assert not plan_epoch(**PLAN | change).whole


def test_windows_have_enough_steps_where_the_time_allows():
    few = PLAN | {"samples": 10}
    plan = plan_epoch(**few)
    assert plan.steps * plan.rounds == 207, "200, and as many in each of nine windows"
    assert plan.describe(4) == "windows, 207 steps"
    many = plan_epoch(**few | {"rate": 1000.0})
    assert many.steps * many.rounds >= 3 * 2 * 1000 / 4, "as many as fill the time of three measurements"
    slow = plan_epoch(**few | {"rate": 8.0})
    assert slow.describe(4) == "windows, 99 steps"
    assert plan_epoch(**few | {"rate": 0.01}).steps == 1


def test_training_runs_as_it_is_planned(setup):
    seen = []
    with open_material(setup) as material:
        config = loader_config(setup, material.cache, "native", "none")
        with open_loader(config) as loader:
            samples = len(loader.reader)
            plans = [
                plan_epoch(images=images, samples=samples, batch_size=2, rate=1e4, seconds=1e-3, rounds=2)
                for images in (samples, samples + 1)
            ]
            assert [plan.whole for plan in plans] == [True, False]
            for plan in plans:
                together = Training(loader, lambda image, *_: seen.append(len(image)), PeakMemory("cpu"))
                rates = measure_together({"both": together.work(plan)}, seconds=1, rounds=plan.rounds)["both"]
                assert rates.runs == plan.rounds
                assert seen == [2] * plan.steps * plan.rounds
                assert len(together.waits) == len(seen)
                seen.clear()
                assert all(0 <= wait <= 1 for wait in together.waits)
                if plan.whole:
                    assert loader.state_dict() == {"epoch": plan.rounds, "consumed": 0}, "each a whole epoch"
                together.close()


def test_peak_memory_is_the_most_that_was_there():
    memory = PeakMemory("cpu")
    held = np.ones(64 << 20, np.uint8)
    memory.look()
    (most,) = memory.found().values()
    assert most > len(held)
    del held
    memory.look()
    assert list(memory.found().values()) == [most]


# -------------------------------------------------------------------------------------------------------- model


@pytest.mark.parametrize(
    ("gpu", "precision", "peak", "name"),
    [
        (None, "bf16", 5.0, "matrix product, bf16"),
        ("NVIDIA Some Card", "bf16", 5.0, "matrix product, bf16"),
        ("NVIDIA H100 PCIe", "bf16", 5.0, "matrix product, bf16"),
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12, "data sheet of H100, bf16"),
        ("NVIDIA A100-SXM4-40GB", "bf16", 312e12, "data sheet of A100-40, bf16"),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5e12, "data sheet of A100, fp32 without tensor cores"),
        ("NVIDIA H200", "tf32", 494.5e12, "data sheet of H200, tf32"),
        ("NVIDIA GeForce GTX 1080", "fp32", 8.9e12, "data sheet of GTX 1080, fp32"),
        ("NVIDIA GeForce GTX 1080", "fp16", 5.0, "matrix product, fp16"),
        ("Tesla V100-SXM2-16GB", "fp16", 125e12, "data sheet of V100, fp16"),
        ("NVIDIA GeForce RTX 3080 Ti", "bf16", 5.0, "matrix product, bf16"),
    ],
)
def test_a_peak_has_a_name(gpu, precision, peak, name):
    found = named_peak(gpu, precision, Rates((5.0, 5.0)))
    assert found == (Rates((peak, peak)), name)


# ------------------------------------------------------------------------------------------------------- stages


def test_every_stage_has_a_rate_and_a_limit_of_its_own(setup, monkeypatch):
    monkeypatch.setattr(stages, "READ_BYTES", 1 << 20)
    monkeypatch.setattr(stages, "COPIED_BYTES", 1 << 20)
    monkeypatch.setattr("bench.ceilings.GEMM_SIZE", {"cpu": 64})
    with open_material(setup) as material:
        rows = {row.name: row for row in stages.stage_rows(setup, material)}
    assert list(rows) == NAMES
    assert {row.unit for row in rows.values()} == {"images/s"}
    assert all(row.value > 0 and row.limit > 0 and row.runs == setup.rounds for row in rows.values())
    product = f"matrix product, {setup.training.precision}"
    assert [row.limit_name.partition(":")[0] for row in rows.values()] == [
        "a file from end to end",
        "decoding the same JPEGs",
        "copying the same bytes",
        "copying the same bytes",
        product,
        product,
        "copying memory",
    ]
    ahead, all_ways = (count_flops(NetworkConfig(width=8), 64, backward=back) for back in (False, True))
    flops = {"forward": ahead, "backward": all_ways - ahead}
    assert rows["forward"].limit * flops["forward"] == pytest.approx(rows["backward"].limit * flops["backward"])
    assert rows["copy"].limit == rows["augment"].limit


def test_the_parts_of_a_step_are_those_of_training(setup, step, monkeypatch):
    called, batch = [], random_batch(setup)
    for name in ("forward", "backward", "update"):
        whole = getattr(step, name)
        monkeypatch.setattr(
            step, name, lambda *a, name=name, whole=whole, **k: (called.append(name), whole(*a, **k))[1]
        )
    step(*batch, 1e-5)
    assert called == ["forward", "backward", "update"]
    weights = [weight.detach().clone() for weight in step.network.parameters()]
    called.clear()
    for work in (forward(step, batch), both_ways(step, batch)):
        assert work.items == 2
        work.run()
    assert called == ["forward", "forward", "backward"]
    assert all(map(torch.equal, weights, step.network.parameters())), "only the optimizer changes them"
    called.clear()
    work = update(step, batch)
    work.prepare()
    work.run()
    work.run()
    assert called == ["forward", "backward", "update", "update"]
    assert not any(map(torch.equal, weights, step.network.parameters()))


def test_what_is_left_without_a_part_is_taken_run_by_run():
    both, ahead = Rates((10.0, 10.0, 10.0)), Rates((20.0, 40.0, 9.0))
    left = both.without(ahead)
    assert left.values == pytest.approx((20.0, 40 / 3, 1000.0)), "at least a hundredth of the time is left"


def test_the_records_are_read_from_the_disk_whole(setup, tmp_path):
    with open_material(setup) as material, ThreadPoolExecutor(2) as pool:
        with CacheReader(material.cache, "train") as reader:
            size = len(reader.record(0))
            bytes_of_three = b"".join(reader.record(number).tobytes() for number in range(3))
        work = read_records(pool, 2, tmp_path, material.cache, 3 * size - 1)
        assert work.items == 3
        assert (tmp_path / RECORDS).read_bytes() == bytes_of_three
        work.run()


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_a_cache_of_either_kind_is_made_once(setup, codec):
    with open_material(setup) as material:
        found = material.cache_of(codec)
        with CacheReader(found, "train") as reader:
            assert reader.layout.codec == codec
            assert len(reader) >= 4 * setup.batch_size
        assert material.cache_of(codec) == found
        assert (found == material.cache) == (codec == "raw")


# -------------------------------------------------------------------------------------------- what is said of it


def rows_of(suite, **rates):
    return [
        Row(suite=suite, name=name.replace("_", " "), setup="", value=rate, unit="images/s", limit=1e4, limit_name="x")
        for name, rate in rates.items()
    ]


def said(*rows):
    return conclusions(BenchReport(environment=None, config={}, rows=tuple(itertools.chain(*rows))))


def test_the_sentence_that_matters():
    stages = rows_of("stages", augment=300.0, copy=900.0, forward=60.0, backward=30.0, optimizer=60.0)
    epoch = rows_of("epoch", loader_alone=140.0, training_step_alone=10.0)
    assert said(stages, epoch) == [
        "The network is the bottleneck: the loader alone could feed 14.0 of these; backward takes 50% of a step."
    ]
    assert said(epoch) == ["The network is the bottleneck: the loader alone could feed 14.0 of these."]
    assert said(stages) == [
        "The network is the bottleneck: augmenting alone could feed 20.0 of these; backward takes 50% of a step."
    ]
    fast = rows_of("epoch", loader_alone=200.0, training_step_alone=600.0)
    assert said(stages, fast) == [
        "The loader is the bottleneck: the network alone could take 3.00 times as many images; "
        "slower even alone: augment."
    ]
