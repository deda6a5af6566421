"""Profiles: the settings that suit each kind of hardware. Batch size, side and threads are those of the guide's table.

Only `cpu` and `auto` inspect this machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

from cache.choices import Backend, Device, Level, Precision
from cache.machine import compile_obstacle
from cache.messages import message
from model.network import NetworkConfig
from train.config import TrainConfig
from train.hardware import (
    BF16_CAPABILITY,
    FP16_CAPABILITY,
    PASCAL_REMEDY,
    Gpu,
    Hardware,
    HardwareError,
    check_hardware,
    read_hardware,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Settings for one kind of hardware, by the names in `train.config.SETTINGS`; the defaults suit a current GPU."""

    name: str  # as `--profile` takes it
    network: NetworkConfig
    batch_size: int
    side: int  # pixels of the cache to build for it
    threads: int
    precision: Precision = "bf16"
    channels_last: bool = True
    compile: bool = True
    loader: Backend = "auto"
    device: Device = "cuda"
    augment: Level = "light"
    reasons: Mapping[str, str]  # why a field has its value, a line for each


_TENSOR_CORES = {
    "precision": message("bf16 runs on tensor cores from sm_80 on and needs no loss scaling"),
    "channels_last": message("tensor cores take NHWC; NCHW would be transposed around every convolution"),
    "compile": message("fuses BatchNorm, ReLU and additions, which are bound by memory, into one pass each"),
    "loader": message(
        "in the GPU's memory if the split fits, else through DALI where it is installed, else by CPU threads"
    ),
}

_PASCAL = {
    "precision": message("no tensor cores: 16-bit is slower than fp32 or no faster"),
    "channels_last": message("cuDNN's fp32 kernels for Pascal are written for NCHW"),
    "compile": message("Triton needs sm_70; cuDNN's search for the fastest kernel is on instead"),
    "loader": message("the DALI for CUDA 13 needs sm_75; CPU threads keep up with this card easily"),
    "device": PASCAL_REMEDY,
}


def rtx4090() -> Profile:
    """GeForce RTX 4090: sm_89, 24 GB, 165 TFLOP/s in 16 bits."""
    return Profile(
        name="rtx4090",
        network=NetworkConfig(name="resunet", width=64),
        batch_size=32,
        side=512,
        threads=12,
        reasons={
            "network": message("a step takes about 9 GB at this batch and side; of unet 64 it would take 33 of 24 GB"),
            **_TENSOR_CORES,
        },
    )


def rtx3080() -> Profile:
    """GeForce RTX 3080: sm_86, 10 GB, 60 TFLOP/s in 16 bits."""
    reason = message("a step takes about 4 GB at this batch and side; of unet 64 it would take 14 of 10 GB")
    return _because(rtx4090(), "network", reason, name="rtx3080", batch_size=24, side=384, threads=8)


def gtx1080() -> Profile:
    """GeForce GTX 1080: Pascal, sm_61, 8 GB, 8.9 TFLOP/s in fp32."""
    return Profile(
        name="gtx1080",
        network=NetworkConfig(name="resunet", width=64),
        batch_size=16,
        side=384,
        precision="fp32",
        channels_last=False,
        compile=False,
        loader="native",
        threads=6,
        reasons={
            "network": message(
                "an epoch is 8 minutes at the card's peak; unet 64 would be 55, three times the guide's figure"
            ),
            **_PASCAL,
        },
    )


def gtx1060() -> Profile:
    """GeForce GTX 1060: Pascal, sm_61, 6 GB, 4.4 TFLOP/s in fp32."""
    reason = message("an epoch is 7 minutes at the card's peak; unet 64 would be 49, above the guide's figure")
    return _because(gtx1080(), "network", reason, name="gtx1060", batch_size=8, side=256, threads=4)


def h200() -> Profile:
    """H200: sm_90, 141 GB, 989 TFLOP/s in 16 bits."""
    reason = message("room for the classic 31 M U-Net: a step takes about 64 of 141 GB at this batch and side")
    unet = NetworkConfig(name="unet", width=64)
    return _because(rtx4090(), "network", reason, name="h200", network=unet, batch_size=64, threads=16)


def h100() -> Profile:
    """H100: sm_90, 80 GB, 989 TFLOP/s in 16 bits."""
    reason = message("room for the classic 31 M U-Net: a step takes about 48 of 80 GB at this batch and side")
    return _because(h200(), "network", reason, name="h100", batch_size=48)


def a100() -> Profile:
    """A100 of 80 GB: sm_80, 312 TFLOP/s in 16 bits; `auto` takes a smaller batch for the one of 40 GB."""
    return dataclasses.replace(h100(), name="a100")


def _because(profile: Profile, field: str, reason: str, **changes: Any) -> Profile:
    """A variant of a profile, with the reason for one of its fields."""
    return dataclasses.replace(profile, reasons={**profile.reasons, field: reason}, **changes)


def cpu(hardware: Hardware | None = None) -> Profile:
    """No GPU. `hardware`, by default this machine, says whether the processor gains by bf16."""
    narrow = (hardware or read_hardware()).cpu_bf16
    return Profile(
        name="cpu",
        network=NetworkConfig(name="resunet", width=32),
        batch_size=4,
        side=256,
        precision="bf16" if narrow else "fp32",
        compile=False,
        loader="native",
        threads=2,
        device="cpu",
        reasons={
            "network": message("3.2 GFLOP an image forward at this side; unet 64 takes 96"),
            "precision": (
                message("this processor gains by bf16: measured 1.2 to 1.8 times as fast as fp32")
                if narrow
                else message("this processor does not gain by bf16: that takes AMX, or AVX-512 of AMD")
            ),
            "channels_last": message("oneDNN's layout: measured 1.2 to 1.5 times as fast as NCHW in fp32"),
            "compile": message(
                "measured no faster but with AMX (1.1 to 1.3 times), for a minute at the start: try --compile"
            ),
        },
    )


def auto(hardware: Hardware | None = None) -> Profile:
    """The profile nearest to `hardware`, by default this machine: by capability, then by memory.

    Raises `HardwareError`: the GPU is older than Pascal.
    """
    hardware = hardware or read_hardware()
    if hardware.gpu is None:
        return _because(cpu(hardware), "name", message("nearest: {reason}", reason=message("there is no CUDA device")))
    gpu, nearest = hardware.gpu, _nearest(hardware.gpu)
    described = message("{name} is {sm} with {gibibytes:.0f} GiB", name=gpu.name, sm=gpu.sm, gibibytes=gpu.gibibytes)
    if FP16_CAPABILITY <= gpu.capability < BF16_CAPABILITY:
        reason = message("tensor cores of {sm} take fp16, not bf16; loss is scaled", sm=gpu.sm)
        nearest = _because(nearest, "precision", reason, precision="fp16")
    share = gpu.gibibytes / _MEMORY[nearest.name]
    if share < 0.9:  # the name on the box counts a GiB more than the driver gives
        batch_size = max(4, int(nearest.batch_size * share) // 4 * 4)
        reason = message(
            "{batch_size} of {name} scaled to this card's memory", batch_size=nearest.batch_size, name=nearest.name
        )
        nearest = _because(nearest, "batch_size", reason, batch_size=batch_size)
    return _because(nearest, "name", message("nearest: {reason}", reason=described))


_MEMORY = {"h200": 141, "h100": 80, "a100": 80, "rtx4090": 24, "rtx3080": 10, "gtx1080": 8, "gtx1060": 6}
"""GiB of the card that each profile was made for."""


def _nearest(gpu: Gpu) -> Profile:
    if gpu.capability < (6, 0):
        raise HardwareError(
            "{name} is {sm}; no profile is made for cards before sm_60; use --profile cpu", name=gpu.name, sm=gpu.sm
        )
    if gpu.capability < FP16_CAPABILITY:
        return gtx1080() if gpu.gibibytes >= 7 else gtx1060()
    if gpu.gibibytes >= 120 and gpu.capability >= BF16_CAPABILITY:
        return h200()
    if gpu.gibibytes >= 72 and gpu.capability >= (9, 0):
        return h100()
    if (gpu.gibibytes >= 72 and gpu.capability >= BF16_CAPABILITY) or gpu.capability == (8, 0):
        return a100()
    return rtx4090() if gpu.gibibytes >= 20 else rtx3080()


PROFILES: Mapping[str, Callable[[], Profile]] = {
    each.__name__: each for each in (rtx4090, rtx3080, gtx1080, gtx1060, cpu, a100, h100, h200, auto)
}
"""The profiles by the names that `--profile` takes."""


def profile(name: str) -> Profile:
    """Give a profile by its name.

    Raises `HardwareError`: the name is not known.
    """
    if name not in PROFILES:
        raise HardwareError(
            "profile {name!r} is not known; use one of {profiles}", name=name, profiles=", ".join(PROFILES)
        )
    return PROFILES[name]()


def from_profile(profile: Profile, *, cache: PurePath, out: Path, **changes: Any) -> TrainConfig:
    """Give the configuration of a profile, with `changes` on top: values by the names in `train.config.SETTINGS`."""
    chosen = {field.name: getattr(profile, field.name) for field in dataclasses.fields(profile)}
    del chosen["name"], chosen["reasons"]
    return TrainConfig.from_dict({**chosen, "profile": profile.name, "cache": cache, "out": out, **changes})


def adapt(config: TrainConfig, hardware: Hardware) -> tuple[TrainConfig, tuple[str, ...]]:
    """Give the configuration as it can run on this hardware, and a line for each change.

    Only `compile` is ever changed, where it lacks something: the run is then slower.

    Raises `HardwareError`: see `train.hardware.check_hardware`.
    """
    check_hardware(
        hardware, device=config.device, precision=config.precision, compile=config.compile, profile=config.profile
    )
    if config.sync_batchnorm and config.device == "cpu":
        raise HardwareError("--sync-batchnorm is for GPUs: torch cannot do it on a CPU; leave it out")
    if config.compile and (obstacle := compile_obstacle(config.device)):
        note = message("running without torch.compile: {obstacle}", obstacle=obstacle)
        return dataclasses.replace(config, compile=False), (note,)
    return config, ()
