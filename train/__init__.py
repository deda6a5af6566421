"""Training: profiles by hardware, one step, the run, checkpoints and pictures. Names load torch when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.checkpoint import CheckpointError, load_checkpoint, load_network
    from train.config import TrainConfig, TrainConfigError
    from train.epoch import DivergedError
    from train.evaluation.config import EvalConfig
    from train.hardware import Hardware, HardwareError, read_hardware
    from train.loop import fit
    from train.optimizer import build_optimizer
    from train.profiles import PROFILES, Profile, profile
    from train.result import EpochResult, FitResult, Listener, StartInfo
    from train.step import EvalStep, TrainStep, prepare_network

__all__ = [
    "PROFILES",
    "CheckpointError",
    "DivergedError",
    "EpochResult",
    "EvalConfig",
    "EvalStep",
    "FitResult",
    "Hardware",
    "HardwareError",
    "Listener",
    "Profile",
    "StartInfo",
    "TrainConfig",
    "TrainConfigError",
    "TrainStep",
    "build_optimizer",
    "fit",
    "load_checkpoint",
    "load_network",
    "prepare_network",
    "profile",
    "read_hardware",
]

_HOMES = {
    "train.checkpoint": ("CheckpointError", "load_checkpoint", "load_network"),
    "train.config": ("TrainConfig", "TrainConfigError"),
    "train.hardware": ("Hardware", "HardwareError", "read_hardware"),
    "train.epoch": ("DivergedError",),
    "train.evaluation.config": ("EvalConfig",),
    "train.loop": ("fit",),
    "train.optimizer": ("build_optimizer",),
    "train.profiles": ("PROFILES", "Profile", "profile"),
    "train.result": ("EpochResult", "FitResult", "Listener", "StartInfo"),
    "train.step": ("EvalStep", "TrainStep", "prepare_network"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
