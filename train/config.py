"""Everything that decides a training run, as one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from loader.augment import LEVELS, Level
from loader.batch import Backend
from loader.damage import OnBadRecord
from model.loss import LOSSES
from model.network import NetworkConfig

if TYPE_CHECKING:
    from train.profiles import Profile

Precision = Literal["fp32", "fp16", "bf16"]
Device = Literal["cuda", "cpu"]

FREE = frozenset({"profile", "cache", "out", "side", "epochs", "threads", "on_bad_record", "checkpoint_minutes"})
"""Fields that may change between a run and its continuation: they change no batch of a sound cache and no gradient. The
cache may have moved (its fingerprint is compared instead), and `epochs` may be raised."""


class TrainConfigError(ValueError):
    """A value that training cannot work with; the message names the value, the limit and the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: what, how, and where on.

    Attributes:
        cache: the cache's folder, with the splits `train` and `val`.
        out: the run's folder.
        profile: name of the profile that this came from, for messages.
        network: which network.
        epochs: passes over the training images.
        batch_size: images in a step.
        side: pixels that the profile was made for; the cache's own side is what counts. None: any.
        learning_rate: its peak, after the warm-up.
        weight_decay: of AdamW, on the kernels only. The guide's 1e-6 was meant for coupled decay; AdamW multiplies
            weights by 1 - learning_rate * weight_decay each step, so 1e-6 would do nothing, and 1e-2 is the usual one.
        warmup: share of all steps over which the learning rate rises.
        clip: largest norm of the gradient.
        loss: name in `model.LOSSES`.
        augment: level in `loader.LEVELS`.
        seed: of the starting weights, the order, the augmentation and the dropout.
        precision: of the convolutions; weights, loss and metrics are fp32.
        channels_last: NHWC weights and features instead of NCHW.
        compile: whether to use `torch.compile`.
        device: where to train.
        loader: backend of the loaders.
        threads: CPU threads of each loader; 0 takes one a processor.
        on_bad_record: of the loaders: `stop` with an error that names it, or `skip` and count it.
        checkpoint_minutes: a checkpoint within an epoch after so many minutes; 0 saves after each step.
    """

    cache: Path
    out: Path
    profile: str = "cpu"
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    epochs: int = 100
    batch_size: int = 16
    side: int | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    clip: float = 1.0
    loss: str = "bce_dice"
    augment: Level = "light"
    seed: int = 0
    precision: Precision = "fp32"
    channels_last: bool = True
    compile: bool = False
    device: Device = "cpu"
    loader: Backend = "auto"
    threads: int = 0
    on_bad_record: OnBadRecord = "stop"
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("threads", 0), ("checkpoint_minutes", 0)):
            if getattr(self, name) < least:
                raise TrainConfigError(f"{name}={getattr(self, name)} is below {least}; use {least} or more")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise TrainConfigError(f"{name}={getattr(self, name)} is not a positive number; try 1e-3")
        if not 0 <= self.weight_decay < float("inf"):
            raise TrainConfigError(f"weight_decay={self.weight_decay} is negative; 1e-2 is the default, 0 turns it off")
        if not 0 <= self.warmup < 1:
            raise TrainConfigError(f"warmup={self.warmup} is not a share from 0 to below 1; 0.05 is the default")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise TrainConfigError(f"{name}={getattr(self, name)!r} is not known; use one of {', '.join(known)}")

    @classmethod
    def from_profile(cls, profile: Profile, *, cache: Path, out: Path, **changes: Any) -> TrainConfig:
        """Give the configuration of a profile, with `changes` (fields of this class) on top."""
        taken = {field.name for field in dataclasses.fields(cls)} & {
            field.name for field in dataclasses.fields(profile)
        }
        values = {name: getattr(profile, name) for name in taken}
        return cls(**{**values, "profile": profile.name, "cache": cache, "out": out, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, fit for JSON."""
        values = dataclasses.asdict(self)
        return {**values, "cache": str(self.cache), "out": str(self.out)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Undo `to_dict`.

        Raises:
            TrainConfigError: a field is of the wrong type or out of its limits.
        """
        try:
            return msgspec.convert(dict(values), cls, dec_hook=lambda kind, value: kind(value))
        except msgspec.ValidationError as error:
            raise TrainConfigError(f"this is not a training configuration: {error}") from None

    def differences(self, other: TrainConfig) -> list[str]:
        """Fields that decide what a step does and in which `other` differs, as `name: mine, not theirs`."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [
            f"{name}: {mine[name]}, not {theirs[name]}"
            for name in mine
            if name not in FREE and mine[name] != theirs[name]
        ]


_CHOICES: dict[str, tuple[str, ...]] = {
    "loss": tuple(LOSSES),
    "augment": tuple(LEVELS),
    "precision": get_args(Precision),
    "device": get_args(Device),
    "loader": get_args(Backend),
    "on_bad_record": get_args(OnBadRecord),
}
