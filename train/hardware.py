"""What this machine offers for training, and whether it can run what is asked for."""

from __future__ import annotations

import dataclasses
import platform

import torch

from cache.choices import Device, Precision
from cache.machine import processors
from cache.messages import UserError, message

BF16_CAPABILITY = (8, 0)
FP16_CAPABILITY = (7, 0)
COMPILE_CAPABILITY = (7, 0)
"""CUDA compute capabilities from which each is worthwhile: bf16, TF32, fp16 need tensor cores, Triton Volta."""

PASCAL_REMEDY = message(
    "this card needs torch's CUDA 12.6 build, releases up to 2.14, and a driver up to 580: pip install 'torch<2.15' "
    "--index-url https://download.pytorch.org/whl/cu126"
)


class HardwareError(UserError):
    """The machine lacks what a configuration wants; the message names the value, the limit and the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """The first CUDA device."""

    name: str
    capability: tuple[int, int]  # CUDA compute capability, (major, minor)
    memory: int  # bytes
    architectures: tuple[str, ...]  # those that this torch has code for, as `sm_90` or `compute_90`

    @property
    def sm(self) -> str:
        """The capability as `sm_90`."""
        return _sm(self.capability)

    @property
    def gibibytes(self) -> float:
        """Memory in GiB."""
        return self.memory / 2**30

    def runs(self) -> bool:
        """Whether this torch has code for the card: a binary of its generation, or PTX of its or an earlier one."""
        for architecture in self.architectures:
            kind, _, digits = architecture.rstrip("af").partition("_")
            found = (int(digits[:-1]), int(digits[-1]))
            if found <= self.capability and (kind == "compute" or found[0] == self.capability[0]):
                return True
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """A machine."""

    processor: str  # name of the CPU's family as torch reads it
    cores: int  # processors that this process may use
    cpu_bf16: bool  # whether the processor multiplies bf16 faster than fp32
    gpu: Gpu | None
    torch: str  # its version, which says whether it is a CPU build


def read_hardware() -> Hardware:
    """Inspect this machine. This initializes the CUDA driver where there is one."""
    # https://docs.pytorch.org/docs/stable/generated/torch.cpu.get_capabilities.html
    capabilities = torch.cpu.get_capabilities()
    gpu = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gpu = Gpu(
            name=properties.name,
            capability=(properties.major, properties.minor),
            memory=properties.total_memory,
            architectures=tuple(torch.cuda.get_arch_list()),
        )
    processor = str(capabilities.get("cpu_name", capabilities.get("architecture", "unknown")))
    # Intel's AVX-512 multiplies bf16 as well, but at most as fast: of a Xeon without AMX a training step in bf16 was
    # measured 0.6 to 0.75 times as fast as in fp32, and a matrix product 0.6 times. AMD's is twice as fast.
    narrow = "amx_bf16" if "Intel" in processor else "avx512_bf16"
    return Hardware(
        processor=processor,
        cores=processors(),
        cpu_bf16=bool(capabilities.get(narrow)),
        gpu=gpu,
        torch=torch.__version__,
    )


def check_hardware(
    hardware: Hardware, *, device: Device, precision: Precision, compile: bool = False, profile: str = "auto"
) -> None:
    """Refuse what the hardware cannot run. Nothing is replaced: a run that silently takes hours longer is worse.

    Raises `HardwareError`: the device is missing, torch has no code for it, or it cannot do the precision or compile.
    """
    if device == "cpu":
        if precision in ("fp16", "tf32"):
            raise HardwareError(
                "precision={precision} is for GPUs; on a CPU use --precision bf16 or fp32", precision=precision
            )
        return
    gpu = hardware.gpu
    if gpu is None:
        build = message("torch {torch}", torch=hardware.torch)
        if "+cpu" in hardware.torch:
            build = message("torch {torch} is a CPU build", torch=hardware.torch)
        raise HardwareError(
            "profile {profile} wants a CUDA device and this machine offers none ({build}); use --profile cpu, or "
            "--profile auto to take what there is",
            profile=profile,
            build=build,
        )
    if not gpu.runs():
        remedy = PASCAL_REMEDY if gpu.capability < COMPILE_CAPABILITY else message("install a torch build that has it")
        raise HardwareError(
            "torch {torch} has no code for {name} ({sm}), only for {architectures}; {remedy}; or use the CPU: `train "
            "--profile cpu`, `predict --device cpu`",
            torch=hardware.torch,
            name=gpu.name,
            sm=gpu.sm,
            architectures=", ".join(gpu.architectures) or "none",
            remedy=remedy,
        )
    limit = {"fp16": FP16_CAPABILITY, "fp32": (0, 0)}.get(precision, BF16_CAPABILITY)
    if gpu.capability < limit:
        instead = "fp16" if precision == "bf16" and gpu.capability >= FP16_CAPABILITY else "fp32"
        raise HardwareError(
            "precision={precision} wants {limit} or later and {name} is {sm}; use --precision {instead}",
            precision=precision,
            limit=_sm(limit),
            name=gpu.name,
            sm=gpu.sm,
            instead=instead,
        )
    if compile and gpu.capability < COMPILE_CAPABILITY:
        raise HardwareError(
            "torch.compile wants {limit} or later and {name} is {sm}; use --no-compile, or --profile auto",
            limit=_sm(COMPILE_CAPABILITY),
            name=gpu.name,
            sm=gpu.sm,
        )


def _sm(capability: tuple[int, int]) -> str:
    return f"sm_{capability[0]}{capability[1]}"


def describe(hardware: Hardware) -> dict[str, str]:
    """Give the versions and devices that a log or a benchmark reports."""
    gpu = hardware.gpu
    return {
        "python": platform.python_version(),
        "torch": hardware.torch,
        "system": platform.platform(),
        "processor": f"{hardware.processor}, {hardware.cores} usable, bf16 {'yes' if hardware.cpu_bf16 else 'no'}",
        "torch threads": str(torch.get_num_threads()),
        "gpu": f"{gpu.name}, {gpu.sm}, {gpu.gibibytes:.1f} GiB, CUDA {torch.version.cuda}" if gpu else "none",
    }
