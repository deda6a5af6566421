"""How a device's memory is shared, how a lack of it is recognised, and what is then said."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import train.run
from bench.census import take_census
from bench.estimate import CONTEXT, FRAGMENTS
from bench.roofline import CARDS
from cache.machine import out_of_memory
from console.train import TrainPrinter
from loader.resident_store import free_bytes, row_bytes
from model.network import NetworkConfig
from train.checkpoint import CheckpointError
from train.config import TrainConfig
from train.hardware import HardwareError
from train.listeners import Listener
from train.loop import fit
from train.memory import MARGIN, MemoryPlan, lacking, memory_errors, plan_memory
from train.profiles import from_profile, profile

GB = 10**9
SIDE = 384
COCO = {"train": 64_115, "val": 2_693}
ROOT = Path(__file__).resolve().parents[1]

# As torch (c10/cuda/CUDAException.cpp, aten/src/ATen/cuda/Exceptions.h, native/cudnn/Conv_v8.cpp), Triton and DALI
# (include/dali/core/cuda_error.h, dali/pipeline/operator/error_reporting.cc) word them.
LACKS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. out of memory"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError(
        "Error in GPU operator `nvidia.dali.fn.warp_affine`,\nencountered:\n\nCUDA allocation failed\nCurrent"
    ),
    RuntimeError(
        "Critical error in pipeline:\nCan't allocate 129499136 bytes on device 0.\nCurrent pipeline object is"
    ),
    RuntimeError("Critical error in pipeline: std::bad_alloc\nCurrent pipeline object is no longer valid."),
    RuntimeError('NVJPEG error "5" : NVJPEG_STATUS_ALLOCATOR_FAILURE n04418357/n04418357_26036.JPEG'),
    MemoryError(),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("out of resource: shared memory, Required: 135200, Hardware limit: 101376"),
    RuntimeError("NCCL error: unhandled system error"),
    ValueError("batch_size=0 is below 1"),
]


class Silent(Listener):
    def on_start(self, run):
        self.run, self.resident = run, (run.train.resident, run.val.resident)
        TrainPrinter().on_start(run)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, draw_cache):
    return draw_cache(tmp_path_factory.mktemp("data"), val=8)


def config_of(cache=Path("cache"), out=Path("out"), **changes):
    values = {"network": NetworkConfig(width=8), "epochs": 1, "batch_size": 2, "loader": "resident", "threads": 1}
    return TrainConfig.from_dict({"cache": cache, "out": out, **values, **changes})


@pytest.mark.parametrize("error", LACKS, ids=str)
def test_a_lack_of_memory_is_recognised(error):
    assert out_of_memory(error)

    def attempt():
        raise error

    assert lacking(attempt) == out_of_memory(error)
    with (
        pytest.raises(HardwareError, match="cannot hold batch_size=8 at side 64"),
        memory_errors(8, 64, less=4, others=""),
    ):
        raise error


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_stay_what_they_are(error):
    def attempt():
        raise error

    assert not out_of_memory(error)
    with pytest.raises(type(error), match=re.escape(str(error))):
        lacking(attempt)
    with pytest.raises(type(error), match=re.escape(str(error))), memory_errors(8, 64, less=4, others=""):
        raise error


@pytest.mark.parametrize("library", [torch, np])
def test_what_libraries_say_of_this_machines_memory_is_recognised(library):
    with pytest.raises((RuntimeError, MemoryError)) as lack:
        library.empty(1 << 50, dtype=library.uint8)
    assert out_of_memory(lack.value)
    assert lacking(lambda: library.empty(1 << 50, dtype=library.uint8))


def test_what_dali_says_of_it_is_recognised():
    dali = pytest.importorskip("nvidia.dali")

    @dali.pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline():
        return dali.fn.random.uniform(shape=[1 << 16, 1 << 30], range=(0.0, 1.0))

    def attempt():
        pipeline().run()

    assert lacking(attempt) == "std::bad_alloc"


def test_the_message_has_the_reason_and_names_a_smaller_batch_only_where_there_is_one():
    with pytest.raises(HardwareError) as error, memory_errors(8, 64, less=4, others="--width 8"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    said = "the memory cannot hold batch_size=8 at side 64 (CUDA out of memory); use "
    assert str(error.value) == f"{said}--batch-size 4, or --width 8"
    with pytest.raises(HardwareError) as error, memory_errors(8, 64, less=0, others="--width 8"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert str(error.value) == f"{said}--width 8"


def sizes(split):
    return (1 + COCO[split]) * row_bytes(SIDE)


@pytest.mark.parametrize(
    ("free", "train", "val"),
    [
        (5 * GB + MARGIN + sizes("train") + sizes("val"), True, True),
        (5 * GB + MARGIN + sizes("train") + sizes("val") - 1, True, False),
        (5 * GB + MARGIN + sizes("train") - 1, False, True),
        (5 * GB + MARGIN + sizes("val") - 1, False, False),
        (4 * GB, False, False),
    ],
)
def test_on_a_gpu_the_step_comes_first_and_what_does_not_fit_is_not_resident(free, train, val):
    config = config_of(device="cuda", loader="auto", batch_size=16)
    plan = plan_memory(config, SIDE, COCO, free, measured=5 * GB)
    assert plan.resident == {
        "train": (sizes("train") if train else 1, sizes("train")),
        "val": (sizes("val") if val else 1, sizes("val")),
    }
    assert plan.step + sum(given for given, _ in plan.resident.values()) <= max(free, plan.step + 2)


def test_less_may_be_used_than_is_free():
    config = config_of(device="cuda", loader="auto", batch_size=16)
    assert plan_memory(config, SIDE, COCO, 80 * GB, 5 * GB).resident["train"][0] == sizes("train")
    limited = plan_memory(dataclasses.replace(config, device_memory=8 * GB), SIDE, COCO, 80 * GB, 5 * GB)
    assert (limited.free, limited.resident["train"][0], limited.resident["val"][0]) == (8 * GB, 1, sizes("val"))


@pytest.mark.parametrize("loader", ["native", "dali"])
def test_other_loaders_keep_no_records(loader):
    plan = plan_memory(config_of(device="cuda", loader=loader), SIDE, COCO, 80 * GB, 5 * GB)
    assert [given for given, _ in plan.resident.values()] == [1, 1]


def test_without_a_measurement_the_largest_network_is_assumed_and_fp32_is_twice_16_bits():
    wide, narrow = (plan_memory(config_of(precision=name), SIDE, COCO, 99 * GB) for name in ("fp32", "bf16"))
    pixels = 2 * SIDE * SIDE
    assert (wide.step, narrow.step) == (2**31 + 9216 * pixels, 2**31 + 4608 * pixels)
    assert plan_memory(config_of(batch_size=1000), SIDE, COCO, 8 * GB).step == 6 * GB


def test_the_plan_is_a_line():
    plan = MemoryPlan("cuda", 80 * GB, 5 * GB, 10**6, "bf16", measured=True, resident={"val": (1, 13 * GB // 10)})
    assert str(plan) == (
        "80.0 GB are free on cuda, a batch takes 5.0 GB (5,000 bytes a pixel in bf16, measured), 0.0 of 1.3 GB of val "
        "are resident"
    )
    assert str(plan._replace(step=0, resident={})) == "80.0 GB are free on cuda"
    on_cpu = plan._replace(device="cpu", measured=False)
    assert str(on_cpu) == "80.0 GB are free on cpu, 5.0 GB are reserved for a batch"
    assert str(on_cpu._replace(resident={"val": (GB, GB)})).endswith(", 1.0 of 1.0 GB of val are resident")


def test_a_run_on_the_cpu_keeps_as_many_records_as_were_planned(cache, tmp_path, monkeypatch, capsys):
    """`train` gets what `val` can do without; then so little may be used that nothing fits."""
    monkeypatch.setenv("MASKCACHE_LANG", "en")
    listener, row = Silent(), row_bytes(64)
    fit(config_of(cache, tmp_path / "all"), listener)
    assert listener.resident == (16, 8)
    assert f"   - Memory: {listener.run.memory}\n" in capsys.readouterr().out
    fit(config_of(cache, tmp_path / "part", batch_size=1, resident_bytes=21 * row), listener)
    assert listener.run.memory.resident == {"train": (16 * row, 17 * row), "val": (5 * row, 9 * row)}
    assert listener.resident == (16 - 1 - 3, 5 - 1 - 3)  # one row is blank, and three are of batches under way
    with pytest.raises(ValueError, match="set a larger resident_bytes"):
        fit(config_of(cache, tmp_path / "none", device_memory=100_000), listener)
    # So the remedy that a resumed run is told is one that it accepts.
    fit(config_of(cache, tmp_path / "all", loader="native", epochs=2), listener, resume=True)
    assert listener.resident == (0, 0)
    with pytest.raises(CheckpointError, match="batch_size: 2, not 1"):
        fit(config_of(cache, tmp_path / "all", loader="native", epochs=3, batch_size=1), listener, resume=True)


@pytest.mark.parametrize("where", ["open_loader", "prepare_network"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_lack_of_memory_anywhere_in_a_run_is_one_line(cache, tmp_path, monkeypatch, where, resume):
    if resume:
        fit(config_of(cache, tmp_path), Silent())

    def lack(*_arguments):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(train.run, where, lack)
    with pytest.raises(
        HardwareError, match=r"batch_size=2 at side 64 \(CUDA error: CUBLAS_STATUS_ALLOC_FAILED"
    ) as told:
        fit(config_of(cache, tmp_path, epochs=2), Silent(), resume=resume)
    assert ("--batch-size 1" in str(told.value)) is not resume  # a resumed run keeps its batch size


def test_free_memory_of_a_gpu_is_the_drivers_and_what_torch_does_not_use(monkeypatch):
    for name, value in (("mem_get_info", (5 * GB, 8 * GB)), ("memory_reserved", 2 * GB), ("memory_allocated", GB)):
        monkeypatch.setattr(torch.cuda, name, lambda _device, value=value: value)
    assert free_bytes(torch.device("cuda")) == 6 * GB


def test_the_table_of_the_documents_is_what_would_be_planned():
    """Each card with its profile's network and batch at side 384, and what `estimate` counts for a measurement."""
    rows = []
    for card in CARDS:
        if not card.profile:
            continue
        chosen = profile(card.profile)
        config = from_profile(chosen, cache=Path("cache"), out=Path("out"))
        census = take_census(chosen.network, side=SIDE, batch_size=chosen.batch_size, precision=chosen.precision)
        free, step = int(card.memory * GB - CONTEXT), int(FRAGMENTS * census.memory)
        plan = plan_memory(config, SIDE, COCO, free, step)
        given = [f"{given / GB:.1f}" for given, _ in plan.resident.values()]
        left = (free - step - sum(given for given, _ in plan.resident.values())) / GB
        rows.append(
            f"| {chosen.name}, {card.memory:g} GB | {chosen.network} | {chosen.batch_size} | {chosen.precision} | "
            f"{step / GB:.1f} | {step / plan.pixels:,.0f} | {' | '.join(given)} | {left:.1f} |"
        )
    page = (ROOT / "docs" / "estimates.md").read_text()
    assert [row for row in rows if row not in page] == []
