"""Describes the machine that figures are measured on."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import platform
import shutil
import subprocess
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cache.machine import memory, processors

FEATURES = {"avx2": "avx2", "avx512": "avx512f", "bf16": "avx512bf16", "amx": "amx-tile", "neon": "neon"}
"""Processor features that affect our speed, and LLVM's names for them."""

DISTRIBUTIONS = {
    "torch": ("torch",),
    "numpy": ("numpy",),
    "numba": ("numba",),
    "cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    "dali": ("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    "lmdb": ("lmdb",),
    "zarr": ("zarr",),
}
"""Packages that provide each library, by the name that is imported."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as torch sees it: `memory` in bytes, `capability` as in `9.0`."""

    name: str
    memory: int
    capability: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    """The file system that holds `path`; bytes."""

    path: str
    total: int
    free: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine and its software."""

    processor: str
    cores: int  # logical processors that this process may use
    features: tuple[str, ...]  # those of `FEATURES` that the processor has
    memory_total: int  # bytes
    memory_free: int
    system: str  # operating system and architecture
    python: str
    versions: dict[str, str]  # of the libraries that are installed
    gpus: tuple[Gpu, ...]
    driver: str | None  # version of the GPU's driver; None without a GPU
    dali_devices: int | None  # GPUs that DALI can use; None where DALI is not installed
    compiler: str | None  # path of a C++ compiler, which `torch.compile` needs on a CPU; None if there is none
    disk: Disk | None  # None if none was asked for


def describe_machine(path: Path | None = None) -> Machine:
    """Describe this machine and the disk of `path`. Torch and DALI are loaded only if there is a GPU's driver."""
    (total, free), has_driver = memory(), _has_driver()
    gpus = _gpus() if has_driver else ()
    versions = {name: _version(packages) for name, packages in DISTRIBUTIONS.items()}
    return Machine(
        processor=_processor(),
        cores=processors(),
        features=_features(),
        memory_total=total,
        memory_free=free,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions={name: found for name, found in versions.items() if found},
        gpus=gpus,
        driver=_driver() if gpus else None,
        dali_devices=0 if versions.get("dali") and not has_driver else _dali_devices(),
        compiler=shutil.which(os.environ.get("CXX", "g++")),
        disk=_disk(path) if path else None,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next((name for name in names if name), platform.processor() or platform.machine())


def _features() -> tuple[str, ...]:
    try:
        from llvmlite.binding import get_host_cpu_features

        found = get_host_cpu_features()  # LLVM also asks whether the operating system lets a feature be used
    except (ImportError, RuntimeError):
        return ()
    return tuple(name for name, known_as in FEATURES.items() if found.get(known_as))


def _version(packages: tuple[str, ...]) -> str | None:
    """The version of the first of these packages that is installed."""
    for package in packages:
        with suppress(PackageNotFoundError):
            return version(package)
    return None


def _has_driver() -> bool:
    """Whether there is the library of NVIDIA's driver, or the device of AMD's, which torch calls CUDA as well."""
    try:
        return bool(ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return Path("/dev/kfd").exists()


def _gpus() -> tuple[Gpu, ...]:
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        found = [torch.cuda.get_device_properties(number) for number in range(count)]
    except (ImportError, RuntimeError):
        return ()
    return tuple(Gpu(name=gpu.name, memory=gpu.total_memory, capability=f"{gpu.major}.{gpu.minor}") for gpu in found)


def _driver() -> str | None:
    """Version of NVIDIA's driver, which torch does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.partition("\n")[0].strip() or None


def _dali_devices() -> int | None:
    try:
        return int(import_module("nvidia.dali.backend").GetCUDADeviceCount())
    except (ImportError, OSError):
        return None
    except RuntimeError:
        return 0


def _disk(path: Path) -> Disk:
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    usage = shutil.disk_usage(existing)
    return Disk(path=str(path), total=usage.total, free=usage.free)
