import builtins
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import lmdb
import msgspec
import numba
import numpy as np
import psutil
import pytest
import torch
import zarr

from bench import hardware
from bench.hardware import describe_machine


@pytest.fixture(scope="module")
def machine():
    return describe_machine(Path.cwd())


def test_versions_are_those_that_the_libraries_tell(machine):
    assert machine.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert machine.versions["numpy"] == np.__version__
    assert machine.versions["numba"] == numba.__version__
    assert machine.versions["zarr"] == zarr.__version__
    assert machine.versions["lmdb"] == lmdb.__version__
    assert machine.versions["cv2"].startswith(cv2.__version__)
    assert machine.python == platform.python_version()


def test_memory_and_cores(machine):
    assert machine.memory_total == psutil.virtual_memory().total
    assert 0 < machine.memory_free < machine.memory_total
    assert 1 <= machine.cores <= os.cpu_count()
    if hasattr(os, "sched_setaffinity"):
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(before)})
            assert describe_machine().cores == 1
        finally:
            os.sched_setaffinity(0, before)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the kernel's own list is Linux's")
def test_processor_features_are_those_that_the_kernel_lists(machine):
    text = Path("/proc/cpuinfo").read_text()
    if platform.machine() != "x86_64":
        pytest.skip("the flags are named so on x86-64 only")
    flags = next(line for line in text.splitlines() if line.startswith("flags")).split()
    named = {"avx2": "avx2", "avx512": "avx512f", "bf16": "avx512_bf16", "amx": "amx_tile"}
    assert set(machine.features) == {name for name, flag in named.items() if flag in flags}
    assert machine.processor in text


def test_disk_of_a_path_that_is_not_there_yet(tmp_path):
    disk = describe_machine(tmp_path / "not" / "there").disk
    assert disk.path == str(tmp_path / "not" / "there")
    assert disk.total == shutil.disk_usage(tmp_path).total
    assert 0 < disk.free <= disk.total


def test_it_can_be_written_as_json(machine):
    assert json.loads(msgspec.json.encode(machine)) == json.loads(json.dumps(dataclasses.asdict(machine)))


def test_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_machine().compiler is None
    for name in ("g++", "special++"):
        tool = tmp_path / name
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
        assert describe_machine().compiler == str(tool)
        monkeypatch.setenv("CXX", "special++")


@pytest.mark.parametrize("driver", [True, False])
def test_nothing_that_is_absent_makes_it_fail(monkeypatch, tmp_path, driver):
    monkeypatch.setattr(hardware, "_has_driver", lambda: driver)
    real_import = builtins.__import__
    gone = {"torch", "llvmlite", "nvidia"}

    def lacking(name, *args, **kwargs):
        if name.split(".")[0] in gone:
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", lacking)
    monkeypatch.setitem(sys.modules, "nvidia.dali.backend", None)
    monkeypatch.setattr(hardware, "DISTRIBUTIONS", {"torch": ("no-such-distribution",), "numpy": ("numpy",)})
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    machine = describe_machine()
    assert (machine.gpus, machine.driver, machine.dali_devices, machine.compiler) == ((), None, None, None)
    assert (machine.features, machine.disk, list(machine.versions)) == ((), None, ["numpy"])


def test_gpus_as_torch_and_the_driver_tell_them(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "_has_driver", lambda: True)
    card = SimpleNamespace(name="Some Card", total_memory=24 << 30, major=8, minor=9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: card)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 555.42.02\necho 555.42.02\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    machine = describe_machine()
    assert machine.gpus == (hardware.Gpu(name="Some Card", memory=24 << 30, capability="8.9"),) * 2
    assert machine.driver == "555.42.02"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert describe_machine().driver is None


def test_without_a_driver_neither_torch_nor_dali_is_loaded():
    if torch.cuda.is_available():
        pytest.skip("this machine has a driver")
    code = "import sys; from bench.hardware import *; describe_machine(); print({'torch', 'nvidia'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_this_gpu(machine):
    major, minor = torch.cuda.get_device_capability(0)
    assert machine.gpus[0].name == torch.cuda.get_device_name(0)
    assert machine.gpus[0].capability == f"{major}.{minor}"
    assert machine.driver
