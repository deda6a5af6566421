"""Everything that decides a training run, as one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from pathlib import Path, PurePath
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import msgspec

from cache.choices import Device, EncoderNorm, LossName, OptimizerName, Precision, Scheduler
from cache.messages import UserError, check_numbers, differences, message
from cache.remote.folder import FolderConfig
from cache.storage import place
from loader.batch import LoaderConfig
from loader.order import resolve_order
from model.network import NetworkConfig
from train.optimizer import LEARNING_RATE, WEIGHT_DECAY

FREE = frozenset(
    {
        *("world", "rank", "profile", "cache", "out", "side", "epochs", "patience", "threads", "prefetch"),
        *("pin_memory", "resident_bytes", "on_bad_record", "checkpoint_minutes", "encoder_weights", "wandb"),
        *("global_batch", "ahead", "cache_dir", "cache_size", "in_place", "device_memory", "loader", "init_from"),
    }
)
"""Settings that may change between a run and its continuation: they change no batch of a sound cache and no gradient.
The cache may have moved (its fingerprint counts), `epochs` may be raised, and backends agree within a tolerance."""


class TrainConfigError(UserError):
    """A value that training cannot work with; the message names the value, the limit and the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: what is trained, on which data, how, and where.

    The loader's device (`cuda` or `cpu`) is the one to train on; its seed also decides the starting weights and the
    dropout. The validation images are loaded in the same way as those for training, but in the cache's order and not
    augmented. The run itself sets the rank and the number of ranks: see `train.ranks`.
    """

    loader: LoaderConfig
    out: Path
    profile: str = "cpu"  # the one that the values come from, for messages
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    encoder_weights: str = "auto"  # what an encoder of timm starts with, see `model.encoder_unet.start_encoder`
    # For an encoder of timm; None: 0.03 and frozen if it is pretrained, else 1 and trained, as in earlier releases.
    encoder_lr: float | None = None  # factor of the learning rate; 0 freezes the encoder
    encoder_norm: EncoderNorm | None = None  # whether its BatchNorm keeps its statistics
    freeze_epochs: int = 0  # in which the encoder is frozen, at the start
    init_from: Path | None = None  # checkpoint whose network the run starts from; name, width and encoder are its own
    epochs: int = 100
    # Images in a step of all ranks, which share them evenly: the run then sets the loader's `batch_size`, and its
    # results do not depend on the number of ranks. 0 leaves `batch_size` as it is.
    global_batch: int = 0
    # Steps whose gradients make one update. Except for BatchNorm it is the update that `batch_size * accumulation`
    # images would give in one step, with the memory of `batch_size`.
    accumulation: int = 1
    side: int | None = None  # pixels that the profile was made for; the cache's own side is used; None: any
    optimizer: OptimizerName = "adamw"
    learning_rate: float | None = None  # the peak, after the warm-up; None: see `train.optimizer.LEARNING_RATE`
    weight_decay: float | None = None  # of convolution kernels; None: see `train.optimizer.WEIGHT_DECAY`
    momentum: float = 0.9  # of `sgd`
    scheduler: Scheduler = "cosine_annealing"
    warmup: float = 0.05  # share of all updates in which the learning rate rises
    clip: float = 1.0  # largest norm of the gradient
    # Decay of the moving average of the weights, which is then validated and saved as the best network; 0 uses the
    # weights as they are. See `train.optimizer.WeightAverage`.
    average: float = 0.0
    patience: int = 0  # epochs without a better validation IoU after which training ends; 0 never ends it early
    loss: LossName = "bce_dice"
    deterministic: bool = False  # use only kernels that repeat bit for bit; on a GPU they are slower
    precision: Precision = "fp32"  # of the convolutions; weights, loss and metrics are fp32
    sync_batchnorm: bool = False  # BatchNorm normalizes over the images of all ranks, on GPUs and without `compile`
    channels_last: bool = True  # weights and features are NHWC instead of NCHW
    compile: bool = False
    device_memory: int = 0  # bytes of the device that step and resident records may take together; 0: all that is free
    wandb: str = ""  # project at Weights & Biases to which the run is logged; empty: none
    checkpoint_minutes: float = 10.0  # between checkpoints within an epoch; 0 saves after each step

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            typed(name, getattr(self, name), kind)
        check_numbers(self, _LEAST, TrainConfigError)
        for name, value in (("learning_rate", self.peak), ("clip", self.clip)):
            if not 0 < value < float("inf"):
                raise TrainConfigError("{name}={value} is not a positive number; try 1e-3", name=name, value=value)
        if self.encoder_lr is not None and not 0 <= self.encoder_lr < float("inf"):
            raise TrainConfigError(
                "encoder_lr={value} is no factor of the learning rate; 0.03 is usual, 0 freezes the encoder",
                value=self.encoder_lr,
            )
        if self.init_from and self.encoder_weights != "auto":
            raise TrainConfigError(
                "encoder_weights={weights} and init_from={path} exclude each other: the checkpoint has an encoder's "
                "weights; leave one out",
                weights=self.encoder_weights,
                path=self.init_from,
            )
        if not 0 <= self.decay < float("inf"):
            raise TrainConfigError(
                "weight_decay={decay} is negative; 1e-2 is AdamW's default, 0 turns it off", decay=self.decay
            )
        for name, usual in _SHARES.items():
            if not 0 <= (value := getattr(self, name)) < 1:
                raise TrainConfigError(
                    "{name}={value} is not from 0 to below 1; {usual}", name=name, value=value, usual=usual
                )

    @property
    def device(self) -> Device:
        """Where to train: the device on which the loader puts its batches."""
        return cast(Device, self.loader.device)

    @property
    def images_per_step(self) -> int:
        """Images in a step of all ranks."""
        return self.loader.batch_size * self.loader.world

    @property
    def images_per_update(self) -> int:
        """Images whose gradients make one update of the weights."""
        return self.images_per_step * self.accumulation

    @property
    def peak(self) -> float:
        """The learning rate after the warm-up."""
        return LEARNING_RATE[self.optimizer] if self.learning_rate is None else self.learning_rate

    @property
    def decay(self) -> float:
        """The weight decay."""
        return WEIGHT_DECAY[self.optimizer] if self.weight_decay is None else self.weight_decay

    def check_encoder(self) -> None:
        """Raise a `TrainConfigError` if there are settings for an encoder, and the network has none."""
        for name in () if self.network.encoder else ("encoder_lr", "encoder_norm", "freeze_epochs"):
            if (value := getattr(self, name)) != getattr(TrainConfig, name):
                values = {"name": name, "value": value, "network": self.network}
                raise TrainConfigError(
                    "{name}={value} is for networks on an encoder, and {network} is none; add --encoder timm:NAME, or "
                    "leave it out",
                    **values,
                )

    def encoder_started(self, *, pretrained: bool) -> TrainConfig:
        """The configuration with what it leaves open about the encoder, if the network has one."""
        if self.network.encoder is None:
            return self
        usual = {"encoder_lr": 0.03 if pretrained else 1.0, "encoder_norm": "frozen" if pretrained else "trained"}
        return self.changed(**{name: value for name, value in usual.items() if getattr(self, name) is None})

    def shared_out(self, rank: int, world: int) -> TrainConfig:
        """The configuration of one of `world` ranks.

        Raises `TrainConfigError`: they cannot share `global_batch` evenly.
        """
        loader = dataclasses.replace(self.loader, rank=rank, world=world)
        if self.global_batch % world:
            low = self.global_batch // world * world or world
            values = {"global_batch": self.global_batch, "world": world, "low": low, "high": low + world}
            raise TrainConfigError(
                "global_batch={global_batch} cannot be shared out evenly among {world} ranks; use {low} or {high}, or "
                "another number of ranks",
                **values,
            )
        if self.global_batch:
            loader = dataclasses.replace(loader, batch_size=self.global_batch // world)
        return dataclasses.replace(self, loader=loader)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON, those of `network` and `loader` in dictionaries of their own."""
        values: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        return values

    def resolved(self) -> dict[str, Any]:
        """As `to_dict`, with the values that the configuration leaves open: order, learning rate, weight decay.

        What a run's configuration leaves open about the encoder was not there in its release: see `encoder_lr`.
        """
        values, loader = self.encoder_started(pretrained=False).to_dict(), self.loader
        values["loader"]["order"] = resolve_order(loader.order, loader.cache, in_place=loader.in_place)
        return {**values, "learning_rate": self.peak, "weight_decay": self.decay}

    def changed(self, **settings: Any) -> TrainConfig:
        """The configuration with other values of some settings, by their names in `SETTINGS`.

        Raises `TrainConfigError`: see `from_dict`.
        """
        return self.from_dict({**_by_name(self.to_dict()), **settings})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Undo `to_dict`; what is left out has its default.

        Settings of the loader may also stand beside the others, as earlier releases wrote them.

        Raises:
            TrainConfigError: a field is of the wrong type or out of its limits.
            ValueError: it is out of the limits of the network's or the loader's configuration.
        """
        nested: dict[str, Any] = {}
        for name, value in values.items():
            if dataclasses.is_dataclass(value):
                value = msgspec.to_builtins(value, enc_hook=str)
            grouped = name in _GROUPS and isinstance(value, Mapping)
            *groups, last = (name if grouped else SETTINGS.get(name, name)).split(".")
            group = nested
            for each in groups:
                group = group.setdefault(each, {})
            if grouped:
                group.setdefault(last, {}).update(value)
            else:
                group[last] = value
        try:
            return cast(TrainConfig, _make(cls, nested))
        except TypeError as error:  # a field is missing
            raise TrainConfigError("this is not a training configuration: {error}", error=error) from None

    def differences(self, other: TrainConfig) -> list[str]:
        """Settings that decide what a step does and in which `other` differs, see `cache.messages.differences`."""
        # As many images in a step, shared out among more or fewer ranks, are the same step.
        mine, theirs = (
            {**_by_name(config.resolved()), "batch_size": config.images_per_step} for config in (self, other)
        )
        if mine["order"] == theirs["order"] == "global":
            theirs["window"] = mine["window"]
        return differences({name: value for name, value in mine.items() if name not in FREE}, theirs)


def typed(name: str, value: Any, kind: Any) -> Any:
    """Give a setting's value in the type of its field.

    Raises `TrainConfigError`: it is of another type, or none of the choices; the message says what would be right.
    """
    try:
        made = msgspec.convert(value, kind, dec_hook=_path)
        if not isinstance(value, Mapping) or value.keys() <= vars(made).keys():
            return made
    except msgspec.ValidationError:
        pass
    kinds = {kind, *get_args(kind)}
    if choices := [choice for one in kinds if get_origin(one) is Literal for choice in get_args(one)]:
        raise TrainConfigError(
            "{name}={value!r} is not known; use one of {known}", name=name, value=value, known=", ".join(choices)
        )
    if bool in kinds:
        raise TrainConfigError("{name}={value!r} is neither true nor false; use one of the two", name=name, value=value)
    example = _example(name, 384 if int in kinds else 0.001)
    if int in kinds:
        raise TrainConfigError(
            "{name}={value!r} is not a whole number; use one as {example}", name=name, value=value, example=example
        )
    if float in kinds:
        raise TrainConfigError(
            "{name}={value!r} is not a number; use one as {example}", name=name, value=value, example=example
        )
    raise TrainConfigError("{name}={value!r} is not text; put it in quotes", name=name, value=value)


def _example(name: str, otherwise: float) -> float:
    """A setting's default, or another number where that is open."""
    field = SETTINGS.get(name, name).rpartition(".")[2]
    defaults = [getattr(kind, field, None) for kind in (TrainConfig, LoaderConfig, NetworkConfig, FolderConfig)]
    return next((default for default in defaults if default is not None), otherwise)


def _path(kind: type, value: Any) -> Any:
    return place(value) if kind is PurePath else kind(value)


def _make(kind: type, values: Mapping[str, Any], group: str = "") -> Any:
    """A configuration of `values`, nested as it is; `group` is its own name and a dot."""
    given = {}
    for name, field_kind in get_type_hints(kind).items():
        if name in values:
            path, value = group + name, values[name]
            if path in _GROUPS and isinstance(value, Mapping):
                given[name] = _make(field_kind, value, f"{path}.")
            else:
                given[name] = typed(_NAMES.get(path, path), value, field_kind)
    return kind(**given)


def _by_name(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: reduce(getitem, path.split("."), values) for name, path in SETTINGS.items()}


_CHOICES = {
    "encoder_norm": EncoderNorm | None,
    "optimizer": OptimizerName,
    "scheduler": Scheduler,
    "loss": LossName,
    "precision": Precision,
    "device": Device,
}

_LEAST = {"epochs": 1, "accumulation": 1}
_LEAST |= dict.fromkeys(("global_batch", "patience", "checkpoint_minutes", "device_memory", "freeze_epochs"), 0)

_SHARES = {
    "momentum": message("0.9 is the default"),
    "warmup": message("0.05 of all updates is the default"),
    "average": message("0.999 is usual, 0 turns it off"),
}

_GROUPS = ("network", "loader", "loader.folder")  # fields that are configurations themselves

SETTINGS: Mapping[str, str] = {
    **{field.name: field.name for field in dataclasses.fields(TrainConfig) if field.name not in _GROUPS},
    **{f"network.{field.name}": f"network.{field.name}" for field in dataclasses.fields(NetworkConfig)},
    **{
        field.name: f"loader.{field.name}"
        for field in dataclasses.fields(LoaderConfig)
        if field.name not in ("backend", "folder")
    },
    "loader": "loader.backend",
    "cache_dir": "loader.folder.folder",
    "cache_size": "loader.folder.size",
}
"""Where in `TrainConfig` each setting stands, by the name that files, flags and messages use for it."""

_NAMES = {path: name for name, path in SETTINGS.items()}
